"""ONNX: uint8 pictures in, patch tokens and class token out, compared with torch by onnxruntime."""

from __future__ import annotations

import copy
import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from paka.encoder import Encoder
from paka.formats import Export, Format, Written, check_difference
from paka.positions import Resampling, resampling_of
from paka.resampling_matrix import resample

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 1_800_000_000
"""Bytes of weights that still go into the graph's own file, whose format ends at 2 GB."""

LOADING = """
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{name}")
image = Image.open("image.jpg").convert("RGB").resize(({width}, {height}))  # {sides}
images = np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)[None]  # (1, 3, H, W), not normalised
{outputs} = session.run(None, {{"images": images}})  # (1, N, D) row by row{rank}
"""


class Graph(nn.Module):
    """An encoder as a function of one tensor that returns tensors.

    Args:
        encoder: The encoder.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return patch tokens (B, N, D) and, if there is one, the class token (B, D) of pictures (B, 3, H, W) uint8."""
        patches, prefix = self.encoder.flat_tokens(images)
        return (patches, prefix[:, 0]) if self.encoder.has_class_token else (patches,)


def refusal(export: Export) -> str | None:
    """Return what is missing to write ONNX, or that a size does not fit; None if all is there."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return f"it takes {', '.join(missing)}: install the extra `onnx`"
    patch = export.encoder.patch_size
    unfit = [size for size in export.sizes or () if any(side % patch for side in size)]
    return f"sizes are multiples of the patch, {patch}, and {unfit[0]} is not" if unfit else None


def write(export: Export, folder: Path) -> Written:
    """Write one graph for all sizes, or one for each that was asked for, and compare them with torch."""
    graph = Graph(copy.deepcopy(export.encoder)).eval()
    first = export.image_size, export.image_size
    if export.sizes is None:
        try:
            _save(export, graph, folder / "model.onnx", first, dynamic=True)
        except RuntimeError as error:  # torch's exporters raise many kinds of it
            reason = str(error).strip().splitlines()[0]
            return _fixed(
                export,
                graph,
                folder,
                [first, _second(export)],
                f"No graph for all sizes could be made ({reason}); ",
            )
        sizes = {first: 1, _second(export): 2}
        found = {size: _compare(export, folder / "model.onnx", size, count) for size, count in sizes.items()}
        return _written(
            export,
            found,
            "model.onnx",
            "height and width are multiples of {patch}",
            "The batch, height and width are free",
        )
    return _fixed(export, graph, folder, export.sizes, "")


def _fixed(export: Export, graph: Graph, folder: Path, sizes: Any, why: str) -> Written:
    """Write and compare a graph for each size."""
    found = {}
    for size in sizes:
        name = _name(size)
        _save(export, graph, folder / name, size, dynamic=False)
        found[size] = _compare(export, folder / name, size, 2)
    names = ", ".join(f"`{_name(size)}`" for size in sizes)
    return _written(
        export,
        found,
        _name(sizes[0]),
        "the graph's height and width",
        f"{why}The batch is free, height and width are those in the name of the file ({names})",
    )


def _name(size: tuple[int, int]) -> str:
    return f"model_{size[0]}x{size[1]}.onnx"


def _second(export: Export) -> tuple[int, int]:
    """Return a size of another shape than the first."""
    grid, patch = export.spec.grid, export.encoder.patch_size
    return max(grid * 3 // 4, 1) * patch, (grid * 5 // 4 + 1) * patch


def _written(export: Export, found: Any, name: str, sides: str, free: str) -> Written:
    """Return what the model card says."""
    height, width = next(iter(found))
    has_class = export.encoder.has_class_token
    said = ", ".join(f"{size[0]} x {size[1]}: {difference:.2g}" for size, difference in found.items())
    loading = LOADING.format(
        name=name,
        width=width,
        height=height,
        sides=sides.format(patch=export.encoder.patch_size),
        outputs="patch_tokens, class_token" if has_class else "(patch_tokens,)",
        rank=" and (1, D)" if has_class else "",
    )
    outputs = "`patch_tokens` (B, N, D), row by row" + (", and `class_token` (B, D)" if has_class else "")
    return Written(
        "onnx",
        loading.strip(),
        f"onnxruntime against torch, largest difference of any token at each size in pixels: {said}.",
        [
            f"Input `images` (B, 3, H, W) uint8, RGB; pixels are normalised inside the graph. Outputs {outputs}. Opset {export.opset}.",
            f"{free}.",
        ],
    )


def _save(export: Export, graph: Graph, path: Path, size: tuple[int, int], *, dynamic: bool) -> None:
    """Write a graph, of any or of one size."""
    patch = export.encoder.patch_size
    dimensions: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    if dynamic:
        rows, columns = (torch.export.Dim(name, min=1) for name in ("rows", "columns"))
        dimensions |= {2: patch * rows, 3: patch * columns}
    names = ["patch_tokens", "class_token"][: 1 + export.encoder.has_class_token]
    with _exportable_positions(graph.encoder), _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            graph,
            (export.picture(size, count=2),),
            dynamo=True,
            opset_version=export.opset,
            input_names=["images"],
            output_names=names,
            dynamic_shapes={"images": dimensions},
            verbose=False,
        )
    tokens = program.model.graph.outputs[0]
    tokens.shape = type(tokens.shape)(["batch", "patches" if dynamic else tokens.shape[1], tokens.shape[2]])
    bytes_of_weights = sum(value.numel() * value.element_size() for value in graph.parameters())
    program.save(path, external_data=bytes_of_weights > LARGEST)


@contextmanager
def _exportable_positions(encoder: Encoder) -> Iterator[None]:
    """Resample positions by matrices meanwhile: ONNX has no antialiased bicubic filter for sizes that only the run tells."""
    model: Any = encoder.model
    module: Any = sys.modules[type(model).__module__]
    resampling, hooks = resampling_of(model), model.patch_embed._forward_hooks
    own, kept = module.resample_abs_pos_embed, dict(hooks)

    def replacement(
        posemb: Tensor, new_size: Any, old_size: Any, num_prefix_tokens: int = 1, **_: Any
    ) -> Tensor:
        return _resampled(posemb, tuple(old_size), tuple(new_size), num_prefix_tokens, resampling)

    module.resample_abs_pos_embed = replacement
    hooks.clear()  # theirs adds what timm's resampling lacks
    try:
        yield
    finally:
        module.resample_abs_pos_embed = own
        hooks.update(kept)


def _resampled(
    positions: Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int, resampling: Resampling
) -> Tensor:
    """Return positions on another grid, those of prefix tokens as they are."""
    return torch.cat([positions[:, :prefix], resample(positions[:, prefix:], old, new, resampling)], dim=1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave the terminal alone: torch's exporter tells its developers much that no user can change."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _compare(export: Export, path: Path, size: tuple[int, int], count: int) -> float:
    """Return the largest difference between onnxruntime's tokens and torch's for `count` pictures of a size.

    Raises:
        ValueError: It is too large.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = export.picture(size, count=count)
    with torch.inference_mode():
        expected = Graph(export.encoder)(images)
    found = session.run(None, {"images": images.numpy()})
    what = f"{path.name} at {size[0]} x {size[1]}"
    return max(
        check_difference(torch.from_numpy(theirs), ours, what)
        for theirs, ours in zip(cast(Any, found), expected, strict=True)
    )


FORMAT = Format("ONNX", refusal, write)
