from __future__ import annotations

import io

import torch

from paka.draws import Draws


def numbers(draws: Draws) -> list[float]:
    return torch.rand(3, generator=draws.next()).tolist()


def test_draws_follow_from_seed_and_count_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, two = Draws(3), Draws(3)
    first, second = numbers(one), numbers(one)
    assert first != second
    torch.rand(5)
    assert [numbers(two), numbers(two)] == [first, second]
    assert numbers(Draws(4)) != first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_resumed_source_goes_on() -> None:
    one = Draws(0)
    numbers(one)
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other = Draws(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert numbers(other) == numbers(one)
