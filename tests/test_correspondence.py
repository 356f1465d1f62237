"""Correspondence against analytic points, linear ramps and torchvision's ROI-align."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align

from paka.correspondence import align, resample, resampling_weights, sample_points, shared_boxes

PAIRS = 400
GRID = 7


def random_crops(pairs: int, *, seed: int) -> Tensor:
    """Integer crops of images of 16 to 4000 pixels a side, with aspect ratios up to 250."""
    draw = torch.Generator().manual_seed(seed)
    image = torch.exp(torch.empty(pairs, 2).uniform_(2.8, 8.29, generator=draw)).floor()
    size = (image * torch.empty(pairs, 2).uniform_(0.3, 1, generator=draw)).ceil()
    origin = ((image - size) * torch.rand(pairs, 2, generator=draw)).floor()
    return torch.cat([origin, origin + size], dim=1)


def boxes_inside(crops: Tensor, *, seed: int) -> Tensor:
    """Integer boxes of at least one pixel inside the crops."""
    draw = torch.Generator().manual_seed(seed)
    extent = crops[:, 2:] - crops[:, :2]
    size = (extent * torch.rand(len(crops), 2, generator=draw)).ceil().clamp_min(1)
    origin = crops[:, :2] + ((extent - size) * torch.rand(len(crops), 2, generator=draw)).floor()
    return torch.cat([origin, origin + size], dim=1)


def random_flips(pairs: int, *, seed: int) -> Tensor:
    return torch.rand(pairs, generator=torch.Generator().manual_seed(seed)) < 0.5


def bin_centres(boxes: Tensor) -> Tensor:
    """Centres (P, N, 2) of the bins of boxes, x before y, row by row, float64."""
    fraction = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    low, extent = boxes[:, :2].double(), (boxes[:, 2:] - boxes[:, :2]).double()
    rows, columns = torch.meshgrid(fraction, fraction, indexing="ij")
    return low[:, None] + torch.stack([columns, rows], dim=-1).flatten(0, 1) * extent[:, None]


def token_size(crops: Tensor, tokens: int) -> Tensor:
    return (crops[:, 2:] - crops[:, :2]).double()[:, None] / tokens


def far_from_whole_bins(boxes: Tensor, crops: Tensor, tokens: int) -> Tensor:
    """Pairs whose bins are not a whole number of tokens, where ceil() hangs on the last bit."""
    bins = (boxes[:, 2:] - boxes[:, :2]) / (crops[:, 2:] - crops[:, :2]) * tokens / GRID
    return ((bins - bins.round()).abs() > 1e-3).all(dim=1)


def torchvision_reference(maps: Tensor, boxes: Tensor, crops: Tensor, tokens: int) -> Tensor:
    origin, scale = crops[:, :2].double(), tokens / (crops[:, 2:] - crops[:, :2]).double()
    rois = torch.cat([(boxes[:, :2] - origin) * scale, (boxes[:, 2:] - origin) * scale], dim=1)
    rois = torch.cat([torch.arange(len(rois))[:, None].double(), rois], dim=1)
    out: Tensor = roi_align(maps.double().permute(0, 3, 1, 2), rois, GRID, sampling_ratio=-1, aligned=True)
    return out.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("tokens", [7, 12, 37])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_weights_equal_torchvision_roi_align(tokens: int, dtype: torch.dtype, tolerance: float) -> None:
    crops, flips = random_crops(PAIRS, seed=1).to(dtype), random_flips(PAIRS, seed=2)
    boxes = boxes_inside(crops.float(), seed=3).to(dtype)
    kept = far_from_whole_bins(boxes, crops, tokens)
    crops, flips, boxes = crops[kept], flips[kept], boxes[kept]
    maps = torch.rand(len(crops), tokens, tokens, 3, dtype=dtype, generator=torch.Generator().manual_seed(4))
    seen = torch.where(flips[:, None, None, None], maps.flip(2), maps)

    weights = resampling_weights(boxes, crops, flips, tokens=tokens, grid=GRID)
    expected = torchvision_reference(maps, boxes, crops, tokens)

    # Also where the bins are invalid: torchvision repeats the border as well.
    assert len(crops) > PAIRS / 2
    assert 0.5 < weights.valid.float().mean() < 1
    torch.testing.assert_close(resample(seen, weights).double(), expected, atol=tolerance, rtol=0)


def test_student_and_teacher_read_the_same_source_points() -> None:
    teacher_crops = random_crops(PAIRS, seed=5)
    student_crops = boxes_inside(teacher_crops, seed=6)
    shift = (student_crops[:, 2:] - student_crops[:, :2]).mul(0.1).floor().repeat(1, 2)
    student_crops = student_crops + shift  # some now overlap their teacher in part only
    shared = shared_boxes(student_crops, teacher_crops)
    student_flips, teacher_flips = random_flips(PAIRS, seed=7), random_flips(PAIRS, seed=8)

    student = resampling_weights(shared, student_crops, student_flips, tokens=7, grid=GRID)
    teacher = resampling_weights(shared, teacher_crops, teacher_flips, tokens=37, grid=GRID)
    seen_by_student = sample_points(student, student_crops, student_flips)
    seen_by_teacher = sample_points(teacher, teacher_crops, teacher_flips)
    valid = (student.valid & teacher.valid).flatten(1)
    finest = torch.minimum(token_size(student_crops, 7), token_size(teacher_crops, 37))

    assert valid.any(dim=1).float().mean() > 0.5
    for a, b in [
        (seen_by_student, bin_centres(shared)),
        (seen_by_teacher, bin_centres(shared)),
        (seen_by_student, seen_by_teacher),
    ]:
        assert ((a - b).abs() / finest)[valid].max() < 1e-4


@pytest.mark.parametrize("flipped", [False, True])
def test_linear_ramp_is_reproduced_at_valid_points(flipped: bool) -> None:
    tokens, crops = 37, random_crops(PAIRS, seed=9)
    boxes = boxes_inside(crops, seed=10)
    centre = torch.arange(tokens) + 0.5
    columns = (tokens - centre) if flipped else centre
    ramp = torch.stack([columns.expand(tokens, tokens), centre[:, None].expand(tokens, tokens)], dim=-1)

    weights = resampling_weights(boxes, crops, torch.full((PAIRS,), flipped), tokens=tokens, grid=GRID)
    read = resample(ramp.expand(PAIRS, -1, -1, -1), weights)
    expected = (bin_centres(boxes) - crops[:, None, :2]) / token_size(crops, tokens)

    valid = weights.valid.flatten(1)
    torch.testing.assert_close(read.double()[valid], expected[valid], atol=3e-5, rtol=0)


@pytest.mark.parametrize("tokens", [7, 37])
def test_invalid_means_a_sample_outside_the_outermost_token_centres(tokens: int) -> None:
    crops = random_crops(PAIRS, seed=11)
    boxes = boxes_inside(crops, seed=12)
    weights = resampling_weights(boxes, crops, random_flips(PAIRS, seed=13), tokens=tokens, grid=GRID)

    for pair in range(PAIRS):
        inside = []
        for axis in (1, 0):
            low, high = (float(boxes[pair, axis + side]) for side in (0, 2))
            first, last = (float(crops[pair, axis + side]) for side in (0, 2))
            scale = tokens / (last - first)
            bin_size = (high - low) * scale / GRID
            samples = max(1, -int(-(bin_size - 1e-4) // 1))
            at = [
                [(low - first) * scale + (bin_ + (j + 0.5) / samples) * bin_size for j in range(samples)]
                for bin_ in range(GRID)
            ]
            lowest, highest = 0.5 - 1e-4, tokens - 0.5 + 1e-4
            inside.append(torch.tensor([all(lowest <= p <= highest for p in points) for points in at]))
        assert torch.equal(weights.valid[pair], inside[0][:, None] & inside[1][None, :]), boxes[pair]


def test_lines_of_weights_sum_to_one_and_are_not_negative() -> None:
    crops = random_crops(PAIRS, seed=14)
    weights = resampling_weights(
        boxes_inside(crops, seed=15), crops, random_flips(PAIRS, seed=16), tokens=12, grid=GRID
    )
    for lines in (weights.x, weights.y):
        torch.testing.assert_close(lines.sum(-1), torch.ones(PAIRS, GRID))
        assert lines.min() >= 0


def test_local_inside_its_global_is_copied_token_by_token() -> None:
    crops = random_crops(PAIRS, seed=17)
    flips = random_flips(PAIRS, seed=18)
    weights = resampling_weights(crops, crops, flips, tokens=GRID, grid=GRID)
    eye = torch.eye(GRID).expand(PAIRS, -1, -1)

    assert weights.valid.all()
    torch.testing.assert_close(weights.y, eye, atol=1e-5, rtol=0)
    mirrored = torch.where(flips[:, None, None], eye.flip(-1), eye)
    torch.testing.assert_close(weights.x, mirrored, atol=1e-5, rtol=0)


def test_rounding_does_not_double_the_samples_of_one_token_bins() -> None:
    crop = torch.tensor([[0.0, 0.0, 518.0, 518.0]])
    box = torch.tensor([[140.0, 140.0, 140 + 98 * (1 + 1e-6), 140 + 98 * (1 + 1e-6)]])
    weights = resampling_weights(box, crop, torch.tensor([False]), tokens=37, grid=7)
    torch.testing.assert_close(weights.x[0], torch.eye(37)[10:17], atol=1e-4, rtol=0)


def test_boxes_that_do_not_meet_have_no_valid_point() -> None:
    a = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    b = torch.tensor([[20.0, 0, 30, 10], [10, 0, 20, 10]])
    shared = shared_boxes(a, b)
    weights = resampling_weights(shared, b, torch.tensor([False, True]), tokens=7, grid=7)
    assert not weights.valid.any()
    assert weights.x.isfinite().all()
    assert weights.y.isfinite().all()


@pytest.mark.parametrize("box", [[40.0, 20, 40, 80], [20.0, 60, 80, 40]])
def test_a_box_without_area_has_no_valid_point(box: list[float]) -> None:
    crop = torch.tensor([[0.0, 0, 100, 100]])
    assert not resampling_weights(
        torch.tensor([box]), crop, torch.tensor([False]), tokens=7, grid=7
    ).valid.any()


def test_shared_boxes_is_the_intersection() -> None:
    a, b = torch.tensor([[0.0, 5, 10, 20]]), torch.tensor([[4.0, 0, 30, 15]])
    assert shared_boxes(a, b).tolist() == [[4, 5, 10, 15]]
    assert torch.equal(shared_boxes(a, b), shared_boxes(b, a))


def test_align_pairs_the_tokens_of_the_same_points() -> None:
    """Token maps that hold their own source coordinates come out equal on both sides."""
    teacher_crop = torch.tensor([[10.0, 20, 528, 390], [0, 0, 518, 518]])
    student_crop = torch.tensor([[100.0, 60, 300, 260], [400, 400, 560, 500]])
    student_flip, teacher_flip = torch.tensor([True, False]), torch.tensor([False, True])
    aligned = align(
        coordinate_map(student_crop, student_flip, 7),
        coordinate_map(teacher_crop, teacher_flip, 37),
        student_crop,
        teacher_crop,
        student_flip,
        teacher_flip,
        grid=GRID,
    )
    assert aligned.valid.shape == (2, GRID * GRID)
    assert aligned.valid[0].all()
    assert 0 < aligned.valid[1].sum() < GRID * GRID
    student, teacher = aligned.student[aligned.valid], aligned.teacher[aligned.valid]
    torch.testing.assert_close(student, teacher, atol=2e-3, rtol=0)


def coordinate_map(crops: Tensor, flips: Tensor, tokens: int) -> Tensor:
    fraction = (torch.arange(tokens) + 0.5) / tokens
    columns = torch.where(flips[:, None], 1 - fraction, fraction)
    x = crops[:, 0, None] + columns * (crops[:, 2] - crops[:, 0])[:, None]
    y = crops[:, 1, None] + fraction * (crops[:, 3] - crops[:, 1])[:, None]
    return torch.stack([x[:, None, :].expand(-1, tokens, -1), y[:, :, None].expand(-1, -1, tokens)], dim=-1)


def test_no_pairs_give_empty_tokens_that_still_carry_a_gradient() -> None:
    maps = torch.zeros(0, 7, 7, 5, requires_grad=True)
    boxes, flips = torch.zeros(0, 4), torch.zeros(0, dtype=torch.bool)
    aligned = align(maps, maps.detach(), boxes, boxes, flips, flips, grid=GRID)
    assert aligned.student.shape == (0, GRID * GRID, 5)
    assert aligned.student.requires_grad


def test_resampling_runs_in_float32_under_autocast() -> None:
    crops = random_crops(8, seed=19)
    weights = resampling_weights(
        boxes_inside(crops, seed=20), crops, random_flips(8, seed=21), tokens=12, grid=GRID
    )
    maps = torch.randn(8, 12, 12, 4, generator=torch.Generator().manual_seed(22))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = resample(maps, weights)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, resample(maps, weights))
    assert resample(maps.bfloat16(), weights).dtype == torch.float32


def test_resample_passes_gradcheck() -> None:
    crops = random_crops(2, seed=23).double()
    boxes = boxes_inside(crops.float(), seed=24).double()
    weights = resampling_weights(boxes, crops, random_flips(2, seed=25), tokens=3, grid=2)
    maps = torch.randn(2, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: resample(m, weights), maps)


def test_bad_arguments_are_named() -> None:
    box, flip = torch.zeros(1, 4), torch.tensor([False])
    with pytest.raises(ValueError, match=r"boxes \(P, 4\).*got shape \(4,\)"):
        shared_boxes(box[0], box)
    with pytest.raises(TypeError, match=r"bfloat16.*blurs source pixels"):
        shared_boxes(box, box.bfloat16())
    with pytest.raises(ValueError, match="tokens=7, grid=0"):
        resampling_weights(box, box, flip, tokens=7, grid=0)
    maps = torch.zeros(1, 7, 6, 2)
    with pytest.raises(ValueError, match=r"square token maps.*\(1, 7, 6, 2\)"):
        align(maps, maps, box, box, flip, flip, grid=GRID)


def test_sample_points_needs_no_valid_bins() -> None:
    crop = torch.tensor([[0.0, 0, 4000, 10]])
    weights = resampling_weights(crop, crop, torch.tensor([True]), tokens=2, grid=GRID)
    points = sample_points(weights, crop, torch.tensor([True]))
    assert points.shape == (1, GRID * GRID, 2)
    assert points[..., 0].min() == 1000
    assert points[..., 0].max() == 3000
