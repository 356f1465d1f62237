"""Label-free post-training that improves the dense features of pretrained vision transformers."""

import importlib
import os
from typing import Any

# Albumentations asks the network for news of itself at import unless this is set before.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

_PUBLIC = {
    "MultiCrop": "paka.views",
    "PaKA": "paka.objectives.paka",
    "PatchAlignment": "paka.patch_alignment",
    "PatchFeatures": "paka.patch_features",
    "preset": "paka.presets",
    "score": "paka.probing",
}
"""What can be had from here, and the modules it lives in, which are imported when it is asked for (PEP 562)."""

__all__ = [*_PUBLIC]  # noqa: PLE0604 - names, all of them


def __getattr__(name: str) -> Any:
    """Import what is asked for by name."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """Name what can be had, too."""
    return sorted([*globals(), *_PUBLIC])
