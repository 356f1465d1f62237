"""Any function of images that returns one token per patch, in the place of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from paka.encoder import Encoder
from paka.image_transform import ImageTransform
from paka.modes import in_evaluation
from paka.weights import Transformer

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of red, green and blue that most encoders were trained with, for pixels in [0, 1]."""


class PatchFeatures(Encoder):
    """A function of images `(B, 3, H, W) -> (B, N, D)`, of one token per patch row by row, as an encoder.

    It can be scored by every protocol that reads frozen tokens (`paka.probing.score`) and, if it is a module, be
    post-trained (`paka.patch_alignment.PatchAlignment`).

        >>> patches = nn.Sequential(nn.Conv2d(3, 16, 8, stride=8), nn.Flatten(2))
        >>> tokens = PatchFeatures(lambda images: patches(images).transpose(1, 2), patch_size=8)
        >>> tokens(torch.zeros(2, 3, 32, 48, dtype=torch.uint8)).patches.shape
        torch.Size([2, 4, 6, 16])

    With timm, `lambda images: vit.forward_features(images)[:, vit.num_prefix_tokens :]` is such a function.

    Args:
        function: The function, or a module. It gets float32 pixels less `mean`, over `std`, and images of several shapes,
            each side in whole patches. Of a module, parameters and mode are this encoder's; of a function, they are its own
            affair.
        patch_size: Side of a patch in pixels.
        mean: Mean per channel to take off pixels in [0, 1].
        std: Standard deviation per channel to divide by.
        size: Side in pixels of the one blank image that is tried at once, to find D; about that in whole patches.
        device: Where images are brought, and a module with them; None for where a module's parameters are, and for the CPU
            otherwise. A function around a model on a GPU needs it.

    Raises:
        ValueError: What comes back is not one token per patch.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        *,
        patch_size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        size: int = 224,
        device: torch.device | str | None = None,
    ) -> None:
        model = function if isinstance(function, nn.Module) else _Function(function)
        super().__init__(cast(Transformer, model), mean=tuple(mean), std=tuple(std))
        self._patch_size, self._size = patch_size, size
        if device is None and (held := next(model.parameters(), None)) is not None:
            device = held.device
        self.to(device)
        side = max(size // patch_size, 1) * patch_size
        blank = torch.zeros(1, 3, side, side, device=self.device)
        with in_evaluation(self), torch.no_grad():
            self._dim = int(self.flat_tokens(blank)[0].shape[-1])

    def normalised_by(self, *, blue_std: float) -> PatchFeatures:
        """Return the same that divides blue by another standard deviation, in [0, 1]."""
        mean, std = ((cast(Tensor, side).flatten() / 255.0).tolist() for side in (self.mean, self.std))
        function = cast(Callable[[Tensor], Tensor], self.model)
        return PatchFeatures(
            function,
            patch_size=self._patch_size,
            mean=mean,
            std=[*std[:2], blue_std],
            size=self._size,
            device=self.device,
        ).train(self.training)

    @cached_property
    def transform(self) -> ImageTransform:
        """What makes its input of a picture: of the size that was tried, in whole patches."""
        return ImageTransform(self.patch_size, max(self._size // self.patch_size, 1) * self.patch_size)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self._patch_size

    @property
    def dim(self) -> int:
        """Channels D of a token."""
        return self._dim

    @property
    def licence(self) -> str:
        """Nothing is known of a licence."""
        return "unknown"

    @property
    def native_size(self) -> tuple[int, int]:
        """Height and width in pixels of the image that was tried."""
        return self._size, self._size

    @property
    def has_class_token(self) -> bool:
        """There are tokens of patches alone."""
        return False

    @property
    def has_blocks(self) -> bool:
        """It is a function: nothing is known of its parts."""
        return False

    def flat_tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return patch tokens (B, N, D), and no prefix tokens (B, 0, D)."""
        pixels = (images.float() - cast(Tensor, self.mean)) / cast(Tensor, self.std)
        tokens: Tensor = cast(nn.Module, self.model)(pixels)
        rows, columns = (side // self._patch_size for side in images.shape[-2:])
        shape = tuple(getattr(tokens, "shape", ()))
        if len(shape) != 3 or shape[:2] != (len(images), rows * columns):
            raise ValueError(
                f"expected tokens ({len(images)}, {rows * columns}, D) of images {tuple(images.shape)}, one for each patch "
                f"of {self._patch_size} pixels, got {shape or type(tokens).__name__}: leave out class and register tokens, "
                "and put channels last"
            )
        return tokens, tokens[:, :0]


class _Function(nn.Module):
    """A plain function as a module without parameters."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        """Call it."""
        return self.function(images)
