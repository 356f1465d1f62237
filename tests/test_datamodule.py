"""The data module: order and views depend on seed and step, not on workers, ranks or restarts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.doubles import NoiseImages, multi_crop

from paka.datamodule import PostTrainingData, StepSampler


def flatten(sampler: StepSampler) -> list[tuple[int, int]]:
    return [key for batch in sampler for key in batch]


def test_an_epoch_visits_every_image_once_and_epochs_differ() -> None:
    sampler = StepSampler(12, 4, 6, seed=0)
    keys = flatten(sampler)
    first, second = keys[:12], keys[12:]
    assert sorted(index for _, index in first) == list(range(12))
    assert sorted(index for _, index in second) == list(range(12))
    assert [index for _, index in first] != [index for _, index in second]
    assert {epoch for epoch, _ in first} == {0}
    assert {epoch for epoch, _ in second} == {1}


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 2), (2, 2)])
def test_processes_and_micro_batches_share_out_the_same_global_batches(world: int, accumulate: int) -> None:
    whole = StepSampler(20, 8, 5, seed=3)
    shares = [
        list(StepSampler(20, 8, 5, seed=3, rank=rank, world=world, accumulate=accumulate))
        for rank in range(world)
    ]
    for step, batch in enumerate(whole):
        micro = range(step * accumulate, (step + 1) * accumulate)
        together = [key for m in micro for share in shares for key in share[m]]
        assert sorted(together) == sorted(batch)


def test_a_resumed_sampler_continues_exactly() -> None:
    whole, rest = StepSampler(10, 3, 7, seed=1), StepSampler(10, 3, 7, seed=1)
    rest.first_step = 4
    assert list(whole)[4:] == list(rest)
    assert len(rest) == len(whole) == 7


def test_impossible_batches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least one batch of 8 images, found 5"):
        StepSampler(5, 8, 1, seed=0)
    with pytest.raises(ValueError, match=r"divisible by devices x accumulate = 3 x 1"):
        StepSampler(20, 8, 1, seed=0, world=3)


def test_worker_processes_give_the_same_views_as_none() -> None:
    def batches(workers: int) -> list[torch.Tensor]:
        data = PostTrainingData(
            NoiseImages(), multi_crop(), batch_size=4, max_steps=3, seed=5, workers=workers
        )
        return [tensor for batch in data.train_dataloader() for tensor in batch]

    for a, b in zip(batches(0), batches(2), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_views_differ_between_epochs() -> None:
    data = PostTrainingData(NoiseImages(), multi_crop(), batch_size=4, max_steps=3, seed=5)
    first, second = data.dataset[(0, 3)], data.dataset[(1, 3)]
    assert not np.array_equal(first[0].locals, second[0].locals)
