"""Draw the diagrams of docs/method.md with the code that they explain: `python docs/diagrams.py`, which takes a minute on a CPU.

What is shown is computed here, on the procedural world and with the packaged encoder, from fixed seeds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from paka import alignment, kernels
from paka.config import CONF_DIR, build
from paka.correspondence import align, resampling_weights, sample_points, shared_boxes
from paka.figures.canvas import AFTER, GAIN, INK, LOSS, MUTED, STYLE, axes_at, paper, save, write
from paka.sources.scenes import Scenes

IMAGES = Path(__file__).parent / "images"
GLOBAL, LOCAL, GRID = 16, 7, 7
"""Tokens per side of a global and of a local, and points per side at which two views are compared."""
COUNT = 24
"""Images that confound each other."""
TOKEN = 8
"""Pixels per side of a token of the packaged encoder."""


class Pair(NamedTuple):
    """A student's local and a teacher's global of an image, and where they look."""

    local: NDArray[np.uint8]
    whole: NDArray[np.uint8]
    boxes: Tensor  # (2, 4): of the local, of the global
    flips: Tensor  # (2,)


def keep(figure: Figure, name: str) -> None:
    """Write a figure as WebP, a fifth of the PNG where pictures are in it."""
    with tempfile.TemporaryDirectory() as folder:
        save(figure, Path(folder) / "figure.png")
        Image.open(Path(folder) / "figure.png").save(IMAGES / f"{name}.webp", quality=80, method=6)


def configured() -> tuple[Any, Any]:
    """Return the packaged encoder and the paper's way of cutting views."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", overrides=["augmentation.flip=0.3"])
    sizes = {"global_size": GLOBAL * TOKEN, "local_size": LOCAL * TOKEN}
    return build(cfg.backbone.encoder).eval(), build(cfg.augmentation, **sizes)


def pair_of(sample: Any, local: int, whole: int) -> Pair:
    at = [len(sample.teacher) + local, whole]
    return Pair(
        sample.locals[local].transpose(1, 2, 0),
        sample.teacher[whole].transpose(1, 2, 0),
        torch.from_numpy(sample.boxes[at]),
        torch.from_numpy(sample.flips[at]),
    )


def aligned(encoder: Any, pairs: list[Pair]) -> Any:
    """Return the tokens of pairs at the same points of their images."""
    with torch.no_grad():
        student, teacher = (
            encoder(torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)).patches
            for views in zip(*((pair.local, pair.whole) for pair in pairs), strict=True)
        )
    boxes = torch.stack([pair.boxes for pair in pairs], dim=1)
    flips = torch.stack([pair.flips for pair in pairs], dim=1)
    return align(student, teacher, *boxes, *flips, grid=GRID)


def shown(axes: Axes, image: NDArray[np.uint8], title: str = "") -> None:
    axes.imshow(image, extent=(0, image.shape[1], image.shape[0], 0), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8.5, fontweight="normal")
    for spine in axes.spines.values():
        spine.set_visible(False)


def boxed(axes: Axes, box: Any, colour: str, name: str, style: str = "-") -> None:
    left, top, right, bottom = (float(edge) for edge in box)
    axes.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=1.8, ls=style)
    )
    axes.text(left + 3, top + 3, name, color="white", fontsize=7.5, va="top", bbox={"fc": colour, "ec": "none", "pad": 1.2})  # fmt: skip


@mpl.rc_context(STYLE)
def draw_views(image: NDArray[np.uint8], sample: Any) -> None:
    """The views of an image: where they are cut, what student and teacher see, and which are compared."""
    figure = paper(7.6, 3.55)
    whole = axes_at(figure, 0.1, 0.35, 3.0, 3.0)
    shown(whole, image, "image")
    colours = [AFTER, LOSS]
    for number, box in enumerate(sample.boxes[:2]):
        boxed(whole, box, colours[number], f"global {number + 1}")
    for number, box in enumerate(sample.boxes[2:]):
        boxed(whole, box, INK, str(number + 1), "--")
    write(figure, 3.35, 0.2, "teacher: globals, clean", fontsize=8.5)
    write(figure, 5.3, 0.2, "student: the same, augmented", fontsize=8.5)
    for number in range(2):
        for left, views in ((3.35, sample.teacher), (5.3, sample.globals)):
            axes = axes_at(figure, left + 0.95 * number, 0.35, 0.88, 0.88)
            shown(axes, views[number].transpose(1, 2, 0))
            for spine in axes.spines.values():
                spine.set(visible=True, edgecolor=colours[number], linewidth=1.8)
    write(figure, 3.35, 1.5, "student: locals, augmented, and their share inside globals", fontsize=8.5)
    pairs = {(local, whole) for local, whole in sample.local_pairs}
    for number in range(4):
        shown(
            axes_at(figure, 3.35 + 1.03 * number, 1.65, 0.92, 0.92), sample.locals[number].transpose(1, 2, 0)
        )
        for other in range(2):
            box = torch.from_numpy(sample.boxes)
            common = shared_boxes(box[None, 2 + number], box[None, other])[0]
            sides = (common[2:] - common[:2]).clamp_min(0)
            share = float(sides.prod() / (box[2 + number, 2:] - box[2 + number, :2]).prod())
            counts = (number, other) in pairs
            text = f"{number + 1} in global {other + 1}: {share:.0%}"
            write(figure, 3.35 + 1.03 * number, 2.75 + 0.2 * other, text, fontsize=7, color=colours[other] if counts else MUTED)  # fmt: skip
    write(figure, 3.35, 3.3, "Compared, in colour: a global that holds at least 90 % of the local.", fontsize=8, color=MUTED)  # fmt: skip
    keep(figure, "views")


