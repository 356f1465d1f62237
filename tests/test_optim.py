"""Schedules and parameter groups."""

from __future__ import annotations

import math

import pytest
import torch
from tests.doubles import tiny_encoder

from paka.optim import CosineSchedule, parameter_groups


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
