"""Linear segmentation: a 1x1 convolution on frozen tokens, trained with labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.protocols import Outcome, Profile, label_size, segmentation, upsampled_argmax
from paka.sources import VOID

IMAGES = 16
"""Images segmented at a time."""

DECAY_AT = 0.8
"""Share of the epochs after which the learning rate drops to a tenth."""


def linear(train: DenseFeatures, query: DenseFeatures, profile: Profile, *, seed: int) -> Outcome:
    """Train a linear probe on the training tokens and segment the query images with it.

    The field upsamples features and then applies the probe. Bilinear weights sum to 1 and mix positions,
    the probe mixes channels, so the two commute: logits are computed on the token grid and upsampled, which is
    the same and far cheaper.

    Args:
        train: Tokens and labels the probe is trained on.
        query: What is segmented.
        profile: Reads the `linear_*` settings.
        seed: Seed of the initialisation and of the order of the images.
    """
    probe = train_probe(train, profile, seed=seed)
    size = label_size(query)
    with torch.inference_mode():
        maps = (
            upsampled_argmax(probe(tokens.float().permute(0, 3, 1, 2)), size)
            for tokens in query.tokens.split(IMAGES)
        )
        return segmentation(maps, query, profile)


def train_probe(train: DenseFeatures, profile: Profile, *, seed: int) -> nn.Conv2d:
    """Return a 1x1 convolution trained by SGD with cross-entropy at `linear_resolution`."""
    generator = torch.Generator().manual_seed(seed)
    probe = _initial_probe(train.tokens.shape[-1], train.num_classes, generator)
    optimizer = torch.optim.SGD(
        probe.parameters(),
        lr=profile.linear_lr,
        momentum=profile.linear_momentum,
        weight_decay=profile.linear_weight_decay,
    )
    tokens, labels = train.tokens.permute(0, 3, 1, 2), _resized(train.labels, profile.linear_resolution)
    for epoch in range(profile.linear_epochs):
        if epoch == int(DECAY_AT * profile.linear_epochs):
            optimizer.param_groups[0]["lr"] *= 0.1
        for batch in torch.randperm(len(tokens), generator=generator).split(profile.linear_batch):
            logits = F.interpolate(probe(tokens[batch].float()), size=labels.shape[1:], mode="bilinear")
            loss = F.cross_entropy(logits, labels[batch].long(), ignore_index=VOID)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return probe


def _initial_probe(dim: int, classes: int, generator: torch.Generator) -> nn.Conv2d:
    probe = nn.Conv2d(dim, classes, 1)
    with torch.no_grad():
        probe.weight.normal_(0.0, 0.01, generator=generator)
        probe.bias.zero_()  # type: ignore[union-attr]
    return probe


def _resized(labels: Tensor, side: int) -> Tensor:
    return F.interpolate(labels[:, None], size=(side, side), mode="nearest-exact")[:, 0]
