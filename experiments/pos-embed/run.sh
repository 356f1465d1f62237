#!/usr/bin/env bash
# Everything in results.csv: 8 evaluations of the packaged encoder. Three minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
runs=${1:-outputs/experiments/pos-embed}
here=experiments/pos-embed

score() { # METHOD RESAMPLING GRID
    "$python" -m paka.evaluate backbone=tiny split=val profile.grid="[$3,$3]" backbone.pos_embed=author \
        backbone.resampling.author="$2" method="$1" hydra.run.dir="$runs/$1-$3"
}

rm -f "$here/results.csv"
for grid in 8 24; do
    score timm "{mode: bicubic, antialias: true}" "$grid"
    score dino "{mode: bicubic, antialias: false, offset: 0.1}" "$grid"
    score mae "{mode: bicubic, antialias: false}" "$grid"
    score big_vision "{mode: bilinear, antialias: false, align_corners: true}" "$grid"
    for method in timm dino mae big_vision; do
        rows=$runs/$method-$grid/results.csv
        [ -f "$here/results.csv" ] || sed -n '1s/^/grid,/p' "$rows" >"$here/results.csv"
        sed "1d;s/^/$grid,/" "$rows" >>"$here/results.csv"
    done
done
"$python" "$here/plot.py"
