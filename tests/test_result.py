"""What is said of a score beside its profile, over seeds and encoders."""

from __future__ import annotations

import torch

from paka.protocols import Outcome
from paka.result import Result, stated
from paka.statistics import MIOU


def result(*facts: dict[str, object]) -> Result:
    return Result(tuple(Outcome(torch.zeros(1, 2, 2), (MIOU,), stated=one) for one in facts))


def test_what_all_runs_share_stays_in_its_column() -> None:
    before = result({"memory": 90, "k": 5, "note": "cosine"}, {"memory": 88, "k": 5, "note": "cosine"})
    assert stated(before, before) == {"memory": 90, "k": 5, "note": "cosine"}, (
        "a memory is that of the first seed"
    )


def test_what_encoders_or_seeds_chose_differently_is_told_in_the_note() -> None:
    before = result({"memory": 90, "k": 1, "note": "cosine"})
    after = result({"memory": 90, "k": 30, "note": "L2"}, {"memory": 90, "k": 3, "note": "L2"})
    assert stated(before, after) == {"memory": 90, "note": "k 1, cosine against k 30, L2 or k 3, L2"}
    same_note = result({"k": 1, "note": "by pixel"}), result({"k": 30, "note": "by pixel"})
    assert stated(*same_note) == {"note": "by pixel; k 1 against k 30"}
