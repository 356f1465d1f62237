"""Schedules, parameter groups, and what one optimizer step is when its gradient is accumulated."""

from __future__ import annotations

import functools
import math

import lightning as L
import pytest
import torch
from tests.doubles import NoiseImages, multi_crop, tiny_encoder
from torch import Tensor, nn

from paka.datamodule import PostTrainingData
from paka.head import Branch, ProjectionHead
from paka.module import PostTraining
from paka.objectives import Correspondences
from paka.optim import CosineSchedule, OneCycleSchedule, PolynomialSchedule, Recipe, parameter_groups

STEPS = 4
CLIP = 0.05


def test_cosine_schedule_by_hand() -> None:
    schedule = CosineSchedule(0.04, 0.5)
    assert schedule(0, 100) == pytest.approx(0.04)
    assert schedule(50, 100) == pytest.approx(0.27)
    assert schedule(25, 100) == pytest.approx(0.5 + (0.04 - 0.5) * 0.5 * (1 + math.cos(math.pi / 4)))
    assert schedule(100, 100) == pytest.approx(0.5)
    assert schedule(150, 100) == pytest.approx(0.5)


def test_warm_up_rises_linearly_to_the_start() -> None:
    schedule = CosineSchedule(1.0, 0.0, warmup_steps=4)
    assert [schedule(step, 10) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert schedule(7, 10) == pytest.approx(0.5)


def test_polynomial_schedule_by_hand() -> None:
    schedule = PolynomialSchedule(1.0, 0.1, power=0.9)
    assert [schedule(step, 100) for step in (0, 100, 150)] == pytest.approx([1.0, 0.1, 0.1])
    assert schedule(36, 100) == pytest.approx(0.1 + 0.9 * 0.64**0.9)
    assert PolynomialSchedule(2.0, 1.0, power=1.0)(50, 100) == pytest.approx(1.5)
    warmed = PolynomialSchedule(1.0, 0.0, power=1.0, warmup_steps=4)
    assert [warmed(step, 10) for step in (0, 1, 3, 4, 7)] == pytest.approx([0.25, 0.5, 1.0, 1.0, 0.5])


def test_one_cycle_schedule_by_hand() -> None:
    schedule = OneCycleSchedule(2.0, warmup_steps=4)
    found = [schedule(step, 10) for step in range(10)]
    warm = [1e-6 + (1 - 1e-6) * late / 4 for late in (0, 0, 1, 2, 3)]
    left = [1 - late / 10 for late in (0, 0, 1, 2, 3)]
    assert found[:5] == pytest.approx([2 * rise * share for rise, share in zip(warm, left, strict=True)])
    assert found[5:] == pytest.approx([1 + math.cos(math.pi * step / 10) for step in range(5, 10)])
    assert OneCycleSchedule(1.0)(0, 10) == pytest.approx(0.5 * (1 + math.cos(math.pi / 10)))
    assert OneCycleSchedule(1.0)(20, 10) == pytest.approx(0.0, abs=1e-12)


def test_groups_cover_every_trainable_parameter_once_and_decay_only_matrices() -> None:
    encoder, head = tiny_encoder(), torch.nn.Linear(16, 8)
    encoder.model.blocks[0].requires_grad_(False)  # type: ignore[operator]
    groups = parameter_groups({"encoder": (encoder, 1e-5), "head": (head, 1e-4)})
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    trainable = [id(p) for module in (encoder, head) for p in module.parameters() if p.requires_grad]
    assert sorted(listed) == sorted(trainable)
    by_name = {group["name"]: group for group in groups}
    assert by_name["head"]["lr"] == 1e-4
    assert by_name["encoder.no_decay"]["peak_lr"] == 1e-5
    decayed = {id(p) for group in groups if group["decays"] for p in group["params"]}
    tokens = {encoder.model.cls_token, encoder.model.pos_embed, encoder.model.norm.weight, head.bias}
    assert not decayed & {id(p) for p in tokens}
    assert id(head.weight) in decayed


class SquaredDistance(nn.Module):
    """The mean over images of what each image's own pairs differ by, times 100 so that clipping bites."""

    def forward(self, batch: Correspondences) -> tuple[Tensor, dict[str, Tensor]]:
        distance = (batch.aligned_student - batch.aligned_teacher).square().mean(dim=(1, 2))
        members = torch.arange(batch.images)[:, None] == batch.image
        per_image = (members * distance).sum(dim=1) / members.sum(dim=1)
        return 100 * per_image.mean(), {}


class Recorded(PostTraining):
    """Notes each step's gradient norm, how far the student went, and when and how the teacher moved."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        del optimizer
        values = [value.grad for value in self.student.parameters() if value.grad is not None]
        self.norms.append(torch.nn.utils.get_total_norm(values).item())

    def optimizer_step(self, *args: object, **kwargs: object) -> None:
        before = [value.detach().clone() for value in self.student.parameters()]
        move = self.teacher.update

        def update(student: Branch, momentum: float) -> None:
            gone = [new.detach() - old for new, old in zip(student.parameters(), before, strict=True)]
            self.moves.append((torch.nn.utils.get_total_norm(gone).item(), momentum))
            move(student, momentum)

        self.teacher.update = update
        super().optimizer_step(*args, **kwargs)
        self.teacher.update = move


def run(
    *, accumulate: int, clip: float | None, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD
) -> Recorded:
    """Take four steps of four images; only the size of the micro-batches differs."""
    torch.manual_seed(0)
    student = Branch(tiny_encoder(), ProjectionHead(16, hidden=12, out=8))
    recipe = Recipe(
        max_steps=STEPS,
        lr=1e-2,
        head_lr=1e-2,
        lr_schedule=CosineSchedule(1.0, 0.0, warmup_steps=2),
        weight_decay=CosineSchedule(0.0, 0.0),
        momentum=CosineSchedule(0.5, 1.0),
    )
    model = Recorded(student, SquaredDistance(), functools.partial(optimizer), recipe, grid=2)
    model.norms, model.moves = [], []
    data = PostTrainingData(
        NoiseImages(), multi_crop(), batch_size=4, max_steps=STEPS, seed=0, accumulate=accumulate
    )
    trainer = L.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(model, data)
    return model


def furthest(one: Recorded, other: Recorded) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max((mine - theirs).abs().max().item() for mine, theirs in pairs)


def test_the_accumulated_gradient_is_clipped_once() -> None:
    """Two micro-batches of two images are one batch of four, student and teacher, clipped as one."""
    whole, parts = run(accumulate=1, clip=CLIP), run(accumulate=2, clip=CLIP)
    assert furthest(whole, parts) < 1e-6
    assert furthest(whole, run(accumulate=1, clip=None)) > 1e-4, "the bound has to bite"
    assert min(parts.norms) > 2 * CLIP
    assert parts.norms == pytest.approx(whole.norms, rel=1e-4)


def test_a_clipped_step_goes_as_far_as_the_rate_times_the_bound() -> None:
    """Plain gradient descent moves by rate x bound; two parts clipped one by one would seldom do so."""
    rates = [1e-2 * CosineSchedule(1.0, 0.0, warmup_steps=2)(step, STEPS) for step in range(STEPS)]
    for accumulate in (1, 2, 4):
        distances = [distance for distance, _ in run(accumulate=accumulate, clip=CLIP).moves]
        assert distances == pytest.approx([rate * CLIP for rate in rates], rel=1e-3)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_rates_and_momentum_count_optimizer_steps_and_the_teacher_moves_after_each(accumulate: int) -> None:
    moves = run(accumulate=accumulate, clip=None).moves
    assert [momentum for _, momentum in moves] == pytest.approx(
        [CosineSchedule(0.5, 1.0)(step, STEPS) for step in range(STEPS)]
    )
    assert all(distance > 0 for distance, _ in moves), "the student has moved before the teacher does"
