"""Image-level protocols of frozen features: tags of images, or which classes their masks show."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from paka.features import DenseFeatures
from paka.protocols import Outcome, Profile
from paka.protocols.attentive_probe import AttentiveSettings, attentive_classification
from paka.protocols.classification import image_truth
from paka.protocols.knn_classification import TEMPERATURE, knn_classification
from paka.protocols.linear_classification import linear_classification


@dataclass(frozen=True)
class Knn:
    """Settings of the k-NN classification.

    Attributes:
        k: Neighbours, at most the number of training images.
        temperature: Of the weights of their votes, above 0.

    Raises:
        ValueError: A number is out of range.

    Source: Wu et al. 2018 (arXiv 1805.01978); Caron et al. 2021 (arXiv 2104.14294), whose best k is 20.
    """

    k: int = 20
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        """Refuse what cannot vote."""
        if self.k < 1 or not self.temperature > 0:
            raise ValueError(f"expected k of at least 1 and a temperature above 0, got {self}: raise them")


def global_knn(train: DenseFeatures, query: DenseFeatures, profile: Profile, *, seed: int) -> Outcome:
    """Score a weighted vote of the nearest training images, by the global token; nothing is random.

    Args:
        train: Whose images vote.
        query: What is scored.
        profile: Reads the settings of kind `Knn`.
        seed: Not used.

    Raises:
        ValueError: See `paka.protocols.knn_classification.knn`.
    """
    del seed
    settings, ((truth, query_truth), classes) = profile.of(Knn), image_truth(train, query)
    return knn_classification(
        train.globals,
        truth,
        query.globals,
        query_truth,
        classes=classes,
        k=settings.k,
        temperature=settings.temperature,
    )


def global_linear(train: DenseFeatures, query: DenseFeatures, profile: Profile, *, seed: int) -> Outcome:
    """Score logistic regression on the global token; its strength is chosen on a held-out tenth of `train`.

    Args:
        train: What is fitted.
        query: What is scored.
        profile: Not used.
        seed: Seed of the tenth.

    Raises:
        ValueError: There are fewer than 2 training images.
    """
    del profile
    (truth, query_truth), classes = image_truth(train, query)
    return linear_classification(train.globals, truth, query.globals, query_truth, classes=classes, seed=seed)


def attentive(train: DenseFeatures, query: DenseFeatures, profile: Profile, *, seed: int) -> Outcome:
    """Score a probe that attends to the patch tokens of each image.

    Args:
        train: What is fitted.
        query: What is scored.
        profile: Reads the settings of kind `AttentiveSettings`.
        seed: Seed of the probe and of the tenth that its learning rate is chosen on.

    Raises:
        ValueError: There are fewer than 2 training images, or heads do not divide the channels.
    """
    (truth, query_truth), classes = image_truth(train, query)
    return attentive_classification(
        train.tokens.flatten(1, 2),
        truth,
        query.tokens.flatten(1, 2),
        query_truth,
        classes=classes,
        seed=seed,
        settings=profile.of(AttentiveSettings),
        valid=(_own(train), _own(query)),
    )


def _own(features: DenseFeatures) -> Tensor | None:
    return None if features.valid is None else features.valid.flatten(1)
