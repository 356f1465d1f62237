"""What all figures share: their look, paper of a given size, captions, legends, and how they are saved."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image, ImageFont

from paka.colours import Pixels
from paka.disk import whole

DPI = 150
INK, MUTED, BEFORE, AFTER = "#1a1a1a", "#6b6b6b", "#9a9a9a", "#0072b2"
GAIN, LOSS, NEITHER = "#009e73", "#d55e00", "#4a4a4a"
"""What only the second of two is right about, only the first, and neither."""
MARGIN, LINE = 12 / DPI, 28 / DPI
"""Edge of the paper, and height of a line of a legend, in inches."""

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": "#c8c8c8",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "text.parse_math": False,
    "grid.color": "#ececec",
    "savefig.facecolor": "white",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
}


def paper(width: float, height: float) -> Figure:
    """Return an empty figure of that many inches; it leaves pyplot's figures and the user's backend alone."""
    return Figure(figsize=(width, height), dpi=DPI)


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Return axes whose left upper corner is that many inches from the figure's."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def write(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    """Write text that begins that many inches from the left and has its middle that many from the top."""
    across, down = figure.get_size_inches()
    figure.text(left / across, 1 - top / down, text, **{"va": "center", **style})


def legend(figure: Figure, handles: Sequence[Patch], *, bottom: float, columns: int) -> Legend:
    """Add a legend of patches in the middle, that many inches above the foot."""
    return figure.legend(
        handles=handles, ncols=columns, loc="lower center", bbox_to_anchor=(0.5, bottom / figure.get_figheight()),
        frameon=False, handlelength=1.1, handleheight=1.1, borderaxespad=0, borderpad=0, labelspacing=0.45,
        columnspacing=1.6,
    )  # fmt: skip


def columns_within(labels: Sequence[str], width: float) -> int:
    """Return into how many columns of a width in inches a legend goes, evenly filled."""
    longest = max(len(label) for label in labels)
    fitting = max(int(width / (0.4 + 0.075 * longest)), 1)
    rows = -(-len(labels) // fitting)
    return -(-len(labels) // rows)


def check_counts(images: Pixels, **others: NDArray[Any]) -> None:
    """Refuse images that are none, or maps that are not one for each.

    Raises:
        ValueError: The counts do not match.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or len(images) == 0:
        raise ValueError(f"images must be (n, H, W, 3) with at least one image, not {images.shape}")
    for name, other in others.items():
        if len(other) != len(images):
            raise ValueError(f"{name.lower()} holds {len(other)} maps for {len(images)} images")


def save(figure: Figure, path: str | Path) -> None:
    """Save a figure as PNG without an alpha channel, which would be a sixth of the file; its folder is made."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib has no types here
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    with whole(Path(path)) as unfinished:
        Image.fromarray(pixels[..., :3]).save(unfinished, format="PNG", dpi=(DPI, DPI))


def save_both(figure: Figure, path: Path) -> None:
    """Save a figure as PNG, and as SVG beside it: the same bytes for the same figure."""
    save(figure, path)
    with mpl.rc_context({"svg.hashsalt": "paka"}), whole(path.with_suffix(".svg")) as unfinished:
        figure.savefig(unfinished, format="svg", metadata={"Date": None})


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the font of the figures, which matplotlib brings along, for pictures drawn with Pillow."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)


def rgb(colour: str) -> Pixels:
    """Return a colour such as `#009e73` as (3,) uint8."""
    return np.frombuffer(bytes.fromhex(colour.removeprefix("#")), dtype=np.uint8)
