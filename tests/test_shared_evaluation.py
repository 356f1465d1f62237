"""Several processes that share an evaluation give the counts and the pictures of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.doubles import NoiseImages, tiny_encoder
from tests.programs import run_ranks
from tests.protocols.synthetic import PROFILE
from torch import distributed

from paka.benchmark import Benchmark
from paka.collectives import own_share
from paka.feature_store import FeatureCache
from paka.outcome_store import OutcomeStore
from paka.protocols import Entry
from paka.protocols.in_context import in_context
from paka.protocols.knn_segmentation import knn_segmentation
from paka.protocols.linear import linear
from paka.protocols.overclustering import overclustering
from paka.result import Result
from paka.workspace import Workspace

PROCESSES = 3
ENTRIES = {
    "in_context": Entry(in_context, "masks", "memory"),
    "linear": Entry(linear, "masks"),
    "knn_segmentation": Entry(knn_segmentation, "masks"),
    "overclustering": Entry(overclustering, "masks", trains=False, pools=True),
}


class Counted(NoiseImages):
    """Images that say in a file which of them were read, and by which process."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def image(self, index):
        with self.log.open("a") as file:
            file.write(f"{index}\n")
        return super().image(index)


def run(folder: Path, *, shared: bool) -> dict[str, Result]:
    profile = replace(PROFILE, grid=[6, 4], clusters=3, k=3, memory=400, memory_passes=2, train_images=5)
    cache = FeatureCache(folder, "float32", 10**9)
    source = Counted(folder / "read")
    folder.mkdir(exist_ok=True)
    benchmark = Benchmark(
        source, source, profile, ENTRIES, 0, 7, {}, cache, OutcomeStore(folder / "kept"),
        workspace=Workspace(batch=2, shared=shared),
    )  # fmt: skip
    return benchmark.run(tiny_encoder())


def work(rank: int, folder: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=PROCESSES
    )
    found = run(folder / "several", shared=True)
    again = run(folder / "several", shared=True)
    counts = {name: result.counts for name, result in found.items()}
    assert all(torch.equal(again[name].counts, counts[name]) for name in counts)
    pictures = {name: dict(result.pictures) for name, result in found.items()}
    torch.save({"counts": counts, "pictures": pictures, "share": list(own_share(7))}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    run_ranks(work, folder, PROCESSES)
    return folder


def test_all_processes_have_the_counts_and_pictures_of_one(several: Path) -> None:
    alone = run(several / "alone", shared=False)
    for rank in range(PROCESSES):
        found = torch.load(several / f"{rank}.pt", weights_only=True)
        for name, result in alone.items():
            assert torch.equal(found["counts"][name], result.counts), name
            assert found["pictures"][name].keys() == result.pictures.keys()
            for n, picture in result.pictures.items():
                assert torch.equal(found["pictures"][name][n], picture)


def test_each_image_is_encoded_by_one_process(several: Path) -> None:
    read = sorted(map(int, (several / "several" / "read").read_text().split()))
    # 7 scored images, 5 to train on, and those twice in the memory.
    assert read == sorted([*range(7), *range(5), *range(5), *range(5)])
    shares = [torch.load(several / f"{rank}.pt", weights_only=True)["share"] for rank in range(PROCESSES)]
    assert [index for share in shares for index in share] == list(range(7))
