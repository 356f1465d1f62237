"""The LightningModule: student and teacher see their views, tokens are aligned, the objective decides."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, cast

import lightning as L
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from paka.diagnostics import diagnose
from paka.head import Branch
from paka.matching import correspond
from paka.objectives import Correspondences, Reads
from paka.optim import Recipe, parameter_groups
from paka.teacher import EMATeacher
from paka.tuning import layer_scales
from paka.views import Views

Objective = Callable[[Correspondences], tuple[Tensor, dict[str, Tensor]]]


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
        """Return what the objective looks at, see `paka.matching.correspond`."""
        return correspond(
            self.student,
            self.teacher,
            batch,
            reads=self.reads,
            grid=self.grid,
            permute_teacher=self.permute_teacher,
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Set this step's rates, let the optimizer step, then move the teacher."""
        now = self.recipe.at(self.global_step)
        for group in cast(Optimizer, self.optimizers(use_pl_optimizer=False)).param_groups:
            group["lr"] = group["peak_lr"] * now["lr_factor"]
            group["weight_decay"] = now["weight_decay"] if group["decays"] else 0.0
        super().optimizer_step(*args, **kwargs)
        refreshes = self.refresh_teacher is not None and self.global_step % self.refresh_teacher == 0
        self.teacher.update(self.student, 0.0 if refreshes else now["teacher_momentum"])
