"""The rival objectives against float64 references written from their equations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.doubles import POINTS, correspondences, draw
from torch import nn

from paka.encoder import Tokens
from paka.kernels import cosine, linear
from paka.objectives import Correspondences
from paka.objectives.dense_infonce import DenseInfoNCE
from paka.objectives.frobenius import Frobenius
from paka.objectives.gram import GramAnchoring
from paka.objectives.image_level import ImageLevel
from paka.objectives.paka import PaKA
from paka.objectives.token_regression import TokenRegression
from paka.objectives.weighted_sum import WeightedSum

Array = NDArray[np.float64]
PAIRED = [Frobenius(cosine), TokenRegression(), DenseInfoNCE()]
"""Objectives over aligned tokens."""


def unit(tokens: Array) -> Array:
    return tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)


def masked(seed: int = 3) -> Correspondences:
    valid = torch.rand(6, POINTS, generator=torch.Generator().manual_seed(seed)) < 0.6
    valid[5, 3:] = False  # three points at most: not usable
    return correspondences(image=torch.tensor([0, 0, 0, 1, 2, 2]), valid=valid)


def by_image(values: list[float], image: list[int]) -> float:
    """The mean over images of the mean of their values."""
    groups = {i: [value for value, own in zip(values, image, strict=True) if own == i] for i in set(image)}
    return float(np.mean([np.mean(group) for group in groups.values()]))


def sides(batch: Correspondences) -> list[tuple[Array, Array]]:
    """Student and teacher tokens of the valid points of each usable pair, float64."""
    return [
        tuple(
            side[p, batch.valid[p]].double().numpy()
            for side in (batch.aligned_student, batch.aligned_teacher)
        )  # type: ignore[misc]
        for p in range(len(batch.image))
        if batch.valid[p].sum() >= 4
    ]


def frobenius_reference(batch: Correspondences) -> float:
    values = []
    for student, teacher in sides(batch):
        n = len(student)
        h = np.eye(n) - 1 / n
        difference = h @ (unit(student) @ unit(student).T - unit(teacher) @ unit(teacher).T) @ h
        values.append(float((difference**2).sum()) / n**2)
    return by_image(values, [0, 0, 0, 1, 2])


def regression_reference(batch: Correspondences) -> float:
    values = [float(np.mean(1 - (unit(s) * unit(t)).sum(axis=1))) for s, t in sides(batch)]
    return by_image(values, [0, 0, 0, 1, 2])


def infonce_reference(batch: Correspondences) -> float:
    student, teacher = (side.double().numpy() for side in (batch.aligned_student, batch.aligned_teacher))
    image, values = batch.image.tolist(), []
    for p in range(5):
        losses = []
        for n in np.flatnonzero(batch.valid[p].numpy()):
            scores = {
                (q, m): float(unit(student[p, n]) @ unit(teacher[q, m])) / 0.2
                for q in range(6)
                for m in np.flatnonzero(batch.valid[q].numpy())
                if q == p or image[q] != image[p]
            }
            losses.append(np.log(sum(np.exp(list(scores.values())))) - scores[p, n])
        values.append(float(np.mean(losses)))
    return by_image(values, [0, 0, 0, 1, 2])


@pytest.mark.parametrize(
    ("objective", "reference"),
    list(zip(PAIRED, [frobenius_reference, regression_reference, infonce_reference], strict=True)),
)
def test_paired_objectives_equal_their_equations(objective: nn.Module, reference: Any) -> None:
    batch = masked()
    loss, logs = objective(batch)
    assert loss.item() == pytest.approx(reference(batch), rel=1e-5)
    assert logs["valid_points"].item() == pytest.approx(batch.valid.float().mean().item())


@pytest.mark.parametrize("objective", PAIRED)
def test_paired_objectives_are_least_for_equal_tokens(objective: nn.Module) -> None:
    tokens = draw(6, POINTS, 16, seed=1)
    equal, _ = objective(correspondences(aligned_teacher=tokens))
    other, _ = objective(correspondences())
    assert equal < 0.5 * other
    if not isinstance(objective, DenseInfoNCE):
        assert equal.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("objective", PAIRED)
@pytest.mark.parametrize("pairs", [0, 6])
def test_without_usable_pairs_paired_objectives_are_a_differentiable_zero(
    objective: nn.Module, pairs: int
) -> None:
    student = draw(pairs, POINTS, 16, seed=1).requires_grad_()
    nothing = torch.zeros(pairs, POINTS, dtype=torch.bool)
    loss, _ = objective(correspondences(pairs, aligned_student=student, valid=nothing))
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros_like(student))


@pytest.mark.parametrize("objective", PAIRED)
def test_paired_objectives_ignore_what_is_not_valid_and_spare_the_teacher(objective: nn.Module) -> None:
    batch = masked()
    teacher = batch.aligned_teacher.requires_grad_()
    student = batch.aligned_student.clone()
    student[~batch.valid] = 100.0
    student.requires_grad_()
    loss, _ = objective(replace(batch, aligned_student=student, aligned_teacher=teacher))
    gradient, none = torch.autograd.grad(loss, [student, teacher], allow_unused=True)
    assert none is None
    assert gradient[~batch.valid].abs().sum() == 0
    assert gradient.isfinite().all()
    torch.testing.assert_close(loss, objective(batch)[0])


@pytest.mark.parametrize("objective", PAIRED)
def test_autocast_changes_nothing(objective: nn.Module) -> None:
    batch = masked()
    half = replace(
        batch,
        aligned_student=batch.aligned_student.bfloat16(),
        aligned_teacher=batch.aligned_teacher.bfloat16(),
    )
    expected, _ = objective(half)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = objective(half)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, expected, atol=1e-5, rtol=0)


def test_a_contrast_leaves_out_other_pairs_of_the_image() -> None:
    """Two pairs that show the same place would otherwise be each other's negatives."""
    batch = correspondences(2, images=1)
    alone = correspondences(1, images=1)
    same = replace(
        batch,
        aligned_student=alone.aligned_student.expand(2, -1, -1),
        aligned_teacher=alone.aligned_teacher.expand(2, -1, -1),
    )
    torch.testing.assert_close(DenseInfoNCE()(same)[0], DenseInfoNCE()(alone)[0])
    assert DenseInfoNCE()(replace(same, image=torch.tensor([0, 1]), images=2))[0] > DenseInfoNCE()(alone)[0]
    with pytest.raises(ValueError, match="temperature above 0, got 0"):
        DenseInfoNCE(temperature=0)


