"""The attentive probe: a learnt query gathers an image's patch tokens by cross-attention, a linear layer classifies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paka.protocols import Outcome
from paka.protocols.classification import check_truth, held_out, loss, outcome
from paka.protocols.linear_classification import Standard, token_standard

RATES = (1e-3, 3e-3, 1e-2)
"""Learning rates that are tried."""


@dataclass(frozen=True)
class AttentiveSettings:
    """How an attentive probe is built and trained.

    Attributes:
        heads: Heads of the cross-attention; a divisor of the channels.
        epochs: Passes over the training images.
        batch: Images per step.
        weight_decay: Of AdamW.
        rates: Learning rates to choose from; they decay to zero along half a cosine.

    Raises:
        ValueError: A number is out of range.
    """

    heads: int = 1
    epochs: int = 30
    batch: int = 64
    weight_decay: float = 0.05
    rates: Sequence[float] = RATES

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if min(self.heads, self.epochs, self.batch) < 1 or self.weight_decay < 0:
            raise ValueError(
                f"expected heads, epochs and batch of at least 1 and no negative decay, got {self}"
            )
        if not self.rates or min(self.rates) <= 0:
            raise ValueError(f"expected learning rates above 0, got {list(self.rates)}: name at least one")


class AttentiveProbe(nn.Module):
    """Cross-attention of one learnt query to patch tokens, and a linear classifier of what it gathers.

    The query meets the keys in an inner product only, and values are averaged with weights that sum to 1: so the
    key matrix is applied to the query, and the value matrix to the average, which is the same and takes 1/N of
    the arithmetic. A bias of the keys would cancel.

    Args:
        dim: Channels D of the tokens.
        classes: Classes or tags.
        heads: Heads, a divisor of D.
        standard: How tokens are standardised.
        seed: Seed of the initialisation.

    Raises:
        ValueError: The heads do not divide the channels.

    Source: Bardes et al. 2024 (arXiv 2404.08471), whose probe adds residual layers; Chen et al. 2022 (arXiv 2202.03026).
    """

    def __init__(self, dim: int, classes: int, heads: int, standard: Standard, *, seed: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"expected heads that divide the {dim} channels, got {heads}: take 1")
        generator = torch.Generator().manual_seed(seed)
        self.standard = standard
        self.query = nn.Parameter(torch.randn(heads, dim // heads, generator=generator))
        self.key = nn.Parameter(torch.randn(heads, dim // heads, dim, generator=generator) / dim**0.5)
        self.value = nn.Parameter(torch.randn(heads, dim // heads, dim, generator=generator) / dim**0.5)
        self.value_bias = nn.Parameter(torch.zeros(dim))
        self.weight = nn.Parameter(0.01 * torch.randn(classes, dim, generator=generator))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return logits (n, C) of patch tokens (n, N, D), of which those `valid`, (n, N) bool, count."""
        inputs = self.standard(tokens)
        directions = torch.einsum("hc,hcd->hd", self.query, self.key) / self.query.shape[1] ** 0.5
        scores = torch.einsum("nkd,hd->nhk", inputs, directions)
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None], -torch.inf)
        pooled = torch.einsum("nhk,nkd->nhd", scores.softmax(dim=2), inputs)
        gathered = torch.einsum("nhd,hcd->nhc", pooled, self.value).flatten(1) + self.value_bias
        return gathered @ self.weight.T + self.bias


def attentive_classification(
    train: Tensor,
    truth: Tensor,
    query: Tensor,
    query_truth: Tensor,
    *,
    classes: int,
    seed: int,
    settings: AttentiveSettings | None = None,
    valid: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Outcome:
    """Train an attentive probe on patch tokens and score it on the query images.

    The learning rate is the one of the least cross-entropy on a held-out tenth of the training images; the query's
    truth is read only to score. The probe is then trained on all training images.

    Args:
        train: Patch tokens, (n, N, D) float.
        truth: Labels (n,) int64, or tags (n, classes) bool.
        query: Patch tokens, (m, N', D).
        query_truth: Likewise.
        classes: Number of classes, or of tags.
        seed: Seed of the tenth, the initialisation and the order of the images.
        settings: How the probe is trained; None for the defaults.
        valid: Which tokens count, (n, N) and (m, N') bool, at least one in each image; None for all of a side.

    Returns:
        See `paka.protocols.classification.outcome`.

    Raises:
        ValueError: A truth does not fit, there are fewer than 2 training images, or heads do not divide the channels.
    """
    check_truth(truth, len(train), classes)
    check_truth(query_truth, len(query), classes)
    settings = settings or AttentiveSettings()
    own, queried = valid
    rate = choose_rate(train, truth, own, classes=classes, seed=seed, settings=settings)
    probe = train_attentive(train, truth, own, classes=classes, seed=seed, settings=settings, rate=rate)
    return outcome(predict(probe, query, queried, batch=settings.batch), query_truth)


def choose_rate(
    train: Tensor,
    truth: Tensor,
    valid: Tensor | None,
    *,
    classes: int,
    seed: int,
    settings: AttentiveSettings,
) -> float:
    """Return the learning rate with the least cross-entropy on a held-out tenth; arguments as `train_attentive`.

    Raises:
        ValueError: There are fewer than 2 images.
    """
    if len(settings.rates) == 1:
        return settings.rates[0]
    fit, held = held_out(len(train), seed)
    tokens, own = train[fit], _of(valid, fit)
    losses = []
    for rate in settings.rates:
        probe = train_attentive(
            tokens, truth[fit], own, classes=classes, seed=seed, settings=settings, rate=rate
        )
        logits = predict(probe, train[held], _of(valid, held), batch=settings.batch)
        losses.append(
            float(loss(logits, truth[held]).nan_to_num(torch.inf))
        )  # a rate may be too high to converge
    return settings.rates[losses.index(min(losses))]


def train_attentive(
    tokens: Tensor,
    truth: Tensor,
    valid: Tensor | None = None,
    *,
    classes: int,
    seed: int,
    settings: AttentiveSettings,
    rate: float,
) -> AttentiveProbe:
    """Return a probe trained by AdamW with cross-entropy.

    Args:
        tokens: Patch tokens, (n, N, D) float.
        truth: Labels (n,) int64, or tags (n, classes) bool.
        valid: Which tokens count, (n, N) bool; None for all.
        classes: Number of classes, or of tags.
        seed: Seed of the initialisation and of the order of the images.
        settings: How it is built and trained; `rates` is not read.
        rate: Learning rate at the start.

    Raises:
        ValueError: The heads do not divide the channels.
    """
    standard = token_standard(tokens, valid, batch=settings.batch)
    probe = AttentiveProbe(tokens.shape[2], classes, settings.heads, standard, seed=seed)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=rate, weight_decay=settings.weight_decay)
    steps = settings.epochs * -(-len(tokens) // settings.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(settings.epochs):
        for batch in torch.randperm(len(tokens), generator=generator).split(settings.batch):
            optimizer.zero_grad()
            loss(probe(tokens[batch], _of(valid, batch)), truth[batch]).backward()
            optimizer.step()
            schedule.step()
    return probe


@torch.inference_mode()
def predict(
    probe: AttentiveProbe, tokens: Tensor, valid: Tensor | None = None, *, batch: int = 128
) -> Tensor:
    """Return logits (n, C) of patch tokens (n, N, D), a batch of images at a time."""
    parts = torch.arange(len(tokens)).split(batch)
    return torch.cat([probe(tokens[part], _of(valid, part)) for part in parts])


def _of(valid: Tensor | None, chosen: Tensor) -> Tensor | None:
    return None if valid is None else valid[chosen]
