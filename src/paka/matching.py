"""From views to matched tokens: both sides encode, the tokens of every pair are aligned and projected."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from paka.correspondence import align
from paka.encoder import Encoder, Tokens
from paka.head import Branch
from paka.objectives import Correspondences, Reads
from paka.views import Views


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


def correspond(
    student: Branch,
    teacher: Branch,
    batch: Views,
    *,
    reads: Collection[Reads] = frozenset({"pairs"}),
    grid: int = 7,
    permute_teacher: bool = False,
) -> Correspondences:
    """Encode all views, align and project the tokens of every pair, and project whole views.

    Args:
        student: The branch that learns.
        teacher: The branch that it is compared with; nothing flows back into it.
        batch: The views.
        reads: What of them the objective looks at; the rest is not computed.
        grid: Points per side of the common grid two views are resampled to.
        permute_teacher: Pair every student with the teacher's view of another image of the batch, with the geometry kept.
    """
    pairs = torch.cat([batch.global_pairs, batch.local_pairs])
    pairs = pairs if "pairs" in reads else pairs[:0]
    locals_ = batch.locals if {*reads} & {"pairs", "images"} else batch.locals[:, :0]
    student_globals, student_locals = _encode(student.encoder, batch.globals, locals_)
    with torch.no_grad():
        needed = len(pairs) or {*reads} & {"teacher", "images"}
        (clean,) = _encode(teacher.encoder, batch.teacher if needed else batch.teacher[:, :0])
    images, by_image = len(batch.teacher), "images" in reads
    sides = (student_globals, student_locals, clean) if len(pairs) else (None, None, None)
    matched = _match(batch, *sides, dim=student.encoder.dim, grid=grid, permute_teacher=permute_teacher)
    with torch.no_grad():
        aligned_teacher = teacher.head(matched.teacher)
        image_teacher = _project_views(teacher, [clean], images) if by_image else None
    seen = [student_globals, student_locals]
    return Correspondences(
        aligned_student=student.head(matched.student),
        aligned_teacher=aligned_teacher,
        valid=matched.valid,
        image=pairs[:, 0],
        scale=matched.scale,
        images=images,
        student_globals=student_globals,
        student_locals=student_locals,
        teacher=clean,
        image_student=_project_views(student, seen, images) if by_image else None,
        image_teacher=image_teacher,
        clean=batch.teacher.flatten(0, 1),
        tags=batch.tags,
    )


def _project_views(branch: Branch, views: Sequence[Tokens | None], images: int) -> Tensor | None:
    """Return the image-level outputs (B, V, K) of views of B images, or None without a head for them."""
    if branch.image_head is None:
        return None
    outputs = [branch.image_head(tokens).unflatten(0, (images, -1)) for tokens in views if tokens is not None]
    return torch.cat(outputs, dim=1)


def _match(
    batch: Views,
    globals_: Tokens | None,
    locals_: Tokens | None,
    teacher: Tokens | None,
    *,
    dim: int,
    grid: int,
    permute_teacher: bool,
) -> _Matched:
    """Resample all pairs, those of student globals first; maps of globals and locals differ in size."""
    matched = [_Matched.none(grid**2, dim, batch.boxes.device)]
    sides = (globals_, batch.global_pairs, 0), (locals_, batch.local_pairs, batch.teacher.shape[1])
    for student, pairs, first in sides:
        if teacher is not None and student is not None:
            shown = (pairs[:, 0] + 1) % len(batch.teacher) if permute_teacher else pairs[:, 0]
            matched.append(_resample(batch, student, teacher, pairs, shown, first=first, grid=grid))
    return _Matched(*(torch.cat(column) for column in zip(*matched, strict=True)))


def _resample(
    batch: Views, student: Tokens, teacher: Tokens, pairs: Tensor, shown: Tensor, *, first: int, grid: int
) -> _Matched:
    """Resample both sides of `pairs`.

    Args:
        batch: The views.
        student: Tokens of the student's views.
        teacher: Tokens of the teacher's.
        pairs: Rows of image, student's view and teacher's view, (P, 3).
        shown: The image that the teacher is shown, (P,).
        first: Where the student's views begin among the boxes.
        grid: Points per side.
    """
    image, view, parent = pairs.unbind(1)
    images, globals_ = batch.teacher.shape[:2]
    views = len(student.patches) // images
    student_crop, teacher_crop = batch.boxes[image, first + view], batch.boxes[image, parent]
    aligned = align(
        student.patches[image * views + view],
        teacher.patches[shown * globals_ + parent],
        student_crop=student_crop,
        teacher_crop=teacher_crop,
        student_flip=batch.flips[image, first + view],
        teacher_flip=batch.flips[image, parent],
        grid=grid,
    )
    return _Matched(*aligned, (_area(student_crop) / _area(teacher_crop)).sqrt())


def _encode(encoder: Encoder, *views: Tensor) -> list[Tokens | None]:
    """Encode sets of views, (B, V, 3, S, S), each as one batch of B * V; None for a set with V of 0."""
    tokens = iter(encoder([one.flatten(0, 1) for one in views if one.shape[1]]))
    return [next(tokens) if one.shape[1] else None for one in views]


def _area(box: Tensor) -> Tensor:
    return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
