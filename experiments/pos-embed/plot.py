"""Draw `scores.png` from `results.csv`: difference to timm's resampling, by protocol and grid."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
METHODS = ("dino", "mae", "big_vision")

rows = list(csv.DictReader((HERE / "results.csv").read_text().splitlines()))
score = {(row["grid"], row["method"], row["protocol"]): float(row["before"]) for row in rows}
protocols = list(dict.fromkeys(row["protocol"] for row in rows))
figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
for axis, grid in zip(axes, ("8", "24"), strict=True):
    for place, method in enumerate(METHODS):
        values = [score[grid, method, name] - score[grid, "timm", name] for name in protocols]
        axis.bar(
            [index + 0.25 * (place - 1) for index in range(len(protocols))], values, width=0.23, label=method
        )
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(protocols)), protocols)
    axis.set_title(f"{grid} x {grid} tokens (learnt at 16 x 16)")
axes[0].set_ylabel("mIoU less that of timm's, points")
axes[1].legend()
figure.savefig(HERE / "scores.png", dpi=150)
