"""The LightningModule: student and teacher see their views, tokens are aligned, the objective decides."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, cast

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from paka.correspondence import align
from paka.diagnostics import diagnose
from paka.encoder import Encoder, Tokens
from paka.head import Branch
from paka.objectives import Correspondences, Reads
from paka.optim import Recipe, parameter_groups
from paka.teacher import EMATeacher
from paka.tuning import layer_scales
from paka.views import Views

Objective = Callable[[Correspondences], tuple[Tensor, dict[str, Tensor]]]


class _Matched(NamedTuple):
    """Encoder tokens of P pairs at the same N points, and each pair's relative scale."""

    student: Tensor
    teacher: Tensor
    valid: Tensor
    scale: Tensor

    @classmethod
    def none(cls, points: int, dim: int, device: torch.device) -> _Matched:
        empty = torch.zeros(0, points, dim, device=device)
        return cls(empty, empty, empty[..., 0].bool(), empty[:, 0, 0])


class PostTraining(L.LightningModule):
    """Post-train an encoder under a dense objective, with a teacher that follows.

    Rates, weight decay and momentum are functions of the optimizer step, so a resumed run needs no
    scheduler state. The teacher moves right after each optimizer step.

    Args:
        student: The branch that learns.
        objective: A module that maps `Correspondences` to a loss and scalars to log.
        optimizer: Makes the optimizer from parameter groups.
        recipe: Rates, weight decay and momentum by step.
        reads: What of a step the objective looks at; the rest is not computed.
        grid: Points per side of the common grid two views are resampled to.
        refresh_teacher: Copy the student into the teacher every so many optimizer steps; None for never.
        permute_teacher: Pair every student with the teacher's view of another image of the batch, with the
            geometry kept: the control that takes the correspondence away.
    """

    def __init__(
        self,
        student: Branch,
        objective: nn.Module,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        recipe: Recipe,
        *,
        reads: Collection[Reads] = frozenset({"pairs"}),
        grid: int = 7,
        refresh_teacher: int | None = None,
        permute_teacher: bool = False,
    ) -> None:
        super().__init__()
        self.reads = frozenset(reads)
        self.student = student
        self.teacher = EMATeacher(student)
        self.objective = objective
        self.optimizer = optimizer
        self.recipe = recipe
        self.grid, self.refresh_teacher, self.permute_teacher = grid, refresh_teacher, permute_teacher

    def configure_optimizers(self) -> Optimizer:
        """Build the optimizer over encoder, head and the objective's own parameters."""
        modules = {
            "encoder": (cast(nn.Module, self.student.encoder), self.recipe.lr),
            "head": (self.student.head, self.recipe.head_lr),
            "image_head": (self.student.image_head or nn.Identity(), self.recipe.head_lr),
            "objective": (self.objective, self.recipe.head_lr),
        }
        scales = layer_scales(self.student.encoder, self.recipe.layer_decay)
        optimizer = self.optimizer(parameter_groups(modules, scales))
        self.settings = [
            {name: value for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        return optimizer

    def on_train_start(self) -> None:
        """Give the optimizer its settings again: those of a checkpoint are the ones of another configuration."""
        groups = cast(Optimizer, self.optimizers(use_pl_optimizer=False)).param_groups
        for group, settings in zip(groups, self.settings, strict=True):
            group.update(settings)

    def training_step(self, batch: Views, batch_idx: int) -> Tensor:
        """Return the objective's loss of one batch of views, and log it with what tells how the tokens fare."""
        del batch_idx
        correspondences = self.correspond(batch)
        loss, logs = self.objective(correspondences)
        seen = [
            side
            for side in (correspondences.student_locals, correspondences.student_globals)
            if side is not None
        ]
        if self._is_logged():
            logs = {**logs, **diagnose(seen[0])}
        self.log("loss", loss, sync_dist=True)
        self.log_dict(logs, sync_dist=True)
        pairs = len(batch.global_pairs) + len(batch.local_pairs)
        counts: dict[str, float | Tensor] = {
            "pairs_per_image": pairs / len(batch.teacher),
            "valid_pairs": pairs / batch.possible_pairs.sum().clamp_min(1),
        }
        self.log_dict({**self.recipe.at(self.global_step), **counts})
        return cast(Tensor, loss)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the norm of each part's gradient, before it is clipped."""
        del optimizer
        if not self._is_logged():
            return
        parts = {**dict(self.student.named_children()), "objective": self.objective}
        for name, part in parts.items():
            gradients = [value.grad for value in part.parameters() if value.grad is not None]
            if gradients:
                self.log(f"grad_norm/{name}", get_total_norm(gradients))

    def _is_logged(self) -> bool:
        """Return whether this optimizer step is the first, or one for which the loggers write a row."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning's trainer has it
        return self.global_step == 0 or bool((self.global_step + 1) % every == 0)

    def correspond(self, batch: Views) -> Correspondences:
        """Encode all views, align and project the tokens of every pair, and project whole views."""
        pairs = torch.cat([batch.global_pairs, batch.local_pairs])
        pairs = pairs if "pairs" in self.reads else pairs[:0]
        locals_ = batch.locals if self.reads & {"pairs", "images"} else batch.locals[:, :0]
        student_globals, student_locals = _encode(self.student.encoder, batch.globals, locals_)
        with torch.no_grad():
            needed = len(pairs) or self.reads & {"teacher", "images"}
            (teacher,) = _encode(self.teacher.encoder, batch.teacher if needed else batch.teacher[:, :0])
        compared = (student_globals, student_locals, teacher) if len(pairs) else (None, None, None)
        matched = self._match(batch, *compared)
        images = len(batch.teacher)
        with torch.no_grad():
            aligned_teacher = self.teacher.head(matched.teacher)
            image_teacher = self._project_views(self.teacher, [teacher], images)
        return Correspondences(
            aligned_student=self.student.head(matched.student),
            aligned_teacher=aligned_teacher,
            valid=matched.valid,
            image=pairs[:, 0],
            scale=matched.scale,
            images=images,
            student_globals=student_globals,
            student_locals=student_locals,
            teacher=teacher,
            image_student=self._project_views(self.student, [student_globals, student_locals], images),
            image_teacher=image_teacher,
            clean=batch.teacher.flatten(0, 1),
            tags=batch.tags,
        )

    def _project_views(self, branch: Branch, views: Sequence[Tokens | None], images: int) -> Tensor | None:
        """Return the image-level outputs (B, V, K) of views of B images, or None if nobody reads them."""
        if branch.image_head is None or "images" not in self.reads:
            return None
        outputs = [
            branch.image_head(tokens).unflatten(0, (images, -1)) for tokens in views if tokens is not None
        ]
        return torch.cat(outputs, dim=1)

    def _match(
        self, batch: Views, globals_: Tokens | None, locals_: Tokens | None, teacher: Tokens | None
    ) -> _Matched:
        """Resample all pairs, those of student globals first; maps of globals and locals differ in size."""
        points = self.grid**2
        matched = [_Matched.none(points, self.student.encoder.dim, batch.boxes.device)]
        if teacher is not None and globals_ is not None:
            matched.append(self._resample(batch, globals_, teacher, batch.global_pairs, first=0))
        if teacher is not None and locals_ is not None:
            first = batch.teacher.shape[1]
            matched.append(self._resample(batch, locals_, teacher, batch.local_pairs, first=first))
        return _Matched(*(torch.cat(column) for column in zip(*matched, strict=True)))

    def _resample(
        self, batch: Views, student: Tokens, teacher: Tokens, pairs: Tensor, *, first: int
    ) -> _Matched:
        """Resample both sides of `pairs`; `first` is where the student's views begin among the boxes."""
        image, view, parent = pairs.unbind(1)
        images, globals_ = batch.teacher.shape[:2]
        shown = (image + 1) % images if self.permute_teacher else image
        views = len(student.patches) // images
        student_crop, teacher_crop = batch.boxes[image, first + view], batch.boxes[image, parent]
        aligned = align(
            student.patches[image * views + view],
            teacher.patches[shown * globals_ + parent],
            student_crop=student_crop,
            teacher_crop=teacher_crop,
            student_flip=batch.flips[image, first + view],
            teacher_flip=batch.flips[image, parent],
            grid=self.grid,
        )
        return _Matched(*aligned, (_area(student_crop) / _area(teacher_crop)).sqrt())

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Set this step's rates, let the optimizer step, then move the teacher."""
        now = self.recipe.at(self.global_step)
        for group in cast(Optimizer, self.optimizers(use_pl_optimizer=False)).param_groups:
            group["lr"] = group["peak_lr"] * now["lr_factor"]
            group["weight_decay"] = now["weight_decay"] if group["decays"] else 0.0
        super().optimizer_step(*args, **kwargs)
        refreshes = self.refresh_teacher is not None and self.global_step % self.refresh_teacher == 0
        self.teacher.update(self.student, 0.0 if refreshes else now["teacher_momentum"])


def _encode(encoder: Encoder, *views: Tensor) -> list[Tokens | None]:
    """Encode sets of views, (B, V, 3, S, S), each as one batch of B * V; None for a set with V of 0."""
    tokens = iter(encoder([one.flatten(0, 1) for one in views if one.shape[1]]))
    return [next(tokens) if one.shape[1] else None for one in views]


def _area(box: Tensor) -> Tensor:
    return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
