"""The method in a plain PyTorch loop: views, teacher and objective around an encoder of one's own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from paka.encoder import Encoder
from paka.head import Branch, ProjectionHead
from paka.matching import correspond
from paka.objectives import Reads
from paka.objectives.paka import PaKA
from paka.patch_features import PatchFeatures
from paka.teacher import EMATeacher
from paka.views import MultiCrop, Views

Images = Sequence[NDArray[np.uint8]]
"""Images of any sizes, (H, W, 3) uint8 RGB each."""


class PatchAlignment(nn.Module):
    """Patch-level kernel alignment of an encoder with its own moving average.

    A whole training loop, with any module that returns patch tokens `(B, N, D)`::

        encoder = PatchFeatures(module, patch_size=16)          # or an encoder of paka's
        alignment = PatchAlignment(encoder, MultiCrop(global_size=512, local_size=112))
        optimizer = torch.optim.AdamW(alignment.parameters(), lr=1e-5)
        for images in batches:                                  # each a list of (H, W, 3) uint8
            loss, logs = alignment(images)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            alignment.update_teacher(momentum=0.9995)
        torch.save(module.state_dict(), "better.pt")            # the module itself has been trained

    Loss and gradients are those that `paka.train` has for the same views. What it does beside is left to the loop:
    schedules of rates and of the momentum, a smaller rate for the encoder than for the new head, precision, processes.

    Args:
        encoder: What is trained, in place. Its teacher starts as a copy.
        views: How views are drawn. Sides are whole patches.
        objective: What is minimised; None for the paper's, `PaKA()`.
        head: What aligned tokens pass through, (..., D) to (..., D'); None for a new `ProjectionHead`.
        reads: What the objective looks at, see `paka.objectives.Reads`; objectives of whole views need heads that this
            has not.
        grid: Points per side at which two views are compared.
        seed: Seed of the views.

    Attributes:
        student: The encoder and the head that learn.
        teacher: Their averages, which never train.
        drawn: Batches of views that were drawn; the next are a function of the seed and of this number.

    Raises:
        ValueError: The encoder has nothing to train, or sides of views are not whole patches.

    Source: PaKA (arXiv 2509.05606).
    """

    def __init__(
        self,
        encoder: Encoder,
        views: MultiCrop,
        objective: nn.Module | None = None,
        *,
        head: nn.Module | None = None,
        reads: Collection[Reads] = frozenset({"pairs"}),
        grid: int = 7,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check(encoder, views)
        head = ProjectionHead(encoder.dim).to(encoder.device) if head is None else head
        self.student = Branch(encoder, head)
        self.teacher = EMATeacher(self.student)
        self.objective = PaKA() if objective is None else objective
        self.views, self.reads, self.grid, self.seed = views, frozenset(reads), grid, seed
        self.drawn = 0

    def forward(self, images: Images | Views) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and what is to be logged of it: for `PaKA` the CKA, its floor by chance and more.

        Args:
            images: A batch of images, of which views are drawn here; or views that a loader has drawn, as
                `DataLoader(ViewDataset(source, views, seed), collate_fn=collate)` does on several cores.

        Raises:
            ValueError: An image has another shape or type.
        """
        if not isinstance(images, Views):
            images = self.views.batch(images, seed=(self.seed, self.drawn))
            self.drawn += 1
        batch = Views(*(side.to(self.student.encoder.device) for side in images))
        matched = correspond(self.student, self.teacher, batch, reads=self.reads, grid=self.grid)
        loss, logs = self.objective(matched)
        return loss, logs

    def update_teacher(self, momentum: float = 0.9995) -> None:
        """Move the teacher towards the student, after each step of the optimizer.

        Args:
            momentum: Share of itself that the teacher keeps, in [0, 1]. Short runs want less than the default, which is
                that of `conf/teacher/ema.yaml`.
        """
        self.teacher.update(self.student, momentum)


def _check(encoder: Encoder, views: MultiCrop) -> None:
    if not any(value.requires_grad for value in encoder.parameters()):
        what = (
            "give PatchFeatures a module, not a function, and let some of its parameters require gradients"
            if isinstance(encoder, PatchFeatures)
            else "let some of its parameters require gradients"
        )
        raise ValueError(f"expected an encoder with something to train, got none: {what}")
    patch = encoder.patch_size
    wrong = [side for side in (views.global_size, views.local_size) if side % patch]
    if wrong:
        raise ValueError(
            f"expected views whose sides are whole patches of {patch} pixels, got {wrong[0]}: "
            f"take {max(round(wrong[0] / patch), 1) * patch}"
        )
