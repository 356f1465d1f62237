#!/usr/bin/env bash
# Everything in results.csv and agreement.csv: three runs of the demonstration and one that goes wrong, with an encoder kept
# every 20 steps, each scored with labels and estimated without. In single precision and
# by one thread, which every machine has: about an hour on one core.
set -euo pipefail
export OMP_NUM_THREADS=1
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
runs=${1:-outputs/experiments/checkpoint-choice}
here=experiments/checkpoint-choice

study() { # NAME SEED SETTING...
    local name=$1 seed=$2
    shift 2
    "$python" -m paka.train experiment=demo seed="$seed" snapshots=20 eval=none \
        trainer.precision=32-true hydra.run.dir="$runs/$name-$seed" "$@"
    "$python" -m paka.evaluate backbone=tiny seed="$seed" compare="[$runs/$name-$seed/snapshots]" eval=dense \
        hydra.run.dir="$runs/$name-$seed-scored"
}

for seed in 0 1 2; do
    study demo "$seed"
done
study too-fast 0 backbone.lr=1e-2 trainer.gradient_clip=1.0
"$python" "$here/collect.py" "$runs"
