"""Outcomes that are kept: the same when they come back, and not taken for what other facts or other code would make."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.doubles import NoiseImages, tiny_encoder
from tests.protocols.synthetic import PROFILE

from paka import outcome_store
from paka.benchmark import Benchmark
from paka.outcome_store import METRICS, OutcomeStore, named
from paka.protocols import Entry, Outcome
from paka.protocols.in_context import in_context
from paka.statistics import MIOU
from paka.workspace import Workspace

FACTS = {"weights": "w", "seed": [0, 0]}
OUTCOME = Outcome(
    torch.arange(12).view(3, 2, 2),
    (MIOU, METRICS["mAP"]),
    {0: torch.ones(4, 5, dtype=torch.uint8), 2: torch.rand(4, 5)},
    {"memory": 7, "temperature": 0.02, "note": "said"},
)


def test_an_outcome_comes_back_as_it_was(tmp_path) -> None:
    store = OutcomeStore(tmp_path / "outcomes")
    assert store.get(FACTS, PROFILE) is None
    store.put(FACTS, OUTCOME)
    found = store.get(FACTS, PROFILE)
    assert torch.equal(found.counts, OUTCOME.counts)
    assert [metric.name for metric in found.metrics] == ["mIoU", "mAP"]
    assert found.pictures.keys() == OUTCOME.pictures.keys()
    assert all(torch.equal(found.pictures[n], OUTCOME.pictures[n]) for n in (0, 2))
    assert found.stated == OUTCOME.stated
    assert [path.suffix for path in (tmp_path / "outcomes").iterdir()] == [".npz"]


def test_other_facts_or_other_code_are_other_outcomes(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = OutcomeStore(tmp_path)
    store.put(FACTS, OUTCOME)
    assert store.get({**FACTS, "weights": "others"}, PROFILE) is None
    monkeypatch.setattr(outcome_store, "code_digest", lambda: "changed")
    assert store.get(FACTS, PROFILE) is None


def test_mean_iou_comes_back_as_the_profile_defines_it(tmp_path) -> None:
    counts = torch.diag(torch.tensor([5, 7, 0]))
    assert float(named("mIoU", replace(PROFILE, absent="zero")).of(counts)) == pytest.approx(2 / 3)
    assert all(named(name, PROFILE) is metric for name, metric in METRICS.items())


def test_a_second_evaluation_computes_nothing(tmp_path) -> None:
    calls = []

    def counted(*sides, **options) -> Outcome:
        calls.append(options["seed"])
        return in_context(*sides, **options)

    profile = replace(PROFILE, grid=[6, 4], seeds=2, k=3)
    benchmark = Benchmark(
        NoiseImages(),
        NoiseImages(),
        profile,
        {"it": Entry(counted, "masks")},
        0,
        8,
        kept=OutcomeStore(tmp_path),
    )
    first = benchmark.run(tiny_encoder())["it"]
    second = benchmark.run(tiny_encoder())["it"]
    assert calls == [0, 1]
    assert torch.equal(first.counts, second.counts)
    for other in (
        lambda: benchmark.run(tiny_encoder(seed=1)),
        lambda: replace(benchmark, profile=replace(profile, k=2)).run(tiny_encoder()),
        lambda: replace(benchmark, protocols={"other": Entry(counted, "masks")}).run(tiny_encoder()),
        lambda: replace(benchmark, query_images=7).run(tiny_encoder()),
        lambda: replace(benchmark, workspace=Workspace(dtype=torch.float16)).run(tiny_encoder()),
    ):
        calls.clear()
        other()
        assert calls == [0, 1], (
            "other weights, settings, protocols, images or stores have outcomes of their own"
        )


def test_a_protocol_may_have_its_own_number_of_runs() -> None:
    entries = {
        "often": Entry(partial(in_context, fraction=0.5), "masks", seeds=3),
        "as others": Entry(in_context, "masks"),
    }
    profile = replace(PROFILE, grid=[6, 4], k=3)
    benchmark = Benchmark(NoiseImages(), NoiseImages(), profile, entries, 0, 8)
    found = benchmark.run(tiny_encoder())
    assert {name: len(result.outcomes) for name, result in found.items()} == {"often": 3, "as others": 1}
    assert len({float(outcome.score) for outcome in found["often"].outcomes}) > 1
    assert benchmark.steps(1).count("often") == 3
    often, other = benchmark.compare(found, None, method="")
    assert ("3 x seeded" in often.rules, "1 x seeded" in other.rules) == (True, True)
