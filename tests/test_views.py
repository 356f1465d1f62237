"""Views: geometry is exact, draws keep their promises, and nothing depends on anything but the generator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from paka.correspondence import align
from paka.views import (
    GRAY,
    MultiCrop,
    Photometric,
    collate,
    containment,
    draw_box,
    draw_inside,
    intersection_area,
    render,
)

PHOTOMETRIC = Photometric(0.8, 0.8, 0.8, 0.2, 0.8, 0.2, 0.5, (0.1, 2.0))
CROP = MultiCrop(
    global_size=128,
    local_size=56,
    globals=2,
    locals=4,
    global_scale=(0.25, 1.0),
    local_scale=(0.05, 0.25),
    ratio=(3 / 4, 4 / 3),
    flip=0.5,
    containment=0.9,
    global_pairs=True,
    student_globals=True,
    photometric=PHOTOMETRIC,
)


def photograph(height: int = 160, width: int = 200) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_containment_and_intersection_by_hand() -> None:
    assert intersection_area((0, 0, 4, 4), (2, 1, 8, 3)) == 4
    assert intersection_area((0, 0, 2, 2), (2, 0, 4, 2)) == 0
    assert containment((2, 1, 8, 3), (0, 0, 4, 4)) == pytest.approx(4 / 12)
    assert containment((1, 1, 2, 2), (0, 0, 4, 4)) == 1.0


def test_boxes_have_the_area_and_aspect_they_were_asked_for() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([draw_box(rng, (400, 600), (0.2, 0.4), (0.75, 4 / 3)) for _ in range(500)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area = width * height / (400 * 600)
    assert area.min() > 0.195
    assert area.max() < 0.405
    assert (width / height).min() > 0.74
    assert (width / height).max() < 1.35
    assert boxes.min() >= 0
    assert (boxes[:, 2].max(), boxes[:, 3].max()) <= (600, 400)


@pytest.mark.parametrize("least", [0.3, 0.9, 1.0])
def test_a_local_lies_inside_its_parent_by_at_least_m(least: float) -> None:
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(500):
        parent = draw_box(rng, (128, 128), (0.1, 1.0), (0.5, 2.0))
        local = draw_inside(rng, (128, 128), parent, (0.05, 0.5), (0.5, 2.0), least)
        assert min(local[:2]) >= 0
        assert max(local[2:]) <= 128
        shares.append(containment(local, parent))
    assert min(shares) >= least
    assert least == 1.0 or min(shares) < least + 0.15, "the allowed overhang is used"


def test_every_local_is_compared_with_its_parent_and_no_pair_is_under_m() -> None:
    sample = CROP(photograph(), np.random.default_rng(2))
    boxes = [tuple(box) for box in sample.boxes.astype(int).tolist()]
    assert {local for local, _ in sample.local_pairs} == {0, 1, 2, 3}
    for local in range(4):
        assert (local, local % 2) in sample.local_pairs
        for parent in range(2):
            enough = containment(boxes[2 + local], boxes[parent]) >= CROP.containment
            assert ((local, parent) in sample.local_pairs) == enough


def test_views_are_a_function_of_the_generator() -> None:
    first, second, other = (CROP(photograph(), np.random.default_rng(seed)) for seed in (3, 3, 4))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.locals, other.locals)


def test_the_teacher_sees_no_photometric_augmentation() -> None:
    sample = CROP(photograph(), np.random.default_rng(5))
    box, flip = tuple(sample.boxes[0].astype(int)), bool(sample.flips[0])
    expected = render(photograph(), box, (128, 128), flip=flip).transpose(2, 0, 1)
    np.testing.assert_array_equal(sample.teacher[0], expected)
    assert not np.array_equal(sample.teacher[0], sample.globals[0])


def test_unused_globals_are_not_rendered() -> None:
    crop = dataclasses.replace(CROP, student_globals=False, global_pairs=False)
    sample = crop(photograph(), np.random.default_rng(5))
    assert sample.globals.shape == (0, 3, 128, 128)
    assert sample.global_pairs == []


def test_collate_numbers_the_pairs_by_image() -> None:
    samples = [
        (CROP(photograph(), np.random.default_rng(seed)), np.array([True, False]), seed) for seed in (8, 9)
    ]
    batch = collate(samples)
    assert batch.teacher.shape == (2, 2, 3, 128, 128)
    assert batch.locals.shape == (2, 4, 3, 56, 56)
    assert batch.boxes.dtype == torch.float32
    assert batch.index.tolist() == [8, 9]
    expected = [(i, *pair) for i, (sample, _, _) in enumerate(samples) for pair in sample.local_pairs]
    assert batch.local_pairs.tolist() == [list(row) for row in expected]


def test_a_rendered_coordinate_image_comes_out_the_same_on_both_sides() -> None:
    """Push pixel coordinates through crops, resizes, flips, patches and resampling: they must still agree."""
    rng = np.random.default_rng(6)
    height, width, patch = 300, 420, 8
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    coordinates = np.stack([x, y, np.zeros_like(x)], axis=2)
    crop = dataclasses.replace(CROP, ratio=(0.5, 2.0))
    checked = 0
    for _ in range(40):
        outer, inner = crop.draw_boxes(rng, (height, width))
        for local, parent in [(inner[0], outer[0]), (inner[1], outer[1]), (outer[0], outer[1])]:
            flips = rng.random(2) < 0.5
            student = token_map(render(coordinates, local, (56, 56), flip=bool(flips[0])), patch)
            teacher = token_map(render(coordinates, parent, (128, 128), flip=bool(flips[1])), patch)
            aligned = align(
                student,
                teacher,
                student_crop=torch.tensor([local], dtype=torch.float32),
                teacher_crop=torch.tensor([parent], dtype=torch.float32),
                student_flip=torch.tensor([flips[0]]),
                teacher_flip=torch.tensor([flips[1]]),
                grid=7,
            )
            valid = aligned.valid[0]
            # One token of the coarser of the two views, in source pixels.
            token = max((local[2] - local[0]) / 7, (parent[2] - parent[0]) / 16, (local[3] - local[1]) / 7)
            difference = (aligned.student - aligned.teacher)[0][valid].abs()
            checked += int(valid.sum())
            assert difference.numel() == 0 or difference.max() / token < 0.05
    assert checked > 1000


def token_map(view: np.ndarray, patch: int) -> torch.Tensor:
    """Average a (S, S, 3) view over its patches: (1, S / patch, S / patch, 2)."""
    tokens = torch.from_numpy(view).unflatten(0, (-1, patch)).unflatten(2, (-1, patch)).mean(dim=(1, 3))
    return tokens[None, ..., :2]


def test_erasure_paints_about_its_share_of_whole_cells_grey() -> None:
    photometric = dataclasses.replace(
        PHOTOMETRIC, jitter_probability=0, gray_probability=0, blur_probability=0, erase=0.4
    )
    view = np.full((60, 96, 3), 7, np.uint8)
    erased = (photometric(view, np.random.default_rng(0)) == GRAY).all(axis=2)
    cells = erased[:56].reshape(7, 8, 12, 8).mean(axis=(1, 3))
    assert set(np.unique(cells)) == {0.0, 1.0}
    assert 0.25 < cells.mean() < 0.55
    assert (view == 7).all()
