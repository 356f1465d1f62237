"""The data module: order and views depend on seed and step, not on workers, ranks or restarts."""

from __future__ import annotations

import csv
from pathlib import Path

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


class Broken(NoiseImages):
    """240 images of which some cannot be read."""

    def __init__(self, *broken: int) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 240

    def image(self, index: int) -> np.ndarray:
        if index in self.broken:
            raise ValueError(f"image {index} is truncated")
        return super().image(index)


def everything(source: NoiseImages, path: Path | None = None, workers: int = 0) -> PostTrainingData:
    """Pass through the whole source once."""
    data = PostTrainingData(
        source, multi_crop(), batch_size=24, max_steps=10, seed=5, workers=workers, skipped=path
    )
    for batch in data.train_dataloader():
        data.transfer_batch_to_device(batch, torch.device("cpu"), 0)
    return data


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_stood_in_for_and_listed(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "run" / "skipped.csv"
    data = everything(Broken(17, 239), path, workers)
    assert data.skipped.indices == {17, 239}
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert sorted(row["index"] for row in rows) == ["17", "239"]
    assert rows[0]["image"] == f"noise {rows[0]['index']}"
    assert rows[0]["reason"] == f"image {rows[0]['index']} is truncated"
    views, _, shown, unreadable = data.dataset[(3, 17)]
    assert (shown, unreadable) == (18, 17)
    assert data.dataset[(3, 239)][2:] == (0, 239)
    assert not np.array_equal(views.teacher, data.dataset[(4, 17)][0].teacher)
    assert data.dataset[(3, 16)][2:] == (16, -1)


def test_nothing_is_listed_when_all_can_be_read(tmp_path: Path) -> None:
    assert not everything(Broken(), tmp_path / "skipped.csv").skipped.indices
    assert not (tmp_path / "skipped.csv").exists()


def test_more_than_one_in_a_hundred_stops(tmp_path: Path) -> None:
    message = r"3 of 240 images cannot be read, noise 5 the first of them: expected at most 1%; .*skipped\.csv lists them"
    with pytest.raises(ValueError, match=message):
        everything(Broken(5, 6, 100), tmp_path / "skipped.csv")
    assert len((tmp_path / "skipped.csv").read_text().splitlines()) == 4


def test_nothing_readable_says_why() -> None:
    with pytest.raises(ValueError, match="image 3 is truncated"):
        PostTrainingData(Broken(*range(240)), multi_crop(), batch_size=4, max_steps=1, seed=0).dataset[(0, 3)]
