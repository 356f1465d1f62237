"""The class token's attention in a transformer's last block, read while it encodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class LastAttention(TorchFunctionMode):
    """Within this context, remember what the last attention compared: `with LastAttention() as last: encoder(x)`.

    timm computes attention by one function of torch, whatever the model does to queries and keys before (norms, rotary
    positions), so that is where they are read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.compared: tuple[Tensor, Tensor, float] | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call what was called, and look on."""
        del types
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query, key = args[:2]
            self.compared = query[:, :, :1], key, kwargs.get("scale") or query.shape[-1] ** -0.5
        return func(*args, **kwargs)

    def of_class_token(self, prefix: int) -> Tensor:
        """Return the attention of the first token to the patches, averaged over the heads, (B, N) float32.

        Args:
            prefix: Class and register tokens before the patches, at least 1.

        Raises:
            ValueError: There is no class token, or no attention was seen.
        """
        if prefix < 1 or self.compared is None:
            raise ValueError(
                "expected an encoder with a class token whose attention is torch's own, got none: choose another backbone"
            )
        query, key, scale = self.compared
        weights = (scale * query.float() @ key.float().transpose(-2, -1)).softmax(dim=-1)
        return torch.as_tensor(weights[:, :, 0, prefix:].mean(dim=1))