def test_gram_anchoring_equals_its_equation() -> None:
    student, teacher = draw(4, 5, 5, 8, seed=1).requires_grad_(), draw(4, 5, 5, 8, seed=2)
    batch = correspondences(
        0, student_globals=Tokens(student, student[:, 0, :0]), teacher=Tokens(teacher, teacher[:, 0, :0])
    )
    loss, _ = GramAnchoring()(batch)
    a, b = (unit(side.detach().double().numpy().reshape(4, 25, 8)) for side in (student, teacher))
    expected = np.mean([((x @ x.T - y @ y.T) ** 2).mean() for x, y in zip(a, b, strict=True)])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert torch.autograd.grad(loss, student)[0].abs().sum() > 0
    with pytest.raises(ValueError, match=r"augmentation\.student_globals=true"):
        GramAnchoring()(correspondences(0))


def dino_reference(student: Array, teacher: Array, centre: Array) -> float:
    def softmax(values: Array) -> Array:
        exponents = np.exp(values - values.max())
        return exponents / exponents.sum()

    terms = [
        -(softmax((teacher[b, g] - centre) / 0.04) * np.log(softmax(student[b, v] / 0.1))).sum()
        for b in range(len(student))
        for g in range(teacher.shape[1])
        for v in range(student.shape[1])
        if v != g
    ]
    return float(np.mean(terms))


def test_image_level_equals_dino() -> None:
    student, teacher = 0.3 * draw(3, 6, 10, seed=1), 0.3 * draw(3, 2, 10, seed=2)
    objective = ImageLevel(prototypes=10)
    batch = correspondences(0, image_student=student.requires_grad_(), image_teacher=teacher)
    loss, logs = objective(batch)
    plain = [side.detach().double().numpy() for side in (student, teacher)]
    assert loss.item() == pytest.approx(dino_reference(*plain, np.zeros(10)), rel=1e-4)
    centre = 0.1 * plain[1].mean(axis=(0, 1))
    torch.testing.assert_close(objective.centre, torch.from_numpy(centre).float())
    second, _ = objective(batch)
    assert second.item() == pytest.approx(dino_reference(*plain, centre), rel=1e-4)
    assert 0 < logs["prototype_entropy"].item() <= np.log(10) + 1e-5
    assert "centre" in objective.state_dict()
    kept = objective.eval().centre.clone()
    objective(batch)
    assert torch.equal(objective.centre, kept)
    with pytest.raises(ValueError, match="at least two views"):
        objective(replace(batch, image_student=student[:, :1], image_teacher=teacher[:, :1]))


def test_a_sum_adds_up_and_logs_its_parts() -> None:
    batch = masked()
    total, logs = WeightedSum({"a": PaKA(linear), "b": TokenRegression()}, {"a": 1.0, "b": 0.5})(batch)
    first, second = PaKA(linear)(batch)[0], TokenRegression()(batch)[0]
    torch.testing.assert_close(total, first + 0.5 * second)
    torch.testing.assert_close(logs["b/loss"], second)
    assert {"a/loss", "a/cka", "b/valid_points"} <= logs.keys()
    assert not any(value.requires_grad for value in logs.values())
    with pytest.raises(ValueError, match="objectives a and weights b"):
        WeightedSum({"a": PaKA(linear)}, {"b": 1.0})
