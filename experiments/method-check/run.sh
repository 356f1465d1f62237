#!/usr/bin/env bash
# Everything in results.csv: 16 short runs and one evaluation, one seed. About an hour and a half on one core.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
runs=${1:-outputs/experiments/method-check}

run() { # METHOD OVERRIDES...
    "$python" -m paka.train experiment=demo trainer.max_steps=60 seed=0 method="$1" hydra.run.dir="$runs/$1" "${@:2}"
}

# kernels, with the paper's biased CKA per pair
run linear objective=paka kernel=linear
run cosine objective=paka kernel=cosine
run rbf objective=paka kernel=rbf
run laplacian objective=paka kernel=laplacian
run rbf_mixture objective=paka kernel=rbf_mixture
# estimators, with the linear kernel
run unbiased objective=paka objective.loss.unbiased=true
run pooled_unbiased objective=paka objective.loss.unbiased=true objective.loss.pooled=true
run deconfounded objective=paka_deconfounded
run deconfounded_unbiased objective=paka_deconfounded objective.loss.unbiased=true
run batch objective=paka_batch
# rivals
run frobenius objective=frobenius kernel=cosine
run gram objective=gram teacher=anchor
run neighbour_ordering objective=neighbour_ordering objective.loss.references=16
run token_regression objective=token_regression
run dense_infonce objective=dense_infonce
run image_level objective=image_level image_head.pooling=mean
# and one that trains nothing
"$python" -m paka.evaluate backbone=tiny features=rasa seed=0 method=rasa hydra.run.dir="$runs/rasa"

"$python" - "$runs" <<'PYTHON'
import sys
from pathlib import Path

from paka.figures.scores import scores_figure
from paka.scores import changes, merge_results, read_results

folder = Path("experiments/method-check")
for path in sorted(Path(sys.argv[1]).glob("*/results.csv")):
    merge_results(folder / "results.csv", read_results(path))
scores = sorted(read_results(folder / "results.csv"), key=lambda score: -score.delta)
in_context = [score for score in scores if score.protocol == "in_context"]
rows = [row._replace(label=score.method) for row, score in zip(changes(in_context), in_context, strict=True)]
scores_figure(folder / "in_context.png", rows, metric="in-context mIoU on the scenes' test images, seed 0")
PYTHON
