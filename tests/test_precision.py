"""Full precision under autocast and for half-precision arguments."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from paka.precision import in_float32, training_precision


@in_float32
def product(a: Tensor, b: Tensor, *, scale: Tensor | float = 1.0) -> Tensor:
    """Multiply two matrices."""
    return a @ b * scale


def test_matrix_products_leave_autocast() -> None:
    a, b = torch.randn(8, 64), torch.randn(64, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a.float() @ b.float()).dtype == torch.bfloat16  # what the decorator is for
        inside = product(a, b=b)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, a @ b)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_half_precision_is_widened_and_double_stays(dtype: torch.dtype, expected: torch.dtype) -> None:
    a = torch.randn(4, 4).to(dtype)
    assert product(a, b=a, scale=torch.ones((), dtype=dtype)).dtype == expected


def test_gradients_return_in_the_dtype_of_the_argument() -> None:
    a = torch.randn(4, 4, dtype=torch.bfloat16, requires_grad=True)
    (gradient,) = torch.autograd.grad(product(a, a).sum(), a)
    assert gradient.dtype == torch.bfloat16


def test_name_and_documentation_are_kept() -> None:
    assert product.__name__ == "product"
    assert product.__doc__ == "Multiply two matrices."


def test_a_call_without_tensors_is_refused() -> None:
    with pytest.raises(TypeError, match="at least one tensor"):
        product(1, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("precision", "accelerator", "processor", "expected"),
    [
        ("auto", "cpu", True, "bf16-mixed"),
        ("auto", "cpu", False, "32-true"),
        ("auto", "auto", False, "32-true"),
        ("auto", "mps", True, "32-true"),
        ("bf16-mixed", "cpu", False, "bf16-mixed"),
        ("32-true", "cpu", True, "32-true"),
    ],
)
def test_auto_is_bfloat16_only_where_the_hardware_has_it(
    precision: str, accelerator: str, processor: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: processor)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert training_precision(precision, accelerator) == expected


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_asks_the_gpu_that_is_trained_on(
    native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert training_precision("auto", "auto") == expected