@mpl.rc_context(STYLE)
def draw_correspondence(image: NDArray[np.uint8], pair: Pair) -> None:
    """The points at which two views are compared, in the image and among the tokens of either view."""
    figure = paper(7.6, 2.85)
    common = shared_boxes(pair.boxes[:1], pair.boxes[1:])
    places = (("student's local, 7 x 7 tokens", pair.local, 0, LOCAL), ("teacher's global, 16 x 16 tokens", pair.whole, 1, GLOBAL))  # fmt: skip
    weights = [
        resampling_weights(common, pair.boxes[[i]], pair.flips[[i]], tokens=tokens, grid=GRID)
        for _, _, i, tokens in places
    ]
    valid = (weights[0].valid & weights[1].valid).flatten()
    whole = axes_at(figure, 0.1, 0.35, 2.4, 2.4)
    shown(whole, image, "image: the shared box, 7 x 7 points")
    boxed(whole, pair.boxes[1], AFTER, "global")
    boxed(whole, pair.boxes[0], INK, "local", "--")
    points = sample_points(weights[1], pair.boxes[1:], pair.flips[1:])[0]
    dotted(whole, points, valid, 9)
    for place, (title, view, i, tokens) in enumerate(places):
        axes = axes_at(figure, 2.65 + 2.5 * place, 0.35, 2.4, 2.4)
        mirrored = ", mirrored" if bool(pair.flips[i]) else ""
        shown(axes, view, title + mirrored)
        for line in np.linspace(0, len(view), tokens + 1):
            axes.axhline(line, color="white", lw=0.5, alpha=0.6)
            axes.axvline(line, color="white", lw=0.5, alpha=0.6)
        box = pair.boxes[i].double()
        inside = (points - box[:2]) / (box[2:] - box[:2])
        if bool(pair.flips[i]):
            inside[:, 0] = 1 - inside[:, 0]
        dotted(axes, inside * len(view), valid, 9)
        axes.set(xlim=(0, len(view)), ylim=(len(view), 0))
    keep(figure, "correspondence")


def dotted(axes: Axes, points: Tensor, valid: Tensor, size: float) -> None:
    """Mark points; hollow ones would have to be extrapolated and do not count."""
    x, y = points.numpy().T
    on = valid.numpy()
    axes.scatter(x[on], y[on], s=size, c="white", edgecolors=INK, linewidths=0.6, zorder=3)
    axes.scatter(x[~on], y[~on], s=size, facecolors="none", edgecolors=INK, linewidths=0.6, zorder=3)


def matrix(axes: Axes, values: Tensor, title: str) -> None:
    largest = float((values - values.diag().diag()).abs().max())  # the diagonal may exceed it
    axes.imshow(values, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8.5, fontweight="normal")


@mpl.rc_context(STYLE)
def draw_kernels(found: Any) -> None:
    """The centred kernels of the two views of a pair, by two kernels, and their alignment."""
    figure = paper(7.6, 2.35)
    student, teacher, valid = (part[:1] for part in found)
    ways = {
        "linear": kernels.linear,
        "RBF": lambda *tokens: kernels.rbf(*tokens, bandwidth=0.5, bandwidth_rule="median"),
    }
    for place, (name, kernel) in enumerate(ways.items()):
        k, t = kernel(student, teacher, valid), kernel(teacher, teacher, valid)
        left = 0.1 + 3.85 * place
        for side, (what, one) in enumerate({"student": k, "teacher": t}.items()):
            matrix(
                axes_at(figure, left + 1.85 * side, 0.3, 1.75, 1.75),
                alignment.centre(one, valid)[0],
                f"{what}, {name}",
            )
        score, unbiased = (float(alignment.cka(k, t, valid, unbiased=one)) for one in (False, True))
        write(figure, left, 2.2, f"CKA {score:.2f}, of the unbiased HSIC {unbiased:.2f}", fontsize=8.5, color=MUTED)  # fmt: skip
    keep(figure, "kernels")


