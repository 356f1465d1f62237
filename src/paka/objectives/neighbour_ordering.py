"""Patch neighbour consistency: the student should rank reference patches by similarity as the teacher does."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from paka.draws import Draws
from paka.objectives import Correspondences
from paka.precision import in_float32
from paka.sorting import soft_permutation

PUSHED_PER_IMAGE = 10
"""Teacher tokens per image of the batch that enter the queue in one step, as in NeCo."""
FLOOR = 1e-12
"""Least weight whose logarithm is taken; far below what the comparators' heavy tails leave."""


class NeighbourOrdering(nn.Module):
    """Cross-entropy of the orders in which student and teacher put reference patches, by cosine similarity.

    Both sides of an aligned point are compared with the same references, and a differentiable sorting network turns
    each side's similarities into a soft permutation matrix, P of the student and Q of the teacher. The loss of a
    point is `-1/R sum_rc Q_rc log P_rc`; equal sides leave the entropy of Q, not 0.

    It follows NeCo's paper. From its published code it differs in this:

    * Nothing flows into the teacher, also not by way of the references.
    * Only valid points are compared, and only valid tokens become references; an image is matched with its own mask.
    * Each image draws its references on its own from all of them, not its share of one permutation. They repeat only
      where there are fewer than R.
    * There is one queue, not one per global. Only entries that were filled are drawn from, it takes any batch size,
      and it is part of the checkpoint. It holds directions, as only they matter.
    * The logarithm has a floor.
    * Batcher's odd-even merge network in place of the bitonic one, which needs a power of two: 49 is none.
    * Pairs are averaged per image, then images, so that images count alike.

    Args:
        references: Number of references R per image, at least 2.
        steepness: Steepness of the relaxed comparators on both sides, over 0.
        queue: Number of past teacher tokens to draw references from, at least R; with 0 they come from this
            batch's aligned teacher tokens.
        dim: Channels D of the tokens; needed for a queue only.
        min_points: A pair with fewer valid points does not count; at least 1.
        seed: Of the draws.

    Raises:
        ValueError: An argument is out of its range, or `dim` is missing.

    Source: NeCo (Pariza et al., arXiv 2408.11054).
    """

    def __init__(
        self,
        *,
        references: int = 49,
        steepness: float = 100.0,
        queue: int = 0,
        dim: int | None = None,
        min_points: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _require(references >= 2, "references", "at least 2, as one has no order", references)
        _require(steepness > 0, "steepness", "a number over 0", steepness)
        _require(min_points >= 1, "min_points", "at least 1", min_points)
        _require(
            queue == 0 or queue >= references, "queue", f"0 or at least references = {references}", queue
        )
        self.references, self.steepness, self.min_points = references, steepness, min_points
        self.draws = Draws(seed)
        self.queue: TokenQueue | None = None
        if queue:
            if dim is None:
                raise ValueError("expected dim, the channels of the head's output, with a queue: set dim")
            self.queue = TokenQueue(queue, dim)

    def forward(self, batch: Correspondences) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, averaged over points, then pairs of an image, then images, and what to log of it.

        The divisor of the last mean is the number of images that have a usable pair.

        Args:
            batch: Reads `aligned_student` and `aligned_teacher` `(P, N, D)`, `valid` `(P, N)`, `image` `(P,)` and
                `images`. Nothing flows back into the teacher.

        Returns:
            The loss, float32 of at least 0, a differentiable 0 without usable pairs; and detached
            `ordering_agreement`, the share of references in [0, 1] whose most likely rank is the same on both
            sides, averaged like the loss, and `valid_points`, the share of all points.
        """
        valid = batch.valid
        if valid.numel() == 0:
            nothing = batch.aligned_student.float().sum()
            return nothing, dict.fromkeys(("ordering_agreement", "valid_points"), nothing.detach())
        teacher = _directions(batch.aligned_teacher.detach(), valid)
        references = self._draw_references(teacher, valid, batch.images)[batch.image]
        similarity = _cosines(_directions(batch.aligned_student, valid), references)
        student = soft_permutation(similarity, self.steepness)
        target = soft_permutation(_cosines(teacher, references), self.steepness)

        same_rank = student.detach().argmax(dim=-2) == target.argmax(dim=-2)
        usable = batch.usable(self.min_points)
        agreement = _mean_over_points(same_rank.float().mean(dim=-1), valid)
        logs = {
            "ordering_agreement": batch.average(agreement, usable),
            "valid_points": batch.valid_share(),
        }
        losses = _mean_over_points(_cross_entropy(target, student), valid)
        return batch.average(losses, usable), logs

    def _draw_references(self, teacher: Tensor, valid: Tensor, images: int) -> Tensor:
        """Return the references of each image, `(images, R, D)`, after the queue took in tokens of this batch."""
        generator = self.draws.next(teacher.device)
        pool, eligible = teacher.flatten(0, 1), valid.flatten()
        if self.queue is not None:
            pushed = min(PUSHED_PER_IMAGE * images, len(self.queue.tokens), len(pool))
            (drawn,) = draw(eligible, sets=1, size=pushed, generator=generator)
            self.queue.push(pool[drawn], eligible.sum())
            pool, eligible = self.queue.tokens, self.queue.filled()
        return pool[draw(eligible, sets=images, size=self.references, generator=generator)]


class TokenQueue(nn.Module):
    """The last tokens that were pushed, first in, first out; part of the checkpoint.

    Args:
        size: Number of tokens it holds.
        dim: Channels D of a token.
    """

    tokens: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.zeros(size, dim))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, tokens: Tensor, count: Tensor) -> None:
        """Replace the oldest tokens by the first `count` of `tokens`.

        Args:
            tokens: `(K, D)`, no more than fit.
            count: How many of them count, int64 on their device; all do when it is over K.
        """
        size, (k, dim) = len(self.tokens), tokens.shape
        if k > size or dim != self.tokens.shape[1]:
            expected = f"at most {size} tokens of {self.tokens.shape[1]} channels"
            raise ValueError(f"expected {expected}, got {k} of {dim}: set queue and dim to suit the head")
        order = torch.arange(k, device=tokens.device)
        slots = (self.pushed + order) % size
        kept = torch.where((order < count)[:, None], tokens.to(self.tokens.dtype), self.tokens[slots])
        self.tokens.index_copy_(0, slots, kept)
        self.pushed += count.clamp_max(k)

    def filled(self) -> Tensor:
        """Return which entries hold a token, `(size,)` bool."""
        return torch.arange(len(self.tokens), device=self.tokens.device) < self.pushed


def draw(eligible: Tensor, *, sets: int, size: int, generator: torch.Generator) -> Tensor:
    """Return indices of random eligible entries, without replacement within a set.

    Args:
        eligible: `(M,)` bool, M at least 1.
        sets: Number of independent draws.
        size: Entries per draw. Where fewer are eligible, they repeat in turn.
        generator: On the device of `eligible`.

    Returns:
        `(sets, size)` int64; without any eligible entry the indices mean nothing.
    """
    keys = torch.rand(sets, len(eligible), generator=generator, device=eligible.device)
    order = keys.masked_fill(~eligible, -1).topk(min(size, len(eligible))).indices
    turn = torch.arange(size, device=eligible.device) % eligible.sum().clamp(1, order.shape[1])
    return order[:, turn]


@in_float32
def _directions(tokens: Tensor, valid: Tensor) -> Tensor:
    """Return tokens `(P, N, D)` at unit length, and 0 where not valid."""
    return normalize(torch.where(valid[:, :, None], tokens, 0), dim=-1)


@in_float32
def _cosines(tokens: Tensor, references: Tensor) -> Tensor:
    """Return the products of unit tokens `(P, N, D)` and references `(P, R, D)`, `(P, N, R)`."""
    return tokens @ references.to(tokens.dtype).mT


@in_float32
def _cross_entropy(target: Tensor, permutation: Tensor) -> Tensor:
    """Return the cross-entropy of soft permutation matrices `(..., R, R)`, averaged over ranks, `(...)`."""
    return -(target * permutation.clamp_min(FLOOR).log()).sum(dim=-1).mean(dim=-1)


def _mean_over_points(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over the valid points of values `(P, N)`, `(P,)`."""
    return torch.where(valid, values, 0).sum(dim=1) / valid.sum(dim=1).clamp_min(1)


def _require(holds: bool, name: str, expected: str, got: float) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {got}; set objective.loss.{name}")
