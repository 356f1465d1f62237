"""Encoders back from what runs and exports left: `paka.load`."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from paka.digests import check_digest
from paka.encoder import Encoder
from paka.encoder_spec import EncoderSpec, read_metadata
from paka.run_folder import RunFolder

ENCODER = "encoder.safetensors"
"""What a run calls the encoder that it made."""

EXPORTED = "model.safetensors"
"""What exports of every format but ONNX call it."""


def load(path: str | Path) -> Encoder:
    """Return a post-trained encoder in evaluation mode, with the transform that makes its input of a picture.

    `encoder(encoder.transform(picture))` gives `Tokens`: patch tokens (1, H, W, D), prefix tokens (1, R, D). Normalisation
    of pixels is part of the encoder.

    Args:
        path: Folder of a run, folder of an export (but ONNX), or a file such as `RUN/encoder.safetensors`.

    Raises:
        FileNotFoundError: There is no such file or folder, or no encoder in it.
        ValueError: The weights are damaged, were changed, or do not say of what encoder they are.
    """
    file = _file(Path(path).expanduser())
    check_digest(file)
    metadata = read_metadata(file)
    if "arch" not in metadata and (file.parent / "config.yaml").is_file():
        return spec_of_run(RunFolder(file.parent)).build(file)
    return EncoderSpec.of(metadata, file).build(file)


def licence_of_start(path: Path) -> str | None:
    """Return the licence of the weights that an encoder was made from.

    Args:
        path: Folder of a run or an export, one of a run's checkpoints, or a file of weights.

    Returns:
        What the metadata of the weights say, of a checkpoint those of its run's encoder; None where they are silent.
    """
    run = path.parent.parent if path.suffix == ".ckpt" else path
    for file in (path, run / ENCODER, path / EXPORTED):
        if file.suffix == ".safetensors" and file.is_file():
            return read_metadata(file).get("licence_of_start")
    return None


def spec_of_run(run: RunFolder) -> EncoderSpec:
    """Return what encoder a run trained, by its configuration.

    Raises:
        ValueError: It was no training, or the configuration is of another version.
    """
    node = OmegaConf.select(run.config, "backbone.encoder")
    grid = OmegaConf.select(run.config, "backbone.global_grid")
    if node is None or grid is None or "trainer" not in run.config:
        raise ValueError(
            f"expected the folder of a training at {run.path}, its config.yaml has no encoder or no trainer"
        )
    return EncoderSpec.configured(OmegaConf.to_container(node, resolve=True), grid)  # type: ignore[arg-type]


def _file(path: Path) -> Path:
    """Return the file of weights that a path means."""
    if not path.exists():
        raise FileNotFoundError(
            f"expected a run, an export or a file of weights at {path}, found nothing there"
        )
    if not path.is_dir():
        return _weights_alone(path)
    for name in (ENCODER, EXPORTED):
        if (path / name).is_file():
            return path / name
    if (path / "config.yaml").is_file():
        raise FileNotFoundError(
            f"expected {ENCODER} in {path}, which a run writes when it ends; this one is {RunFolder(path).state}: export its last "
            f"checkpoint with python -m paka.export run={path}, or let it end"
        )
    onnx = "; an ONNX graph is run by onnxruntime, see its README.md" if [*path.glob("*.onnx")] else ""
    raise FileNotFoundError(f"expected {ENCODER} or {EXPORTED} in {path}, found neither{onnx}")


def _weights_alone(path: Path) -> Path:
    """Return a file of one encoder's weights, which no checkpoint is.

    Raises:
        ValueError: It is another kind of file.
    """
    if path.suffix == ".safetensors":
        return path
    way = "build the encoder with paka.encoder.create_encoder(weights_file=...)"
    if path.suffix == ".ckpt":
        way = f"export one of its encoders with python -m paka.export run=RUN weights={path}"
    raise ValueError(f"expected the folder of a run or an export, or a file .safetensors, got {path}: {way}")