@mpl.rc_context(STYLE)
def draw_floor() -> None:
    """CKA of independent tokens by the number of channels: of the biased HSIC it is about D / (D + N)."""
    generator = torch.Generator().manual_seed(0)
    n, channels = GRID * GRID, [4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]
    found: dict[bool, list[float]] = {False: [], True: []}
    for d in channels:
        a, b = (torch.randn(64, n, d, generator=generator) for _ in range(2))
        valid = torch.ones(64, n, dtype=torch.bool)
        grams = [kernels.linear(tokens, tokens, valid) for tokens in (a, b)]
        for unbiased, values in found.items():
            values.append(float(alignment.cka(*grams, valid, unbiased=unbiased).mean()))
    figure = paper(4.6, 2.6)
    axes = axes_at(figure, 0.55, 0.15, 3.9, 1.95)
    smooth = np.geomspace(4, 2048, 200)
    axes.semilogx(smooth, smooth / (smooth + n), color=MUTED, lw=1.2, base=2)
    axes.plot(channels, found[False], "o", color=LOSS, ms=4.5)
    axes.plot(channels, found[True], "o", color=GAIN, ms=4.5)
    axes.grid(axis="y")
    axes.set(ylim=(-0.05, 1.05), xlabel="channels D of each token, N = 49 tokens", xticks=channels)
    axes.set_xticks(channels, [str(d) for d in channels])
    axes.text(300, 0.70, "biased", color=LOSS, ha="left")
    axes.text(24, 0.52, "D / (D + N)", color=MUTED, ha="right")
    axes.text(300, 0.06, "unbiased", color=GAIN, ha="left")
    axes.set_ylabel("CKA of independent tokens")
    keep(figure, "floor")


@mpl.rc_context(STYLE)
def draw_deconfounding(found: Any) -> None:
    """What the kernels of all images have in common, and what of one is left without it."""
    figure = paper(7.6, 2.5)
    image = torch.arange(len(found.valid))
    student, teacher = (
        alignment.centre(kernels.linear(tokens, found.teacher, found.valid), found.valid)
        for tokens in (found.student, found.teacher)
    )
    left = [alignment.deconfound(side, found.valid, image) for side in (student, teacher)]
    mean = teacher / teacher.flatten(1).norm(dim=1)[:, None, None]
    for place, (title, values) in enumerate(
        {
            "a teacher's kernel, centred": teacher[0],
            f"mean of {len(image) - 1} other images": mean[1:].mean(dim=0),
            "what is left": left[1][0],
        }.items()
    ):
        matrix(axes_at(figure, 0.1 + 1.95 * place, 0.3, 1.8, 1.8), values, title)
    axes = axes_at(figure, 6.1, 0.62, 1.35, 1.48)
    bars = []
    for k, t in ((student, teacher), left):
        own, others = alignment.kernel_alignment(k, t), alignment.kernel_alignment(k, t.roll(1, dims=0))
        bars += [float(own.mean()), float(others.mean())]
    axes.bar([0, 1, 2.6, 3.6], bars, color=[AFTER, MUTED, AFTER, MUTED], width=0.85)
    for x, value in zip([0, 1, 2.6, 3.6], bars, strict=True):
        axes.text(x, max(value, 0) + 0.015, f"{value:.2f}", ha="center", fontsize=7)
    axes.set_xticks([0.5, 3.1], ["before", "after"])
    axes.set(yticks=[], ylim=(min(0, *bars), 1.15 * max(bars)))
    axes.spines["left"].set_visible(False)
    write(figure, 6.1, 0.18, "alignment with", fontsize=8.5)
    write(figure, 6.1, 0.34, "its own teacher", fontsize=7.5, color=AFTER)
    write(figure, 6.1, 0.5, "another image's teacher", fontsize=7.5, color=MUTED)
    keep(figure, "deconfounding")


def main() -> None:
    """Draw all of them."""
    torch.set_num_threads(1)
    encoder, multi_crop = configured()
    with tempfile.TemporaryDirectory() as cache:
        source = Scenes(seed=0, train=COUNT, val=1, test=1, size=256, split="train", cache=cache)
        images = [np.array(source.image(index)) for index in range(COUNT)]
    samples = [multi_crop(image, np.random.default_rng([7, index])) for index, image in enumerate(images)]
    first = next(index for index, sample in enumerate(samples) if 0 < len(sample.local_pairs) < 8)
    draw_views(images[first], samples[first])
    pairs = [pair_of(sample, *sample.local_pairs[0]) for sample in samples]
    mirrored = next(index for index, pair in enumerate(pairs) if bool(pair.flips[0]) and not pair.flips[1])
    draw_correspondence(images[mirrored], pairs[mirrored])
    found = aligned(encoder, pairs)
    draw_kernels(found)
    draw_floor()
    draw_deconfounding(found)


if __name__ == "__main__":
    main()
