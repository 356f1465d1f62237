"""What a run starts from when it is resumed, and what is left of the weights that it once started from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from tests.configurations import composed
from tests.runs import random_encoder
from tests.stopping import ARCH

from paka import posttraining, weights
from paka.evidence import weights_facts


def warm(path: Path, *more: str) -> DictConfig:
    arch = f"backbone.encoder.arch={ARCH}"
    return composed("backbone.pretrained=false", arch, "backbone.global_grid=4", f"init_from={path}", *more)


def test_a_resumed_run_is_compared_with_what_it_started_from_and_takes_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    cfg = warm(path)
    source = random_encoder(cfg)
    weights.save(source.model, path, **weights_facts(cfg, source))
    encoder, start = posttraining._start(cfg)
    assert start is not None
    resumed, nothing = posttraining._start(warm(path, "resume=last.ckpt"))
    assert nothing is None
    for name, value in source.model.state_dict().items():
        assert torch.equal(encoder.model.state_dict()[name], value)
        assert torch.equal(resumed.model.state_dict()[name], value)


def test_a_run_whose_start_is_gone_can_be_resumed_without_results(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(FileNotFoundError, match=f"at init_from={gone}, found nothing"):
        posttraining._start(warm(gone))
    with pytest.raises(
        FileNotFoundError, match=f"started from at {gone}, .* go on without results with eval=none"
    ):
        posttraining._start(warm(gone, "resume=last.ckpt"))
    assert posttraining._start(warm(gone, "resume=last.ckpt", "eval=none"))[1] is None
