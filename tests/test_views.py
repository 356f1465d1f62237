"""Views: geometry is exact, draws keep their promises, and nothing depends on anything but the generator."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
import torch

from paka.boxes import Box, containment, draw_box, draw_inside, intersection_area
from paka.correspondence import align
from paka.photometric import Photometric
from paka.views import MultiCrop, Sample, collate, render

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


def drawn(crop: MultiCrop, draws: int = 60) -> list[tuple[Sample, list[Box], list[Box]]]:
    """Samples with small pixels, and their boxes of globals and locals."""
    small = dataclasses.replace(crop, global_size=16, local_size=8, photometric=None)
    samples = [small(photograph(), np.random.default_rng(seed)) for seed in range(draws)]
    boxes = [[(a, b, c, d) for a, b, c, d in sample.boxes.astype(int).tolist()] for sample in samples]
    return [
        (sample, all_[: crop.globals], all_[crop.globals :])
        for sample, all_ in zip(samples, boxes, strict=True)
    ]


def area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


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


def test_the_default_views_draw_what_they_have_always_drawn() -> None:
    """Committed experiments rest on this stream: boxes, flips, pairs, and how often the generator was asked."""
    digest = hashlib.sha256()
    for seed in range(50):
        rng = np.random.default_rng([0, seed])
        sample = CROP(photograph(), rng)
        digest.update(sample.boxes.astype("<i4").tobytes() + sample.flips.tobytes())
        digest.update(f"{sample.global_pairs}{sample.local_pairs}{rng.integers(2**31)}".encode())
    assert digest.hexdigest() == "f380f261ce2f51ce533b4746cb97cb85629def590758e5843a86f9621af20aee"


@pytest.mark.parametrize("least", [0.0, 0.3, 0.9, 1.0])
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


def test_with_containment_0_every_overlap_with_the_parent_counts() -> None:
    crop = dataclasses.replace(CROP, containment=0.0, global_scale=(0.1, 0.3))
    shares = []
    for sample, outer, inner in drawn(crop):
        overlapping = [
            (i, o) for i in range(4) for o in range(2) if intersection_area(inner[i], outer[o]) > 0
        ]
        assert sample.local_pairs == overlapping
        shares += [containment(local, outer[i % 2]) for i, local in enumerate(inner)]
    assert min(shares) > 0
    assert min(shares) < 0.2, "any share is drawn"


def test_without_containment_locals_lie_anywhere_and_every_overlap_counts() -> None:
    crop = dataclasses.replace(CROP, containment=None, global_scale=(0.05, 0.1))
    alone, corners = 0, []
    for sample, outer, inner in drawn(crop, 200):
        overlapping = [
            (i, o) for i in range(4) for o in range(2) if intersection_area(inner[i], outer[o]) > 0
        ]
        assert sample.local_pairs == overlapping
        alone += 4 - len({local for local, _ in overlapping})
        corners += inner
    assert alone > 100, "locals away from all globals are drawn, too"
    assert np.min(corners, axis=0)[:2].tolist() == [0, 0]
    assert np.max(corners, axis=0)[2:].tolist() == [200, 160]


def test_locals_without_containment_do_not_follow_the_globals() -> None:
    free, bound = (
        [
            (outer[i % 2][0] + outer[i % 2][2], local[0] + local[2])
            for _, outer, inner in drawn(crop, 100)
            for i, local in enumerate(inner)
        ]
        for crop in (
            dataclasses.replace(CROP, containment=None, global_scale=(0.1, 0.2)),
            dataclasses.replace(CROP, containment=0.9, global_scale=(0.1, 0.2)),
        )
    )
    assert abs(np.corrcoef(np.transpose(free))[0, 1]) < 0.15
    assert np.corrcoef(np.transpose(bound))[0, 1] > 0.8


@pytest.mark.parametrize("containment_", [None, 0.9])
def test_pairs_that_share_too_little_of_the_image_do_not_count(containment_: float | None) -> None:
    crop = dataclasses.replace(
        CROP, containment=containment_, least_overlap=0.05, global_scale=(0.1, 0.4), local_scale=(0.03, 0.2)
    )
    counted = {True: 0, False: 0}
    for sample, outer, inner in drawn(crop):
        enough = intersection_area(*outer) > 0.05 * 160 * 200
        assert sample.global_pairs == ([(0, 1), (1, 0)] if enough else [])
        counted[enough] += 1
        for local in range(4):
            for parent in range(2):
                shared = intersection_area(inner[local], outer[parent])
                counts = shared > 0.05 * 160 * 200
                if containment_ is not None:
                    counts = shared >= containment_ * area(inner[local])
                assert ((local, parent) in sample.local_pairs) == counts
    assert min(counted.values()) > 5


def test_the_least_overlap_itself_is_too_little() -> None:
    whole = dataclasses.replace(CROP, global_scale=(1.0, 1.0), ratio=(1.25, 1.25))
    for least, pairs in [(0.99, 2), (1.0, 0)]:
        (sample, outer, _), *_ = drawn(dataclasses.replace(whole, least_overlap=least), 1)
        assert outer == [(0, 0, 200, 160)] * 2
        assert len(sample.global_pairs) == pairs


def test_locals_may_be_sized_by_their_parent() -> None:
    crop = dataclasses.replace(CROP, containment=1.0, local_scale=(0.1, 0.4), local_scale_of="parent")
    image, shares = photograph(600, 800), []
    for seed in range(100):
        outer, inner = crop.draw_boxes(np.random.default_rng(seed), (image.shape[0], image.shape[1]))
        for i, local in enumerate(inner):
            assert containment(local, outer[i % 2]) == 1.0
            shares.append(area(local) / area(outer[i % 2]))
    assert min(shares) == pytest.approx(0.1, abs=0.01)
    assert max(shares) == pytest.approx(0.4, abs=0.01)
    assert np.mean(shares) == pytest.approx(0.25, abs=0.02)


def test_locals_may_be_compared_with_their_parents_alone() -> None:
    whole = dataclasses.replace(CROP, global_scale=(0.9, 1.0), locals=5)
    only = dataclasses.replace(whole, pair_with="parent")
    for (every, _, _), (own, _, _) in zip(drawn(whole, 30), drawn(only, 30), strict=True):
        assert own.local_pairs == [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)]
        assert set(own.local_pairs) < set(every.local_pairs)
        np.testing.assert_array_equal(own.boxes, every.boxes)


def test_hardly_a_local_has_a_large_iou_with_a_global() -> None:
    """The figure in the message that refuses `overlap: iou`, with the scales of `conf/augmentation/paka.yaml`."""
    rng, ious = np.random.default_rng(0), []
    for _ in range(2500):
        outer, inner = CROP.draw_boxes(rng, (160, 200))
        for local in inner:
            for parent in outer:
                shared = intersection_area(local, parent)
                ious.append(shared / (area(local) + area(parent) - shared))
    # 20,000 pairs: 0.03 % of them are 6.
    assert 0 < np.mean(np.array(ious) >= 0.9) < 1e-3
    assert np.mean(np.array(ious) >= 0.5) < 0.1


def test_possible_pairs_are_those_of_views_that_all_overlap() -> None:
    assert CROP.possible_pairs == 4 * 2 + 2
    assert dataclasses.replace(CROP, globals=3, locals=1).possible_pairs == 3 + 6
    assert dataclasses.replace(CROP, global_pairs=False, pair_with="parent").possible_pairs == 8
    whole = dataclasses.replace(CROP, global_scale=(1.0, 1.0), ratio=(1.25, 1.25))
    (sample, _, _), *_ = drawn(whole, 1)
    assert len(sample.local_pairs) + len(sample.global_pairs) == whole.possible_pairs == sample.possible_pairs


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"clean_teacher": False, "student_globals": False},
            "expected student_globals=True with clean_teacher",
        ),
        ({"containment": None, "local_scale_of": "parent"}, "expected a containment where"),
        ({"containment": None, "pair_with": "parent"}, "expected a containment where"),
        ({"overlap": "iou"}, "expected overlap='containment', got 'iou'"),
    ],
)
def test_views_that_cannot_be_drawn_are_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        dataclasses.replace(CROP, **changes)  # type: ignore[arg-type]


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


def test_the_teacher_may_see_the_globals_of_the_student() -> None:
    augmented = dataclasses.replace(CROP, clean_teacher=False)
    theirs, clean = (crop(photograph(), np.random.default_rng(5)) for crop in (augmented, CROP))
    np.testing.assert_array_equal(theirs.teacher, theirs.globals)
    assert not np.array_equal(theirs.teacher, clean.teacher)
    for field in ("globals", "locals", "boxes", "flips", "global_pairs", "local_pairs"):
        np.testing.assert_array_equal(getattr(theirs, field), getattr(clean, field))


def test_without_photometric_augmentation_student_and_teacher_see_the_same_globals() -> None:
    sample = dataclasses.replace(CROP, photometric=None)(photograph(), np.random.default_rng(5))
    np.testing.assert_array_equal(sample.globals, sample.teacher)


def test_unused_globals_are_not_rendered() -> None:
    crop = dataclasses.replace(CROP, student_globals=False, global_pairs=False)
    sample = crop(photograph(), np.random.default_rng(5))
    assert sample.globals.shape == (0, 3, 128, 128)
    assert sample.global_pairs == []


def test_collate_numbers_the_pairs_by_image() -> None:
    samples = [
        (CROP(photograph(), np.random.default_rng(seed)), np.array([True, False]), seed, unreadable)
        for seed, unreadable in ((8, -1), (9, 5))
    ]
    batch = collate(samples)
    assert batch.teacher.shape == (2, 2, 3, 128, 128)
    assert batch.locals.shape == (2, 4, 3, 56, 56)
    assert batch.boxes.dtype == torch.float32
    assert batch.index.tolist() == [8, 9]
    assert batch.unreadable.tolist() == [-1, 5]
    expected = [(i, *pair) for i, (sample, *_) in enumerate(samples) for pair in sample.local_pairs]
    assert batch.local_pairs.tolist() == [list(row) for row in expected]
    assert batch.possible_pairs.tolist() == [10, 10]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"containment": 0.0},
        {"containment": None},
        {"containment": 1.0, "local_scale_of": "parent", "local_scale": (0.05, 0.4), "pair_with": "parent"},
    ],
    ids=str,
)
def test_a_rendered_coordinate_image_comes_out_the_same_on_both_sides(changes: dict[str, object]) -> None:
    """Push pixel coordinates through crops, resizes, flips, patches and resampling: they must still agree."""
    height, width, patch = 300, 420, 8
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    coordinates = np.stack([x, y, np.zeros_like(x)], axis=2)
    crop = dataclasses.replace(CROP, ratio=(0.5, 2.0), photometric=None, **changes)  # type: ignore[arg-type]
    checked, mirrored = 0, set()
    for seed in range(15):
        sample = crop(coordinates, np.random.default_rng(seed))
        larges, smalls = token_maps(sample.teacher, patch), token_maps(sample.locals, patch)
        pairs = [(student, larges[student], parent) for student, parent in sample.global_pairs]
        pairs += [(2 + student, smalls[student], parent) for student, parent in sample.local_pairs]
        boxes, flips = torch.from_numpy(sample.boxes), torch.from_numpy(sample.flips)
        for view, tokens, parent in pairs:
            aligned = align(
                tokens[None],
                larges[parent][None],
                student_crop=boxes[[view]],
                teacher_crop=boxes[[parent]],
                student_flip=flips[[view]],
                teacher_flip=flips[[parent]],
                grid=7,
            )
            # One token of the coarser of the two views, in source pixels.
            sides = [(boxes[v, 2:] - boxes[v, :2]).max() / n for v, n in ((view, len(tokens)), (parent, 16))]
            difference = (aligned.student - aligned.teacher)[aligned.valid].abs() / max(sides)
            checked += len(difference)
            mirrored.add((bool(flips[view]), bool(flips[parent])))
            assert difference.numel() == 0 or difference.max() < 0.05
    assert checked > 1000
    assert len(mirrored) == 4


def token_maps(views: np.ndarray, patch: int) -> torch.Tensor:
    """Average (V, 3, S, S) views over their patches: (V, S / patch, S / patch, 2)."""
    tokens = torch.from_numpy(views).unflatten(2, (-1, patch)).unflatten(4, (-1, patch)).mean(dim=(3, 5))
    return tokens.permute(0, 2, 3, 1)[..., :2]
