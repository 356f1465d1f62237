"""Linear depth: a 1x1 convolution on frozen tokens, trained to place each patch among bins of depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.optim import CosineSchedule
from paka.protocols import Outcome, Profile, label_size
from paka.protocols.depth_errors import depth_estimate, eigen_crop

EPSILON = 1e-3
"""Metres that are added before a logarithm is taken."""

MEAN_SHARE = 0.15
"""Weight of the squared mean log error beside the variance; 0 would not see the scale at all."""

OFFSET = 0.1
"""What every bin's weight is above 0 by, so that no patch is without weight."""


@dataclass(frozen=True)
class LinearDepth:
    """How a linear depth probe is built, trained and scored.

    The defaults are the published ones, except for the half cosine to 0 that follows the warm-up.

    Attributes:
        bins: Bins of depth, evenly spaced.
        nearest: Depth of the first bin in metres.
        farthest: Depth of the last bin in metres; pixels beyond it are left out of the training.
        steps: Optimizer steps.
        warmup_steps: Of these, steps over which the learning rate rises.
        batch: Images per step.
        lr: Peak learning rate of AdamW.
        betas: Its momenta.
        weight_decay: Its weight decay.
        gradient_clip: Largest norm of the gradient.
        variance_from: Step from which on the loss has its variance term; before, it fits the scale alone.
        eigen_crop: Whether only the Eigen crop is scored.

    Raises:
        ValueError: A setting is out of range.

    Source: DINOv3 (arXiv 2508.10104), linear depth on NYU Depth V2.
    """

    bins: int = 256
    nearest: float = 0.001
    farthest: float = 10.0
    steps: int = 38_400
    warmup_steps: int = 12_800
    batch: int = 16
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    gradient_clip: float = 35.0
    variance_from: int = 100
    eigen_crop: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if min(self.bins - 1, self.steps, self.batch) < 1:
            raise ValueError(f"expected 2 bins, 1 step and a batch of 1 at least, got {self}: raise them")
        if not 0 <= self.warmup_steps < self.steps:
            message = (
                f"expected warmup_steps below steps={self.steps}, got {self.warmup_steps}: lower warmup_steps"
            )
            raise ValueError(message)
        if not 0 < self.nearest < self.farthest:
            message = f"expected 0 < nearest < farthest metres, got {self.nearest} and {self.farthest}: correct them"
            raise ValueError(message)
        if min(self.lr, self.gradient_clip) <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"expected lr and gradient_clip above 0 and no negative decay, got {self}: correct it"
            )


