"""Pictures while training: tokens of a few images as colours, in one basis all along, and the kernels that are aligned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from paka import alignment
from paka.boxes import Box
from paka.colours import Colouring, Floats
from paka.datamodule import ViewDataset
from paka.document import Figure
from paka.features import extract
from paka.figures.animation import animate
from paka.figures.moment import Marks, Moment, moment_figure
from paka.frames import Frame
from paka.head import Branch
from paka.kernels import Kernel, linear
from paka.modes import in_evaluation
from paka.module import PostTraining
from paka.objectives.points import of_all_sides
from paka.sources.arrays import Arrays
from paka.views import Views, collate
from paka.workspace import Workspace

IMAGES = 4
"""Images that are shown, evenly spaced."""

KEPT = 96
"""Moments that are remembered for the animation at most."""

FOLDER, ANIMATION = "training", "training.gif"
"""Where pictures go below the folder of figures, and what they become in the end."""


class FeatureVisualizer(L.Callback):
    """Draw what a few images look like to the encoder, every so many optimizer steps, at the start and at the end.

    It works on the first process alone, draws no random numbers that others would miss, and leaves every module in its
    mode: a run with it is the run without it.

    Args:
        folder: Folder of figures; `training/step_000120.png` and `training.gif` are written there.
        dataset: The views that are trained on: images are its own, kernels those of their views in epoch 0.
        frame: The grid of tokens that images are brought to.
        every: Optimizer steps between pictures.
        branch: `teacher` or `student`, whose tokens are shown: the one that the run exports.
        seed: Draws the patch of each image that others are compared with.

    Attributes:
        moments: What has been drawn; kept in the checkpoint, so that a resumed run's animation is whole.
    """

    def __init__(
        self, folder: Path, dataset: ViewDataset, frame: Frame, *, every: int, branch: str, seed: int
    ) -> None:
        self.folder, self.frame, self.every, self.branch = folder, frame, every, branch
        self.dataset, self.seed = dataset, seed
        self.moments: list[Moment] = []
        self.colouring: Colouring | None = None
        self.source: Arrays | None = None
        self.drawn: int | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose what is shown, and draw the start."""
        if trainer.is_global_zero:
            self._choose()
            self._draw(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Draw if it is time."""
        del args
        if trainer.is_global_zero and trainer.global_step % self.every == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the end, and put the pictures together; after Ctrl-C, those there are."""
        if trainer.is_global_zero:
            self._draw(trainer, pl_module)
            animate(self.folder / ANIMATION, self.images, self.moments, self.marks)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know: the basis, and what was drawn but for the kernels."""
        if self.colouring is None:
            return {}
        basis = (self.colouring.basis, self.colouring.low, self.colouring.high)
        return {
            "basis": [torch.from_numpy(np.ascontiguousarray(value)) for value in basis],
            "steps": [moment.step for moment in self.moments],
            "colours": torch.from_numpy(np.stack([moment.colours for moment in self.moments])),
            "similarity": torch.from_numpy(np.stack([moment.similarity for moment in self.moments])).half(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`; one of a run that drew nothing is empty."""
        if not state_dict:
            return
        self.colouring = Colouring(*(value.numpy() for value in state_dict["basis"]))
        drawn = zip(
            state_dict["steps"],
            state_dict["colours"].numpy(),
            state_dict["similarity"].float().numpy(),
            strict=True,
        )
        self.moments = [Moment(*one) for one in drawn]

    def _choose(self) -> None:
        """Read the images, those that stand in for unreadable ones included, and draw the patches and views of them."""
        count = len(self.dataset.source)
        numbers = sorted({*np.linspace(0, count - 1, min(IMAGES, count)).astype(int).tolist()})
        shown = [self.dataset[0, number] for number in numbers]
        images = [self.dataset.source.image(index) for _, _, index, _ in shown]
        self.source, self.views = Arrays(images, name="shown"), _compared(collate(shown))
        fits = [self.frame.fit(*image.shape[:2]) for image in images]
        rng = np.random.default_rng(self.seed)
        self.patches = [(int(rng.integers(rows)), int(rng.integers(columns))) for rows, columns in fits]
        self.grid = max(rows for rows, _ in fits), max(columns for _, columns in fits)
        tall, wide = (side * self.frame.patch for side in self.grid)
        self.images = np.stack([self.frame.picture(image)[:tall, :wide] for image in images])
        self.pairs: list[int | None] = [None] * len(images)

    @property
    def marks(self) -> Marks:
        """What is marked in the images; the range of cosines is that of the first moment."""
        low = float(np.percentile(self.moments[0].similarity, 2))
        return Marks(self.patches, [self._box(image) for image in range(len(self.patches))], low)

    def _box(self, image: int) -> Box | None:
        """Return where the view lies whose kernels are shown, in pixels of the picture."""
        pair, views = self.pairs[image], self.views
        if pair is None or self.source is None:
            return None
        pairs = torch.cat([views.global_pairs, views.local_pairs])
        first = 0 if pair < len(views.global_pairs) else views.teacher.shape[1]
        height, width = self.source.image(image).shape[:2]
        rows, columns = self.frame.fit(height, width)
        scales = columns * self.frame.patch / width, rows * self.frame.patch / height
        x0, y0, x1, y1 = views.boxes[image, first + int(pairs[pair, 1])].tolist()
        left, top, right, bottom = x0 * scales[0], y0 * scales[1], x1 * scales[0], y1 * scales[1]
        return round(left), round(top), round(right), round(bottom)

    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw this step, unless it is drawn."""
        step, module = trainer.global_step, cast(PostTraining, pl_module)
        if step == self.drawn:
            return
        with in_evaluation(module):
            tokens = self._tokens(cast(Branch, module.get_submodule(self.branch)), module.device)
            kernels, cka = self._kernels(module)
        if self.colouring is None:
            self.colouring = Colouring.of(tokens)
        colours = np.asarray(np.rint(255 * self.colouring(tokens)), dtype=np.uint8)
        moment = Moment(step, colours, self._similarity(tokens), kernels, cka)
        self.moments = thinned([*(one for one in self.moments if one.step < step), moment])
        self.drawn = step
        moment_figure(self.folder / FOLDER / f"step_{step:06d}.png", self.images, moment, self.marks)

    def _tokens(self, branch: Branch, device: torch.device) -> Floats:
        """Return the tokens of the images that are shown, (n, h, w, D)."""
        source = cast(Arrays, self.source)
        found = extract(
            branch.encoder, source, frame=self.frame, indices=range(len(source)), workspace=Workspace(device)
        )
        rows, columns = self.grid
        return cast(Floats, found.tokens[:, :rows, :columns].float().numpy())

    def _similarity(self, tokens: Floats) -> Floats:
        """Return the cosine of each centred token to the marked one of its image, (n, h, w)."""
        centred = tokens - tokens.mean(axis=(0, 1, 2))
        unit = centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-12)
        marked = np.stack([one[place] for one, place in zip(unit, self.patches, strict=True)])
        return np.asarray(np.einsum("nhwd,nd->nhw", unit, marked), dtype=np.float32)

    @torch.no_grad()
    def _kernels(self, module: PostTraining) -> tuple[Floats | None, Sequence[float]]:
        """Return centred kernels of both sides over one pair of views of each image, and their alignment."""
        if "pairs" not in module.reads:
            return None, ()
        views = Views(*(side.to(module.device) for side in self.views))
        found = module.correspond(views)
        student, teacher = of_all_sides(
            kernel_of(module.objective), found.aligned_student, found.aligned_teacher, valid=found.valid
        )
        sides = [alignment.centre(side, found.valid) for side in (student, teacher)]
        cka = alignment.kernel_alignment(*sides)
        counts = found.valid.sum(dim=1)
        self.pairs = [_most(counts, found.image == image) for image in range(found.images)]
        kernels = torch.stack(sides, dim=1)
        chosen = [torch.zeros_like(kernels[0]) if n is None else kernels[n] for n in self.pairs]
        measured = [float("nan") if n is None else float(cka[n]) for n in self.pairs]
        return cast(Floats, torch.stack(chosen).float().cpu().numpy()), measured


def thinned(moments: Sequence[Moment]) -> list[Moment]:
    """Return at most `KEPT` moments: of more, the first, the last, and of those between them some that are equally far apart."""
    if len(moments) <= KEPT:
        return [*moments]
    apart = (moments[-1].step - moments[0].step) / (KEPT - 1)
    kept = [moments[0]]
    for one in moments[1:-1]:
        if one.step - kept[-1].step >= apart:
            kept.append(one)
    return [*kept, moments[-1]]


def kernel_of(objective: nn.Module) -> Kernel:
    """Return the kernel of an objective, or of the first part of it that has one; without, the linear one."""
    found = (getattr(part, "kernel", None) for part in objective.modules())
    return next((cast(Kernel, kernel) for kernel in found if callable(kernel)), linear)


def figures(folder: Path) -> list[Figure]:
    """Return what has been drawn into a folder of figures: the animation, and the first and the last moment."""
    steps = sorted((folder / FOLDER).glob("step_*.png"))
    if not steps or not (folder / ANIMATION).is_file():
        return []
    animated = Figure(
        folder / ANIMATION,
        "Tokens over the training: their first three principal components as red, green and blue, in one basis fitted at "
        "the start, and the cosine of all tokens of an image to that of the patch outlined in white, which was drawn by the "
        "seed. The blue box is a view whose kernels are shown below.",
        "Rows of images beside maps of their patch tokens, which change with the steps",
    )
    first, last = (int(path.stem.partition("_")[2]) for path in (steps[0], steps[-1]))
    begin = "Before the training" if first == 0 else "Where the run was gone on with"
    moments = [
        Figure(
            path,
            f"{title}, step {step}: the same, with the centred kernels of student and teacher over the points that the view in "
            "the blue box shares with a global. Each has its own scale; red is above the mean of row and column, blue below.",
            "Images, maps of their tokens, and two matrices each",
        )
        for path, title, step in ((steps[-1], "At the end of the training", last), (steps[0], begin, first))
    ]
    return [animated, *moments]


def _compared(views: Views) -> Views:
    """Return views with pairs of locals only, where there are any: globals see nearly the same."""
    return views._replace(global_pairs=views.global_pairs[:0]) if len(views.local_pairs) else views


def _most(counts: Tensor, own: Tensor) -> int | None:
    """Return the pair of most valid points among some, the first of equal ones; None where none has two."""
    masked = torch.where(own, counts, -1)
    best = int(masked.argmax()) if len(masked) else -1
    return best if best >= 0 and int(masked[best]) >= 2 else None
