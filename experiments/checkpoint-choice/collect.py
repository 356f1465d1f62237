"""Collect what labels and estimates say of each checkpoint into `results.csv`, `agreement.csv` and `estimates.png`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from paka.protocols.label_free import rank_agreement

HERE = Path(__file__).parent
PROTOCOLS = ("in_context", "linear", "overclustering")
ESTIMATES = ("dse", "stability")
RUNS = ("demo-0", "demo-1", "demo-2", "too-fast-0")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def write(name: str, table: list[dict[str, object]]) -> None:
    with (HERE / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def checkpoints(folder: Path, run: str) -> list[dict[str, object]]:
    """Return the checkpoints of a run: estimates and scores; `before` is step 0, which is kept too."""
    scores = rows(folder / "results.csv")
    after = {(row["method"], row["protocol"]): float(row["after"]) for row in scores}
    estimates = [row for row in rows(folder / "choice.csv") if row["checkpoint"] != "before"]
    return [
        {
            "run": run,
            "step": int(row["checkpoint"].removeprefix("step_")),
            **{name: f"{float(row[name]):.4f}" for name in ESTIMATES},
            **{protocol: f"{after[row['checkpoint'], protocol]:.2f}" for protocol in PROTOCOLS},
        }
        for row in estimates
    ]


def main() -> None:
    folder = Path(sys.argv[1])
    found = [row for run in RUNS for row in checkpoints(folder / f"{run}-scored", run)]
    write("results.csv", found)
    agreement, (figure, axes) = (
        [],
        plt.subplots(2, len(RUNS), figsize=(11, 4.6), sharex=True, layout="constrained"),
    )
    for column, run in zip(axes.T, RUNS, strict=True):
        own = [row for row in found if row["run"] == run]
        steps = [row["step"] for row in own]
        for axis, names, title in ((column[0], ESTIMATES, run), (column[1], PROTOCOLS, "")):
            for name in names:
                values = [float(str(row[name])) for row in own]
                span = max(values) - min(values) or 1.0
                shown = values if axis is column[1] else [(value - min(values)) / span for value in values]
                axis.plot(steps, shown, "o-", markersize=3, label=name.replace("_", "-"))
            axis.set_title(title, fontsize=10)
        column[1].set_xlabel("optimizer step")
        for protocol in PROTOCOLS:
            for name in ESTIMATES:
                pair = ([float(str(row[key])) for row in own] for key in (name, protocol))
                ranked = rank_agreement(*pair)
                best = max(own, key=lambda row: float(str(row[name])))
                agreement.append(
                    {
                        "run": run,
                        "protocol": protocol,
                        "estimate": name,
                        "chosen_step": best["step"],
                        "spearman": f"{ranked.spearman:.2f}",
                        "kendall": f"{ranked.kendall:.2f}",
                        "points_lost": f"{ranked.regret:.2f}",
                        "last_step_loses": f"{max(float(str(row[protocol])) for row in own) - float(str(own[-1][protocol])):.2f}",
                    }
                )
    axes[0, 0].set_ylabel("estimate, rescaled")
    axes[1, 0].set_ylabel("mIoU (%)")
    for axis in axes[:, -1]:
        axis.legend(fontsize=8)
    write("agreement.csv", agreement)
    figure.savefig(HERE / "estimates.png", dpi=150)


if __name__ == "__main__":
    main()
