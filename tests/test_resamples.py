"""Scores of resampled images, kept and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from paka.protocols import Outcome
from paka.resamples import FILE, SEED, Key, read_resamples, write_resamples
from paka.result import Result
from paka.statistics import MIOU, draws, paired_bootstrap


def result(seed: int, *, images: int = 30, classes: int = 4) -> Result:
    """Counts of predictions of the same truth, 100 pixels of which class 1 to `classes` each image."""
    torch.manual_seed(1)
    truth = torch.rand(images, classes, 1)
    torch.manual_seed(seed)
    shares = torch.softmax(2 * torch.eye(classes) + torch.randn(images, classes, classes), dim=-1)
    counts = (1000 * truth * shares).round().long()
    counts[..., 0] += (1000 * truth[..., 0]).round().long() - counts.sum(dim=-1)
    return Result((Outcome(counts.clamp_min(0), (MIOU,)),))


def test_two_runs_are_paired_as_in_one(tmp_path: Path) -> None:
    first, second = result(2), result(3)
    for name, one in {"a": first, "b": second}.items():
        (tmp_path / name).mkdir()
        write_resamples(
            tmp_path / name / FILE, {"linear": result(0)}, {"paka": {"linear": one}}, resamples=200
        )
    kept = [read_resamples(tmp_path / name)[Key("after", "paka", "linear", "mIoU")] for name in "ab"]
    assert kept[0].digest == kept[1].digest
    assert kept[0].images == 30
    assert kept[0].value == pytest.approx(100 * MIOU.once(first.counts[:, 0]))
    differences = kept[1].values - kept[0].values
    interval = paired_bootstrap(first.counts[:, 0], second.counts[:, 0], resamples=200, seed=SEED)
    assert np.quantile(differences, (0.025, 0.975)) == pytest.approx([100 * end for end in interval])


def test_other_images_have_another_digest(tmp_path: Path) -> None:
    digests = set()
    for images in (30, 29):
        write_resamples(tmp_path / FILE, {"linear": result(0, images=images)}, {}, resamples=20)
        (row,) = read_resamples(tmp_path).values()
        digests.add(row.digest)
    write_resamples(tmp_path / FILE, {"linear": result(0)}, {}, resamples=21)
    digests |= {row.digest for row in read_resamples(tmp_path).values()}
    assert len(digests) == 3


def test_a_file_does_not_grow_with_the_images(tmp_path: Path) -> None:
    write_resamples(tmp_path / FILE, {"linear": result(0, images=300)}, {}, resamples=1000)
    assert (tmp_path / FILE).stat().st_size < 12_000
    assert len(draws(300, 1000, SEED)) == 1000


def test_a_missing_or_damaged_file_is_none(tmp_path: Path) -> None:
    assert read_resamples(tmp_path) == {}
    write_resamples(tmp_path / FILE, {"linear": result(0)}, {}, resamples=20)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: len(whole) // 2])
    assert read_resamples(tmp_path) == {}
