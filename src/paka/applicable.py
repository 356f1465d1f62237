"""Which protocols fit: labelled images have what they read, and the encoder serves them."""

from __future__ import annotations

from collections.abc import Mapping

from paka.encoder import Encoder
from paka.protocols import Entry, Profile
from paka.sources import Source


def applicable(
    entries: Mapping[str, Entry],
    train: Source | None,
    query: Source,
    encoder: Encoder,
    profile: Profile,
    *,
    changed: bool = False,
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the protocols that fit the images, the encoder and the settings, and for the others why they do not.

    Args:
        entries: Protocols by name.
        train: Labelled training images; None where there are none.
        query: Images that are to be scored.
        encoder: What is to be scored.
        profile: Settings.
        changed: Whether tokens are changed once they are made.
    """
    has = {
        "images": True,
        "masks": bool(query.classes),
        "background": query.classes[:1] == ("background",),
        "depth": query.has_depth,
        "tags": bool(query.tag_names or query.classes),
        "keypoints": bool(query.pairs),
        "objects": bool(query.videos),
    }
    skipped = {}
    for name, entry in entries.items():
        if not has[entry.reads]:
            what = "masks of classes" if entry.reads == "masks" else entry.reads
            skipped[name] = f"{query.name} has no {what}"
        elif entry.trains and train is None:
            skipped[name] = f"{query.name} has no labelled training images"
        elif entry.attends and not encoder.has_class_token:
            skipped[name] = "the encoder has no class token whose attention could be read"
        elif changed and entry.views == "own":
            skipped[name] = "it encodes images itself, so their tokens cannot be changed by features="
        elif (entry.views == "own" or entry.ready is not None) and not encoder.has_blocks:
            skipped[name] = "it builds on the encoder's blocks, and a function of images has none"
        elif entry.ready is not None and (reason := entry.ready(profile, encoder)) is not None:
            skipped[name] = reason
    return {name: entry for name, entry in entries.items() if name not in skipped}, skipped


def check_some(protocols: dict[str, Entry], skipped: dict[str, str], images: Source) -> None:
    """Raise unless there is a protocol to run.

    Raises:
        ValueError: There is none.
    """
    if not protocols:
        known = {
            "dense": images.classes,
            "depth": images.has_depth,
            "correspondence": images.pairs,
            "label_propagation": images.videos,
        }
        fitting = next((name for name, there in known.items() if there), "all")
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        message = f"eval: expected protocols that fit, got none ({reasons}): set eval={fitting}"
        raise ValueError(message)
