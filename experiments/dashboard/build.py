"""Build the dashboard of post-training runs at Weights & Biases: `build.py ENTITY/PROJECT`, or `build.py --print`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NamedTuple

STEP, TIME = "trainer/global_step", "RelativeTime(Process)"
"""What curves run over; readings of the machine have no step, and `Runtime` is one number for a whole run."""


class Curve(NamedTuple):
    """A panel of curves over the run."""

    title: str
    metrics: tuple[str, ...]
    x: str = STEP
    log: bool = False


class Bars(NamedTuple):
    """A panel that compares runs by their last values."""

    title: str
    metrics: tuple[str, ...]


class Media(NamedTuple):
    """A panel of pictures, by their names."""

    title: str
    metrics: tuple[str, ...]


def _scores(protocol: str) -> Bars:
    return Bars(f"{protocol}: difference, mIoU", (f"evaluation/{protocol}/mIoU/delta",))


SECTIONS: dict[str, tuple[Curve | Bars | Media, ...]] = {
    "Loss and alignment": (
        Curve("Loss", ("loss",)),
        Curve("CKA, and its floor with shuffled tokens", ("cka", "cka_floor")),
        Curve("Pairs of views that are compared", ("valid_pairs",)),
        Curve("Points that are compared", ("valid_points",)),
    ),
    "Health": (
        Curve("Effective rank of the tokens (RankMe)", ("rankme",)),
        Curve("Position in the tokens, R2", ("positional_r2",)),
        Curve("Tokens of odd norm", ("norm_outliers",)),
        Curve("Share of alignment that other images explain", ("locality_share",)),
        Curve("Gradient norms before clipping", ("grad_norm/encoder", "grad_norm/head"), log=True),
    ),
    "Evaluation": (
        *(_scores(protocol) for protocol in ("in_context", "linear", "overclustering")),
        Bars(
            "After, mIoU",
            tuple(f"evaluation/{one}/mIoU/after" for one in ("in_context", "linear", "overclustering")),
        ),
        Media("Tokens and predictions", ("figures/features", "figures/in_context", "figures/linear")),
        Media("Scores", ("figures/scores",)),
    ),
    "Optimisation": (
        Curve("Learning rate of the encoder", ("lr",)),
        Curve("Weight decay", ("weight_decay",)),
        Curve("Momentum of the teacher", ("teacher_momentum",)),
    ),
    "System": (
        Curve("Memory of the process, MB", ("system/proc.memory.rssMB",), x=TIME),
        Curve("Processor, percent", ("system/cpu",), x=TIME),
        Curve("Memory of the machine, percent", ("system/memory_percent",), x=TIME),
        Curve("GPU, percent", ("system/gpu.0.gpu",), x=TIME),
        Curve("Memory of the GPU, percent", ("system/gpu.0.memoryAllocated",), x=TIME),
    ),
}
"""Panels by section."""


def workspace(entity: str, project: str):  # noqa: ANN201 - its type is a package's that need not be there
    """Return the workspace; nothing is sent."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb_workspaces.workspaces as ws

    return ws.Workspace(
        entity=entity,
        project=project,
        name="Post-training",
        sections=[
            ws.Section(name=name, panels=[_panel(one) for one in panels], is_open=name != "System")
            for name, panels in SECTIONS.items()
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP),
    )


def _panel(described: Curve | Bars | Media):  # noqa: ANN202
    import wandb_workspaces.reports.v2 as wr

    if isinstance(described, Curve):
        return wr.LinePlot(
            title=described.title, x=described.x, y=[*described.metrics], log_y=described.log or None
        )
    if isinstance(described, Bars):
        return wr.BarPlot(title=described.title, metrics=[*described.metrics])
    return wr.MediaBrowser(title=described.title, media_keys=[*described.metrics])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("place", nargs="?", default="entity/project", metavar="ENTITY/PROJECT")
    parser.add_argument(
        "--print",
        action="store_true",
        dest="dry",
        help="write it as JSON to standard output; needs no account",
    )
    arguments = parser.parse_args()
    entity, _, project = arguments.place.partition("/")
    if not entity or not project or (arguments.place == "entity/project" and not arguments.dry):
        parser.error(f"expected ENTITY/PROJECT, got {arguments.place}")
    try:
        built = workspace(entity, project)
    except ModuleNotFoundError as error:
        sys.exit(f"expected the package wandb-workspaces, got {error}: pip install wandb-workspaces")
    if arguments.dry:
        view = built._to_model()  # what `save` sends; there is no public way to look at it
        sys.stdout.write(view.spec.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n")
    else:
        built.save()


if __name__ == "__main__":
    main()