class DepthProbe(nn.Module):
    """Batch normalisation, a 1x1 convolution to bins of depth, and the depth expected of their weights.

    A bin's weight is ReLU(logit) + 0.1; weights are divided by their sum.

    Args:
        dim: Channels D of the tokens.
        bins: Number of bins.
        nearest: Depth of the first bin in metres.
        farthest: Depth of the last bin in metres.
        generator: Of the initial weights; None for torch's own.
    """

    depths: Tensor

    def __init__(
        self,
        dim: int,
        *,
        bins: int,
        nearest: float,
        farthest: float,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(dim)
        self.to_bins = nn.Conv2d(dim, bins, 1)
        with torch.no_grad():
            self.to_bins.weight.normal_(0.0, 0.01, generator=generator)
            cast(Tensor, self.to_bins.bias).zero_()
        self.register_buffer("depths", torch.linspace(nearest, farthest, bins))

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Return depth in metres, (n, *size), of tokens (n, h, w, D), upsampled bilinearly."""
        weights = self.to_bins(self.norm(tokens.permute(0, 3, 1, 2).float())).relu() + OFFSET
        depth = torch.einsum("nbhw,b->nhw", weights, self.depths) / weights.sum(dim=1)
        return F.interpolate(depth[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def linear_depth(train: DenseFeatures, query: DenseFeatures, profile: Profile, *, seed: int) -> Outcome:
    """Train a depth probe on frozen tokens and estimate the depth of the query images with it.

    Args:
        train: Tokens and depth that the probe is trained on.
        query: What is estimated.
        profile: Reads `depth_mean`, and the settings of kind `LinearDepth`.
        seed: Seed of the initial weights and of the order of the images.

    Raises:
        ValueError: Tokens and depth do not fit each other, or no depth is known.
    """
    settings = profile.of(LinearDepth)
    _check_pair(query.tokens, query.depth)
    probe = train_depth_probe(train.tokens, train.depth, settings, seed=seed)
    size = label_size(query)
    maps = predict_depth(probe, query.tokens, size, batch=settings.batch)
    return depth_estimate(maps, query, profile, eigen_crop(size) if settings.eigen_crop else None)


def train_depth_probe(tokens: Tensor, depth: Tensor, settings: LinearDepth, *, seed: int) -> DepthProbe:
    """Return a probe trained by AdamW with the scale-invariant log loss.

    Args:
        tokens: Tokens of the training images, (n, h, w, D) float; the probe trains where they are.
        depth: Their depth in metres, (n, H, W) float32 with 0 where it is not known.
        settings: How it is trained.
        seed: Seed of the initial weights and of the order of the images.

    Raises:
        ValueError: Tokens and depth do not fit each other, or no depth is known.
    """
    _check_pair(tokens, depth)
    if not bool((depth > 0).any()):
        raise ValueError("expected training images of known depth, got none: choose a data set with depth")
    generator = torch.Generator().manual_seed(seed)
    probe = DepthProbe(
        tokens.shape[3],
        bins=settings.bins,
        nearest=settings.nearest,
        farthest=settings.farthest,
        generator=generator,
    ).to(tokens.device)
    schedule = CosineSchedule(settings.lr, 0.0, settings.warmup_steps)
    optimizer = torch.optim.AdamW(
        probe.parameters(), betas=settings.betas, weight_decay=settings.weight_decay
    )
    chosen = torch.zeros(0, dtype=torch.int64)
    for step in range(settings.steps):
        while len(chosen) < min(settings.batch, len(tokens)):
            chosen = torch.cat([chosen, torch.randperm(len(tokens), generator=generator)])
        batch, chosen = chosen[: settings.batch], chosen[settings.batch :]
        optimizer.param_groups[0]["lr"] = schedule(step, settings.steps)
        truth = depth[batch].to(tokens.device)
        found = probe(tokens[batch], (depth.shape[1], depth.shape[2]))
        used = (truth > 0) & (truth <= settings.farthest)
        optimizer.zero_grad()
        log_loss(found, truth, used, variance=step >= settings.variance_from).backward()
        nn.utils.clip_grad_norm_(probe.parameters(), settings.gradient_clip)
        optimizer.step()
    return probe.eval()


def log_loss(prediction: Tensor, depth: Tensor, used: Tensor, *, variance: bool = True) -> Tensor:
    """Return the scale-invariant log loss over the used pixels of a batch; 0 without any.

    With g = log(prediction + eps) - log(depth + eps) it is sqrt(var(g) + 0.15 mean(g)^2).

    Args:
        prediction: Estimated depth in metres, (n, H, W).
        depth: True depth, (n, H, W).
        used: Which pixels count, (n, H, W) bool.
        variance: Whether the variance is part of it.

    Source: Eigen et al., 2014 (arXiv 1406.2283), with the weights of BTS (arXiv 1907.10326).
    """
    count = used.sum().clamp_min(1)
    # Masked, not indexed: an indexed selection would make the host wait for the device.
    error = torch.where(used, (prediction + EPSILON).log() - (depth + EPSILON).log(), 0.0)
    mean = error.sum() / count
    total = MEAN_SHARE * mean.square()
    if variance:
        total = total + torch.where(used, error - mean, 0.0).square().sum() / count
    # The root has no finite slope at 0.
    return total.clamp_min(1e-12).sqrt()


def predict_depth(
    probe: DepthProbe, tokens: Tensor, size: tuple[int, int], *, batch: int = 16
) -> Iterator[Tensor]:
    """Yield estimated depth in metres, (b, *size) float32, of tokens (n, h, w, D), some images at a time."""
    for part in tokens.split(batch):
        with torch.inference_mode():
            yield probe(part, size)


def _check_pair(tokens: Tensor, depth: Tensor) -> None:
    if tokens.ndim != 4 or depth.ndim != 3 or len(tokens) != len(depth) or not len(tokens):
        message = (
            "expected tokens (n, h, w, D) and depth (n, H, W) of at least one image, "
            f"got {tuple(tokens.shape)} and {tuple(depth.shape)}: pass both for the same images"
        )
        raise ValueError(message)
