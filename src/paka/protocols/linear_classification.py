"""The linear probe of the global token: logistic regression on frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from paka.precision import in_float32
from paka.protocols import Outcome
from paka.protocols.classification import check_truth, held_out, loss, outcome

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""L2 strengths that are tried."""

ITERATIONS = 500
"""L-BFGS iterations at most."""


class Standard(NamedTuple):
    """How features are standardised.

    Attributes:
        mean: (D,) float32.
        deviation: (D,) float32 above 0.
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, mean: Tensor, deviation: Tensor) -> Standard:
        """Return what standardises by mean and deviation, (D,); a channel that does not vary is only centred."""
        varies = deviation > 1e-6 * torch.maximum(deviation.max(), mean.abs())
        return cls(mean.float(), torch.where(varies, deviation, torch.ones_like(deviation)).float())

    def __call__(self, features: Tensor) -> Tensor:
        """Return features (..., D) with mean 0 and deviation 1 where they were fitted, float32."""
        return (features.float() - self.mean) / self.deviation


class LogisticRegression(NamedTuple):
    """A linear classifier of standardised features.

    Attributes:
        standard: How features are standardised.
        weight: (C, D) float32.
        bias: (C,) float32.
    """

    standard: Standard
    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Return logits (n, C) of features (n, D)."""
        return self.standard(features) @ self.weight.T + self.bias


def linear_classification(
    train: Tensor,
    truth: Tensor,
    query: Tensor,
    query_truth: Tensor,
    *,
    classes: int,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
) -> Outcome:
    """Train logistic regression on global tokens and score it on the query images.

    The L2 strength is the one of the least cross-entropy on a held-out tenth of the training images; the
    query's truth is read only to score. The probe is then fitted to all training images.

    Args:
        train: Global tokens, (n, D).
        truth: Labels (n,) int64, or tags (n, classes) bool.
        query: Global tokens, (m, D).
        query_truth: Likewise.
        classes: Number of classes, or of tags.
        seed: Seed of the tenth.
        strengths: L2 strengths to choose from.

    Returns:
        See `paka.protocols.classification.outcome`.

    Raises:
        ValueError: A truth does not fit, there are fewer than 2 training images, or no strength above 0.
    """
    check_truth(truth, len(train), classes)
    check_truth(query_truth, len(query), classes)
    strength = choose_strength(train, truth, classes=classes, seed=seed, strengths=strengths)
    return outcome(fit_logistic(train, truth, classes, strength)(query), query_truth)


def choose_strength(
    train: Tensor, truth: Tensor, *, classes: int, seed: int, strengths: Sequence[float] = STRENGTHS
) -> float:
    """Return the L2 strength with the least cross-entropy on a held-out tenth of the training images.

    Raises:
        ValueError: There are fewer than 2 images, or no strength above 0.
    """
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"expected L2 strengths above 0, got {list(strengths)}: name at least one")
    fit, held = held_out(len(train), seed)
    losses = []
    for strength in strengths:
        probe = fit_logistic(train[fit], truth[fit], classes, strength)
        losses.append(float(loss(probe(train[held]), truth[held])))
    return strengths[losses.index(min(losses))]


def standard_of(features: Tensor) -> Standard:
    """Return mean and deviation per channel of features (n, D)."""
    wide = features.double()
    return Standard.of(wide.mean(dim=0), wide.std(dim=0, correction=0))


def token_standard(
    tokens: Tensor, valid: Tensor | None = None, images: Tensor | None = None, *, batch: int = 128
) -> Standard:
    """Return mean and deviation per channel of the tokens that count, without a wide copy of them all.

    Args:
        tokens: (n, N, D).
        valid: Which count, (n, N) bool; None for all.
        images: Numbers of the images whose tokens do, (m,) int64; None for all.
        batch: Images at a time.
    """
    dim = tokens.shape[2]
    count, total, squares = 0, torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dtype=torch.float64)
    for part in (torch.arange(len(tokens)) if images is None else images).split(batch):
        wide = (tokens[part].flatten(0, 1) if valid is None else tokens[part][valid[part]]).double()
        count, total, squares = count + len(wide), total + wide.sum(dim=0), squares + wide.square().sum(dim=0)
    mean = total / max(count, 1)
    return Standard.of(mean, (squares / max(count, 1) - mean.square()).clamp_min(0).sqrt())


@in_float32
def fit_logistic(features: Tensor, truth: Tensor, classes: int, strength: float) -> LogisticRegression:
    """Minimise the mean cross-entropy plus half `strength` times the squared norm of the weights.

    Features are standardised first; the bias is not penalised. Full-batch L-BFGS from zero, so no seed enters. Tags are
    independent logistic regressions of the same strength.

    Args:
        features: (n, D).
        truth: Labels (n,) int64 or tags (n, classes) bool.
        classes: Number of classes C, or of tags.
        strength: Above 0; 1 / (C n) for the inverse strength C of other libraries.
    """
    standard = standard_of(features)
    weight, bias = least_loss([(standard(features), truth)], classes, strength, device=features.device)
    return LogisticRegression(standard, weight, bias)


def least_loss(
    batches: Sequence[tuple[Tensor, Tensor]],
    classes: int,
    strength: float,
    *,
    device: torch.device,
    iterations: int = ITERATIONS,
) -> tuple[Tensor, Tensor]:
    """Return weights (C, D) and bias (C,) of the logistic regression of all batches together, see `fit_logistic`.

    The gradient is that of all samples, summed over the batches: one batch at a time is on the device and in float32.

    Args:
        batches: Standardised features (b, D) float, and their truth: labels (b,) or tags (b, C) bool.
        classes: Number of classes C, or of tags.
        strength: Above 0.
        device: Where to compute.
        iterations: L-BFGS iterations at most.
    """
    count = sum(len(inputs) for inputs, _ in batches)
    weight = torch.zeros(classes, batches[0][0].shape[1], device=device, requires_grad=True)
    bias = torch.zeros(classes, device=device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=iterations,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = 0.5 * strength * weight.square().sum()
        penalty.backward()
        total = penalty.detach()
        for inputs, truth in batches:
            logits = inputs.to(device, torch.float32) @ weight.T + bias
            part = loss(logits, truth.to(device)) * (len(inputs) / count)
            part.backward()
            total = total + part.detach()
        return total

    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        optimizer.step(closure)
    return weight.detach(), bias.detach()
