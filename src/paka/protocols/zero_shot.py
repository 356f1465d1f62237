"""Zero-shot classification: whether an image tower still understands the text tower that it was trained with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from paka.encoder import Encoder
from paka.features import DenseFeatures
from paka.progress import tracked
from paka.protocols import Outcome, Profile
from paka.protocols.classification import image_names, image_truth, outcome
from paka.protocols.joint_space import JointSpace, open_joint_space

IMAGES = 64
"""Images whose tokens are pooled at a time."""


@dataclass(frozen=True)
class ZeroShot:
    """Which text tower reads the names of the classes, and in which prompts.

    Attributes:
        model: A name of open_clip's, or a folder with `open_clip_config.json` and weights; None leaves the protocol out.
        weights: The model's checkpoint; None where `model` is a folder, which holds its own.
        templates: Prompts with `{}` in place of the name; what they say of an image is averaged.

    Raises:
        ValueError: There is no template, or one has not `{}` once.

    Source: Radford et al. 2021 (arXiv 2103.00020), section 3.1.4, for the template; Zhai et al. 2023 (arXiv 2303.15343)
    for SigLIP, which is asked in the same way.
    """

    model: str | None = None
    weights: str | None = None
    templates: Sequence[str] = ("a photo of a {}.",)

    def __post_init__(self) -> None:
        """Refuse prompts that do not name anything."""
        for template in self.templates or ("",):
            if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
                message = f"expected templates with {{}} once, as 'a photo of a {{}}.', got {template!r}: correct it"
                raise ValueError(message)

    @property
    def files(self) -> list[Path]:
        """The files that it names, as far as they are there."""
        named = [Path(name).expanduser() for name in (self.model, self.weights) if name is not None]
        return [file for path in named for file in (path, *sorted(path.glob("*"))) if file.is_file()]


def zero_shot(train: DenseFeatures | None, query: DenseFeatures, profile: Profile, *, seed: int) -> Outcome:
    """Score how near each image is to its classes' names among all, in the joint space of an image-text model.

    Images are those of the encoder under test, whole and at the profile's size; of the model's own image tower only the
    last step is used, which takes tokens to the joint space.

    Args:
        train: Not used: nothing is trained.
        query: What is scored, by its tags, or the classes of its masks.
        profile: Reads the settings of kind `ZeroShot`.
        seed: Not used: nothing is random.

    Raises:
        ValueError: No model is set, names of the classes are missing, or tokens are of another width.
        FileNotFoundError: See `paka.protocols.joint_space.open_joint_space`.

    Source: Radford et al. 2021 (arXiv 2103.00020), section 3.1.
    """
    del train, seed
    settings, ((truth,), classes) = profile.of(ZeroShot), image_truth(query)
    names = image_names(query)
    if len(names) != classes:
        message = (
            f"expected names of the {classes} classes, got {len(names)}: choose a benchmark that names them"
        )
        raise ValueError(message)
    space = _space(settings, query.workspace.device)
    texts = space.texts(names, settings.templates)
    scores = torch.cat([(part @ texts.T).cpu() for part in _images(space, query)])
    note = f"text tower {space.name}; {len(settings.templates)} x prompted"
    return outcome(scores, truth, {"note": note})


def ready(profile: Profile, encoder: Encoder) -> str | None:
    """Return why there is nothing to score: no model is set, or its image tower is another encoder's; else None.

    Raises:
        ValueError: As for `paka.protocols.joint_space.open_joint_space`; likewise FileNotFoundError.
    """
    settings = profile.of(ZeroShot)
    if settings.model is None:
        return "set profile.settings.zero_shot.model and .weights to the open_clip model whose image tower this encoder is"
    return _space(settings, torch.device("cpu")).mismatch(encoder)


def _space(settings: ZeroShot, device: torch.device) -> JointSpace:
    if settings.model is None:
        raise ValueError(
            "expected the name of an open_clip model, got none: set profile.settings.zero_shot.model"
        )
    return open_joint_space(settings.model, settings.weights, device)


def _images(space: JointSpace, query: DenseFeatures) -> Iterator[Tensor]:
    """Yield where consecutive images are in the joint space, (b, E)."""
    device = query.workspace.device
    starts = range(0, len(query), IMAGES)
    for start in tracked(starts, len(starts)):
        rows = slice(start, start + IMAGES)
        valid = None if query.valid is None else query.valid[rows].flatten(1).to(device)
        yield space.images(query.globals[rows].to(device), query.tokens[rows].flatten(1, 2).to(device), valid)
