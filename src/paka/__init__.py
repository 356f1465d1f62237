"""Label-free post-training that improves the dense features of pretrained vision transformers."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paka.loading import load
    from paka.objectives.paka import PaKA
    from paka.patch_alignment import PatchAlignment
    from paka.patch_features import PatchFeatures
    from paka.presets import preset
    from paka.probing import score
    from paka.views import MultiCrop

__all__ = ["MultiCrop", "PaKA", "PatchAlignment", "PatchFeatures", "load", "preset", "score"]

# Albumentations asks the network for news of itself at import unless this is set before.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

_HOME = {
    "MultiCrop": "paka.views",
    "PaKA": "paka.objectives.paka",
    "PatchAlignment": "paka.patch_alignment",
    "PatchFeatures": "paka.patch_features",
    "load": "paka.loading",
    "preset": "paka.presets",
    "score": "paka.probing",
}
"""The modules that public names live in, which are imported when they are asked for (PEP 562)."""


def __getattr__(name: str) -> Any:
    """Import what is asked for by name."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """Name what can be had, too."""
    return sorted({*globals(), *_HOME})
