"""Objectives, all under one contract: `objective(batch: Correspondences) -> (loss, logs)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from paka.distances import every_token
from paka.encoder import Tokens

Reads = Literal["pairs", "globals", "clean", "teacher", "images"]
"""What of a step an objective looks at: aligned pairs of views, the student's tokens of the globals, the clean globals
themselves, the teacher's tokens of them, the image-level outputs of all views."""


@dataclass(frozen=True)
class Correspondences:
    """What an objective may look at in one step: both sides' tokens and which of them match.

    Row n of pair p is the same point of the source image on both sides. Legend: B images, G globals
    and L locals per image, P pairs, N points per pair, D head channels, K prototypes, T tags. What the
    objective does not read is empty or None; P is then 0.

    Attributes:
        aligned_student: Head outputs of the student at the matched points, (P, N, D).
        aligned_teacher: Head outputs of the teacher at the same points, (P, N, D), without gradient.
        valid: Points that lie inside both views' outermost token centres, (P, N) bool.
        image: Which image of the batch a pair belongs to, (P,) int64 in [0, images).
        scale: Side of the student's view as a fraction of the teacher's (square root of the area ratio), (P,).
        images: Number of images B in this process's share of the batch.
        student_globals: The student's encoder tokens of the globals, batch (B * G); None when the
            augmentation renders none.
        student_locals: The student's encoder tokens of the locals, batch (B * L), or None.
        teacher: The teacher's encoder tokens of the clean globals, batch (B * G), or None.
        image_student: The student's image-level outputs, (B, V, K), views V = G globals, then L locals; or None.
        image_teacher: The teacher's image-level outputs of the clean globals, (B, G, K), or None.
        clean: The globals as the teacher sees them, (B * G, 3, S, S) uint8; without photometric augmentation
            unless the augmentation says `clean_teacher: false`.
        tags: Image-level tags, (B, T) in {0, 1}; T is 0 for sources without tags.
    """

    aligned_student: Tensor
    aligned_teacher: Tensor
    valid: Tensor
    image: Tensor
    scale: Tensor
    images: int
    student_globals: Tokens | None
    student_locals: Tokens | None
    teacher: Tokens | None
    image_student: Tensor | None
    image_teacher: Tensor | None
    clean: Tensor
    tags: Tensor

    @classmethod
    def of(
        cls,
        student: Tensor,
        teacher: Tensor,
        *,
        valid: Tensor | None = None,
        image: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Correspondences:
        """Return matched tokens alone, for objectives that read nothing but pairs.

        Args:
            student: The student's tokens of P pairs, (P, N, D), N of them at the same points as the teacher's.
            teacher: The teacher's tokens, (P, N, D); nothing flows back into them.
            valid: Points that count, (P, N) bool; None for all.
            image: Which image a pair belongs to, (P,) int64 counted from 0; None gives each pair its own.
            scale: See `scale`, (P,); None for 1.

        Raises:
            ValueError: The tokens are not (P, N, D), or differ in the first two sides.
        """
        points = every_token(student)
        if teacher.ndim != 3 or teacher.shape[:2] != student.shape[:2]:
            raise ValueError(
                f"expected teacher's tokens (P, N, D) at the student's points, {tuple(student.shape[:2])}, got shape "
                f"{tuple(teacher.shape)}: row n of pair p has to be the same point on both sides"
            )
        pairs = len(student)
        image = torch.arange(pairs, device=student.device) if image is None else image
        return cls(
            aligned_student=student,
            aligned_teacher=teacher.detach(),
            valid=points if valid is None else valid,
            image=image,
            scale=student.new_ones(pairs) if scale is None else scale,
            images=int(image.max()) + 1 if pairs else 0,
            student_globals=None,
            student_locals=None,
            teacher=None,
            image_student=None,
            image_teacher=None,
            clean=torch.zeros(0, 3, 0, 0, dtype=torch.uint8, device=student.device),
            tags=student.new_zeros(0, 0),
        )

    def valid_share(self) -> Tensor:
        """Return the share of all points that are valid, in [0, 1]."""
        return self.valid.sum() / max(self.valid.numel(), 1)

    def usable(self, least: int) -> Tensor:
        """Return which pairs have at least `least` valid points, (P,) bool."""
        return self.valid.sum(dim=1) >= least

    def average(self, values: Tensor, usable: Tensor) -> Tensor:
        """Return the mean over images of the mean over an image's usable pairs of values (P,).

        An image without usable pairs does not count, so processes with equally many images that have some average to
        the value of one process. Without any the result is 0.
        """
        members = self._members(usable)
        pairs = members.sum(dim=1)
        per_image = torch.where(members, values, 0).sum(dim=1) / pairs.clamp_min(1)
        return per_image.sum() / (pairs > 0).sum().clamp_min(1)

    def weights(self, usable: Tensor) -> Tensor:
        """Return weights of the pairs, (P,), by which an image counts 1 however many usable pairs it has."""
        members = self._members(usable)
        return (members / members.sum(dim=1, keepdim=True).clamp_min(1)).sum(dim=0)

    def _members(self, usable: Tensor) -> Tensor:
        """Return which usable pairs belong to which image, (B, P) bool."""
        return (torch.arange(self.images, device=usable.device)[:, None] == self.image) & usable
