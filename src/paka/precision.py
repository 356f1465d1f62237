"""Full precision for the arithmetic that must not run in half precision."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def training_precision(precision: str, accelerator: str) -> str:
    """Return the precision to train with, in Lightning's words.

    `auto` stands for `bf16-mixed` where the hardware multiplies matrices of bfloat16, and `32-true` elsewhere: a processor
    that has to emulate it takes ten times as long.

    Args:
        precision: `auto`, or what it is.
        accelerator: Lightning's name for what is trained on; `auto` prefers a GPU.
    """
    if precision != "auto":
        return precision
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = accelerator in ("auto", "cpu") and (
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
    return "bf16-mixed" if fast else "32-true"


def in_float32(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function of tensors run in float32 with autocast disabled.

    Half-precision tensor arguments arrive as float32; float64 stays float64, so that gradients can be
    checked. `.float()` alone would not do: inside autocast, a product of float32 matrices is still computed
    in half precision.

    Args:
        function: a function with at least one tensor among its arguments.

    Returns:
        The same function, in full precision.
    """

    @functools.wraps(function)
    def full_precision(*args: P.args, **kwargs: P.kwargs) -> R:
        widened: Any = [_widen(value) for value in args]
        options: Any = {name: _widen(value) for name, value in kwargs.items()}
        with torch.autocast(device_type=_device_type([*args, *kwargs.values()]), enabled=False):
            return function(*widened, **options)

    return full_precision


def _widen(value: object) -> object:
    """Return half-precision tensors as float32 and everything else as it is."""
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value


def _device_type(values: Iterable[object]) -> str:
    """Return the device type of the first tensor among `values`."""
    for value in values:
        if isinstance(value, Tensor):
            return value.device.type
    raise TypeError("expected at least one tensor argument, got none")
