"""Objectives, all under one contract: `objective(batch: Correspondences) -> (loss, logs)`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from paka.encoder import Tokens


@dataclass(frozen=True)
class Correspondences:
    """What an objective may look at in one step: both sides' tokens and which of them match.

    Row n of pair p is the same point of the source image on both sides. Legend: B images, G globals
    and L locals per image, P pairs, N points per pair, D head channels, T tags.

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
        teacher: The teacher's encoder tokens of the globals, batch (B * G); None when no pair needs it.
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
    clean: Tensor
    tags: Tensor
