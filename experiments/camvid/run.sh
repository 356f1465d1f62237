#!/usr/bin/env bash
# Everything in results.csv: the demonstration's recipe on CamVid, seeds 0 to 2. ROOT holds images/ and masks/.
set -euo pipefail
root=${1:?usage: experiments/camvid/run.sh ROOT [RUNS]}
root=$(cd "$root" && pwd)
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
runs=${2:-outputs/experiments/camvid}

for seed in 0 1 2; do
    "$python" -m paka.train experiment=camvid data.root="$root" seed=$seed hydra.run.dir="$runs/camvid-$seed"
done
"$python" - "$runs" <<'PYTHON'
import sys
from pathlib import Path

from paka.scores import merge_results, read_results

for path in sorted(Path(sys.argv[1]).glob("*/results.csv")):
    merge_results("experiments/camvid/results.csv", read_results(path))
PYTHON
