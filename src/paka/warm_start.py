"""Warm start, `init_from=`: weights of another run or of a file, and nothing else of it.

`backbone.weights=` says which encoder is post-trained: one network, of which student and teacher are copies. `init_from=`
starts from where another run got: its student, its teacher and their heads, each where it was, under a fresh optimizer and
schedule at step 0. In the results "before" is the branch that the run exports, as it was taken, so that a difference is what
this run did; `python -m paka.evaluate compare=[RUN/encoder.safetensors]` compares with the published weights.
"""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from paka import checkpoints, weights
from paka.encoder import Encoder
from paka.loading import ENCODER
from paka.module import PostTraining
from paka.resuming import LAST
from paka.weights import Branch

State = dict[str, Tensor]

BRANCHES: tuple[Branch, Branch] = ("student", "teacher")


@dataclass(frozen=True)
class WarmStart:
    """Weights to start from.

    Attributes:
        path: The file.
        encoders: State of each branch's encoder without adapters, under timm's keys.
        heads: State of each branch's heads, by branch and head; empty for an encoder's file.
        step: Optimizer steps that they were trained, None if unknown.
    """

    path: Path
    encoders: Mapping[Branch, State]
    heads: Mapping[tuple[Branch, str], State] = field(default_factory=dict)
    step: int | None = None

    def encoder(self, branch: Branch, plain: Encoder) -> Encoder:
        """Return a copy of an encoder with a branch's weights."""
        filled = copy.deepcopy(plain)
        filled.model.load_state_dict(self.encoders[branch])
        return filled

    def fill(self, module: PostTraining, exported: Branch) -> str:
        """Fill student, teacher and heads, and say in a sentence what was taken and what was not.

        Args:
            module: What is trained; its encoders hold the weights of the exported branch.
            exported: Which that is. Both start from it where some weights stay as they are: there they have to be equal.
        """
        apart = all(parameter.requires_grad for parameter in module.student.encoder.parameters())
        if apart:
            for branch in BRANCHES:
                cast(Any, module.get_submodule(branch)).encoder.model.load_state_dict(self.encoders[branch])
        taken, left = self._fill_heads(module)
        both = "the encoders of student and teacher" if self.heads else "the encoder"
        encoders = (
            both if apart else f"the {exported}'s encoder for both branches, because not all of it trains"
        )
        at = "" if self.step is None else f" at step {self.step}"
        rest = ", ".join([*left, "optimizer, schedule and step are new"])
        before = f"the {exported}'s encoder as it was taken"
        return f'init_from: took {" and ".join([encoders, *taken])} from {self.path}{at}; {rest}; "before" in the results is {before}'

    def _fill_heads(self, module: PostTraining) -> tuple[list[str], list[str]]:
        """Fill the heads that fit; return what was taken, and what is new with the reason."""
        taken, left = [], []
        for name in ("head", "image_head"):
            own = {branch: getattr(module.get_submodule(branch), name) for branch in BRANCHES}
            if not isinstance(own["student"], nn.Module) or not own["student"].state_dict():
                continue
            found = {branch: self.heads.get((branch, name), {}) for branch in BRANCHES}
            called = name.replace("_", " ")
            problems = checkpoints.misfits(found["student"], own["student"].state_dict())
            if problems:
                reason = f"{problems[0]} does not fit" if found["student"] else "there is none"
                left.append(f"the {called} is new ({reason})")
                continue
            for branch in BRANCHES:
                own[branch].load_state_dict(found[branch])
            taken.append(f"the {called}s")
        return taken, left


def read(path: str | Path, plain: Encoder) -> WarmStart:
    """Return the weights of a run's folder (its last checkpoint, else its export), a checkpoint, or an encoder's file.

    Args:
        path: Where they are.
        plain: An encoder of the architecture that they have to fit.

    Raises:
        FileNotFoundError: There are none.
        ValueError: They do not fit, or the file is damaged.
    """
    path = _file(Path(path).expanduser())
    kept = checkpoints.read(path, key="init_from") if _is_checkpoint(path) else None
    if kept is None:
        return WarmStart(path, {branch: _read_file(path, plain, branch) for branch in BRANCHES})
    scale = _scale(kept.config)
    encoders = {
        branch: _fitted(_below(kept.weights, f"{branch}.encoder.model."), scale, plain, path)
        for branch in BRANCHES
    }
    heads = {
        (branch, name): state
        for branch in BRANCHES
        for name in ("head", "image_head")
        if (state := _below(kept.weights, f"{branch}.{name}."))
    }
    return WarmStart(path, encoders, heads, kept.step)


def _file(path: Path) -> Path:
    """Return what a run's folder holds; anything else is what it is."""
    if not (path / "config.yaml").is_file():
        if not path.exists():
            raise FileNotFoundError(
                f"expected a run's folder, a checkpoint or an encoder's weights at init_from={path}, found nothing"
            )
        return path
    found = next((one for one in (path / LAST, path / ENCODER) if one.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"expected {LAST} or {ENCODER} in init_from={path}, found neither: the run has left no weights"
        )
    return found


def _is_checkpoint(path: Path) -> bool:
    """Return whether a file is a checkpoint of a training run of this package, by the names in its first entries."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return path.suffix == ".ckpt" and path.is_file()
    with zipfile.ZipFile(path) as archive:
        records = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return any(checkpoints.CONFIG.encode() in archive.read(name) for name in records)


def _read_file(path: Path, plain: Encoder, branch: Branch) -> State:
    filled = copy.deepcopy(plain)
    weights.load_file(filled.model, path, branch=branch)
    return dict(filled.model.state_dict())


def _fitted(state: State, scale: float, plain: Encoder, path: Path) -> State:
    """Return an encoder's state without adapters, as this architecture has it."""
    filled = copy.deepcopy(plain)
    weights.fit(filled.model, _merged(state, scale), str(path))
    return dict(filled.model.state_dict())


def _below(state: Mapping[str, Any], prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _merged(state: State, scale: float) -> State:
    """Return weights in which the adapters of `paka.tuning.LowRank` have become part of what they adapt."""
    mark = ".parametrizations.weight."
    merged = {key: value for key, value in state.items() if mark not in key}
    for key in (key for key in state if key.endswith(f"{mark}original")):
        name = key.partition(mark)[0]
        update = state[f"{name}{mark}0.lora_b"].float() @ state[f"{name}{mark}0.lora_a"].float()
        merged[f"{name}.weight"] = state[key] + (scale * update).to(state[key].dtype)
    return merged


def _scale(config: Mapping[str, Any]) -> float:
    adapter = config.get("tuning", {}).get("adapter")
    return 1.0 if adapter is None else float(adapter["alpha"]) / int(adapter["rank"])
