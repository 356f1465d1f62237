"""The encoder of a run: the one that it exported, or a branch of a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from paka import weights
from paka.config import build
from paka.digests import check_digest
from paka.encoder import Encoder
from paka.encoder_spec import EncoderSpec, read_metadata
from paka.loading import ENCODER, spec_of_run
from paka.run_folder import RunFolder
from paka.tuning import Tuning, merge
from paka.weights import Branch


@dataclass(frozen=True)
class RunEncoder:
    """An encoder that a run trained.

    Attributes:
        encoder: It, in evaluation mode.
        spec: What it is but for its weights.
        file: Where the weights are.
        said: Which one it is, in words.
        final: Whether it is the one that the run's scores are of.
        metadata: What the file of weights says.
    """

    encoder: Encoder
    spec: EncoderSpec
    file: Path
    said: str
    final: bool
    metadata: Mapping[str, str]


def open_encoder(run: RunFolder, file: Path | None, branch: Branch | None) -> RunEncoder:
    """Return an encoder of a run.

    Args:
        run: The run.
        file: Its weights, or a checkpoint; None takes `encoder.safetensors`, or where there is none, or another branch is asked for,
            the last checkpoint.
        branch: Which of a checkpoint's encoders; None takes the one that the run exports.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, was changed, or does not fit the run's backbone.
    """
    spec = spec_of_run(run)
    own: Branch = run.config.export
    path = _path(run, file, branch, own)
    if path.suffix == ".ckpt":
        return _of_checkpoint(run, spec, path, branch or own)
    check_digest(path)
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    final = path.name == ENCODER and path.parent.resolve() == run.path.resolve()
    _check_branch(path, branch, own if final else None)
    if final and "arch" in metadata:
        spec = EncoderSpec.of(metadata, path)
    said = _said(metadata, own) if final else f"weights of {path.name}"
    encoder = spec.build()
    weights.load_file(encoder.model, path, branch=branch or "teacher")
    return RunEncoder(encoder, spec, path, said, final, metadata)


def finished_encoder(run: RunFolder, encoder: Encoder) -> RunEncoder:
    """Return the encoder that a run has come to, with what its file says.

    Args:
        run: The run, which has written its `encoder.safetensors`.
        encoder: What was written.
    """
    path = run.path / ENCODER
    metadata = read_metadata(path)
    said, spec = _said(metadata, run.config.export), EncoderSpec.of(metadata, path)
    return RunEncoder(encoder, spec, path, said, final=True, metadata=metadata)


def _said(metadata: Mapping[str, str], own: Branch) -> str:
    return metadata.get("exported", f"{own} after the last step")


def _check_branch(path: Path, branch: Branch | None, held: Branch | None) -> None:
    """Refuse to take a branch from a file of one encoder, unless it is known to be that branch's.

    Raises:
        ValueError: It is not.
    """
    if path.suffix == ".safetensors" and branch not in (None, held):
        which = "" if held is None else f", the {held}'s"
        raise ValueError(
            f"expected a checkpoint to take the {branch} from, {path} holds one encoder{which}: leave branch out, or set "
            "weights=RUN/checkpoints/last.ckpt"
        )


def _path(run: RunFolder, file: Path | None, branch: Branch | None, own: Branch) -> Path:
    """Return the file that is meant."""
    if file is not None:
        if not file.is_file():
            raise FileNotFoundError(f"expected weights at weights={file}, found no such file")
        return file
    finished, last = run.path / ENCODER, run.path / "checkpoints" / "last.ckpt"
    if finished.is_file() and branch in (None, own):
        return finished
    if not last.is_file():
        what = f"{ENCODER} holds the {own}" if finished.is_file() else f"there is no {ENCODER}"
        raise FileNotFoundError(
            f"expected an encoder in {run.path}, whose run is {run.state}: {what}, and there is no checkpoints/last.ckpt; let the run "
            "get to its end, or name a file with weights=FILE"
        )
    return last


def _of_checkpoint(run: RunFolder, spec: EncoderSpec, path: Path, branch: Branch) -> RunEncoder:
    """Return one of a checkpoint's two encoders, adapters merged."""
    encoder = spec.build()
    held = weights.read(path)
    if run.config.tuning.adapter is None:
        weights.fit(encoder.model, weights.encoder_state(held, path, branch), str(path))
    else:
        _load_adapted(encoder, build(run.config.tuning), held, path, branch)
    step, steps = held.get("global_step", "an unknown"), run.config.trainer.max_steps
    said = f"{branch} after step {step} of {steps}, from {path.name}"
    return RunEncoder(encoder.eval(), spec, path, said, False, {})  # noqa: FBT003 - by position, as above


def _load_adapted(
    encoder: Encoder, tuning: Tuning, held: Mapping[str, Any], path: Path, branch: Branch
) -> None:
    """Load what an encoder with adapters computes with into one without."""
    adapted = copy.deepcopy(encoder)
    tuning.apply(adapted)
    prefix = f"{branch}.encoder."
    state = cast(Mapping[str, Any], held.get("state_dict", {}))
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    try:
        adapted.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(
            f"{path} does not fit this run's backbone and its adapters: {str(error).splitlines()[-1].strip()}"
        ) from error
    merge(adapted, encoder)
