"""Draws are a function of seed and call, and a resumed run goes on with them."""

from __future__ import annotations

import io

import torch

from paka.draws import Draws


def drawn(draws: Draws, times: int = 1) -> list[list[float]]:
    return [torch.rand(4, generator=draws.next()).tolist() for _ in range(times)]


def test_the_same_seed_draws_the_same_and_no_two_calls_do() -> None:
    first, again, other = (drawn(Draws(seed), 3) for seed in (5, 5, 6))
    assert first == again
    everything = [tuple(values) for values in first + other]
    assert len(set(everything)) == 6


def test_a_restored_source_goes_on() -> None:
    draws = Draws(5)
    expected = drawn(draws, 5)
    early = Draws(5)
    drawn(early, 2)
    file = io.BytesIO()
    torch.save(torch.nn.ModuleDict({"draws": early}).state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert state == {"draws._extra_state": 2}
    restored = torch.nn.ModuleDict({"draws": Draws(5)})
    restored.load_state_dict(state)
    assert drawn(restored["draws"], 3) == expected[2:]  # type: ignore[arg-type]


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = drawn(Draws(5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert drawn(Draws(5)) == first
