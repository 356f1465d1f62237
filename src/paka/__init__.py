"""Label-free post-training that improves the dense features of pretrained vision transformers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from paka.encoder import Encoder

__all__ = ["load"]

# Albumentations asks the network for news of itself at import unless this is set before.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


def load(path: str | Path) -> Encoder:
    """Return a post-trained encoder in evaluation mode, ready for pictures.

    `encoder = paka.load("RUN"); tokens = encoder(encoder.transform("photo.jpg")).patches` gives (1, H, W, D).

    Args:
        path: Folder of a run, folder of an export (but ONNX), or a file such as `RUN/encoder.safetensors`.

    Raises:
        FileNotFoundError: There is no such file or folder, or no encoder in it.
        ValueError: The weights are damaged, were changed, or do not say of what encoder they are.
    """
    from paka.loading import load as loaded  # brings torch, which `import paka` need not wait for

    return loaded(path)
