"""Label propagation through videos: the objects of the first frame are found again in the others by nearest tokens.

The protocol of Jabri et al., 2020 (arXiv 2006.14613), with the settings of DINO (Caron et al., 2021, arXiv 2104.14294).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.precision import in_float32
from paka.progress import tracked
from paka.protocols import Outcome, Profile, shown
from paka.protocols.region_boundary import OBJECTS, object_scores, video_counts
from paka.sources import VOID

TILES = {"cpu": 8, "cuda": 32}
"""Side of the squares of tokens that are worked on at a time: small ones waste little on keys out of reach, large ones
keep a GPU busy."""

SHAPES = ("square", "circle")


@dataclass(frozen=True)
class LabelPropagation:
    """How labels are propagated.

    The defaults are DINO's. The demonstration that DINOv3 was published with (arXiv 2508.10104) differs in
    `temperature=0.2`, `neighbourhood=circle` and twice the resolution, a shorter side of 960 pixels.

    Attributes:
        last_frames: How many frames before the one that is labelled are asked, beside the first.
        radius: How many tokens away a token is looked for, in rows and columns; None for the whole frame.
        neighbourhood: `square`, or `circle`.
        top_k: Tokens of all these frames together that are asked.
        temperature: Of the softmax over their cosines.
        rescale: Whether each object's map is stretched to [0, 1] in each frame before the best object is taken.
        score_last: Whether the last frame of a video is scored; the toolkit of DAVIS leaves it out, as the first.

    Raises:
        ValueError: A setting is out of range.
    """

    last_frames: int = 7
    radius: int | None = 12
    neighbourhood: str = "square"
    top_k: int = 5
    temperature: float = 0.1
    rescale: bool = True
    score_last: bool = False

    def __post_init__(self) -> None:
        """Refuse what labels cannot be propagated with."""
        if self.last_frames < 0 or self.top_k < 1 or (self.radius is not None and self.radius < 0):
            message = f"expected last_frames and radius of at least 0 and top_k of at least 1, got {self}: raise them"
            raise ValueError(message)
        if not self.temperature > 0:
            raise ValueError(f"expected a temperature above 0, got {self.temperature}: raise it")
        if self.neighbourhood not in SHAPES:
            message = (
                f"expected a neighbourhood of {' or '.join(SHAPES)}, got {self.neighbourhood!r}: choose one"
            )
            raise ValueError(message)

    @property
    def note(self) -> str:
        """What labels depend on, in a few words: the first frame and those before, and the neighbourhood."""
        reach = "anywhere" if self.radius is None else f"{self.neighbourhood} of {self.radius}"
        return f"1 + {self.last_frames} frames, {reach}"


class Labelled(NamedTuple):
    """A frame whose labels are known or were found.

    Attributes:
        tokens: Tokens of norm 1, (h, w, D).
        maps: How much of each token belongs to what is around the objects and to each object, (h, w, C); they sum to
            1, or are 0 where nothing is known.
    """

    tokens: Tensor
    maps: Tensor


def label_propagation(
    train: DenseFeatures | None, query: DenseFeatures, profile: Profile, *, seed: int
) -> Outcome:
    """Follow the objects of each video's first frame through the video, and score them by J and F.

    Args:
        train: Nothing is trained.
        query: Frames of videos. Frames without a mask are propagated through, but not scored.
        profile: Reads the settings of kind `LabelPropagation`.
        seed: Nothing is random.

    Raises:
        ValueError: There is no frame to score, a first frame without an object, or frames of a video differ in size.
    """
    del train, seed
    settings = profile.of(LabelPropagation)
    scored = [_scored(query, video, settings) for video in query.videos]
    if not any(scored):
        raise ValueError(
            f"expected a video of at least {2 if settings.score_last else 3} frames with a mask behind the first, got none: "
            "choose other videos, or raise profile.test_images or profile.val_images"
        )
    found = chain.from_iterable(propagated(query, video, settings) for video in query.videos)
    frames = tracked(found, sum(len(video) - 1 for video in query.videos))
    counts, pictures, wanted = [], {}, {*shown(len(query))}
    for video, counted in zip(query.videos, scored, strict=True):
        objects, scores = objects_of(truth(query, video.start)), []
        for index, prediction in zip(video[1:], islice(frames, len(video) - 1), strict=True):
            if index in counted:
                scores.append(_score(prediction, truth(query, index), objects))
            if index in wanted:
                pictures[index] = _in_frame(prediction, query)
        counts.append(video_counts(scores, len(objects)))
    height, width = query.labels.shape[1:]
    note = f"{settings.note}, {'own size' if query.own_mask else f'{height}x{width} px'}"
    stated = {"k": settings.top_k, "temperature": settings.temperature, "note": note}
    return Outcome(torch.stack(counts), OBJECTS, pictures, stated)


def propagated(query: DenseFeatures, video: range, settings: LabelPropagation) -> Iterator[Tensor]:
    """Yield the numbers of objects in each frame of a video but the first, (H, W) uint8 at the size that was encoded.

    Args:
        query: Frames of videos.
        video: Which frames.
        settings: How labels are propagated.

    Raises:
        ValueError: The first frame has no object, or frames differ in size.
    """
    grid = own_grid(query, video)
    patch = query.labels.shape[1] // query.tokens.shape[1]
    mask = torch.from_numpy(truth(query, video.start)).to(query.workspace.device)
    numbers = [0, *objects_of(mask.cpu().numpy())]
    first = Labelled(_tokens(query, video.start, grid), first_maps(mask, numbers, grid))
    recent: deque[Labelled] = deque(maxlen=settings.last_frames)
    names = torch.tensor(numbers, dtype=torch.uint8)
    for index in video[1:]:
        tokens = _tokens(query, index, grid)
        maps = propagate(tokens, [first, *recent], settings)
        recent.append(Labelled(tokens, maps))
        yield names[_best(maps, patch, rescale=settings.rescale)]


def first_maps(mask: Tensor, numbers: list[int], grid: tuple[int, int]) -> Tensor:
    """Return what each token of the first frame shows, one-hot (h, w, C) float32: what the pixel at its middle does.

    Tokens of void are 0 throughout. As published, an object that lies at the middle of no token is lost.

    Args:
        mask: Numbers of objects, (H, W) uint8.
        numbers: Those that the C channels stand for.
        grid: Rows h and columns w of tokens.
    """
    small = F.interpolate(mask[None, None], size=grid, mode="nearest-exact")[0, 0]
    return (small[..., None] == torch.tensor(numbers, device=mask.device)).float()


@torch.inference_mode()
def propagate(tokens: Tensor, context: list[Labelled], settings: LabelPropagation) -> Tensor:
    """Label the tokens of a frame by their nearest ones in other frames.

    A token asks the `top_k` of largest cosine in its neighbourhood in all frames together, and those as near as the last of
    them; each counts by exp(cosine / temperature).

    Args:
        tokens: Tokens of norm 1, (h, w, D).
        context: Frames of the same size with their labels.
        settings: How labels are propagated.

    Returns:
        Their labels, (h, w, C) as in `Labelled`.
    """
    rows, columns = tokens.shape[:2]
    keys = torch.stack([frame.tokens for frame in context])
    maps = torch.stack([frame.maps for frame in context])
    side, reach = TILES.get(tokens.device.type, TILES["cuda"]), settings.radius
    result = torch.empty_like(maps[0])
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            tile = slice(top, min(top + side, rows)), slice(left, min(left + side, columns))
            near = tuple(
                slice(0, size) if reach is None else slice(max(part.start - reach, 0), part.stop + reach)
                for part, size in zip(tile, (rows, columns), strict=True)
            )
            within = neighbours(_places(tile, tokens), _places(near, tokens), settings)
            found = _vote(tokens[tile], keys[:, *near], maps[:, *near], within, settings)
            result[tile] = found.view(*result[tile].shape)
    return result


def _places(part: tuple[slice, ...], tokens: Tensor) -> Tensor:
    """Return the rows and columns of the tokens in a part of a frame, (m, 2)."""
    sides = (
        torch.arange(size, device=tokens.device)[one] for one, size in zip(part, tokens.shape, strict=False)
    )
    return torch.cartesian_prod(*sides)


def neighbours(places: Tensor, others: Tensor, settings: LabelPropagation) -> Tensor:
    """Return which places are neighbours of which, (m, n) bool.

    Args:
        places: Rows and columns, (m, 2) int64.
        others: Rows and columns, (n, 2) int64.
        settings: Radius and shape of the neighbourhood.
    """
    offsets = (places[:, None] - others).abs()
    if settings.radius is None:
        return torch.ones_like(offsets[..., 0], dtype=torch.bool)
    if settings.neighbourhood == "square":
        return offsets.amax(dim=2) <= settings.radius
    return offsets.square().sum(dim=2) <= settings.radius**2


@in_float32
def _vote(tokens: Tensor, keys: Tensor, maps: Tensor, within: Tensor, settings: LabelPropagation) -> Tensor:
    """Return the labels of some tokens, (m, C), given keys (t, r, c, D), their labels (t, r, c, C), and which are asked."""
    labels = maps.flatten(0, 2)
    asked = within.repeat(1, len(keys)) & (labels.sum(dim=1) > 0)
    scores = (tokens.flatten(0, 1) @ keys.flatten(0, 2).T).masked_fill(~asked, -torch.inf)
    best = scores.topk(min(settings.top_k, scores.shape[1]), dim=1).values
    scores = scores.masked_fill(scores < best[:, -1:], -torch.inf)
    # Where nobody is asked, the largest score is -inf, and a difference of two of those is no number.
    weights = ((scores - best[:, :1].clamp_min(-2.0)) / settings.temperature).exp()
    total = weights.sum(dim=1, keepdim=True)
    return weights @ labels / torch.where(total > 0, total, 1.0)


def _best(maps: Tensor, patch: int, *, rescale: bool) -> Tensor:
    """Return the best channel of each pixel, (h * patch, w * patch) int64 on the CPU, of maps (h, w, C)."""
    size = maps.shape[0] * patch, maps.shape[1] * patch
    pixels = F.interpolate(maps.permute(2, 0, 1)[None], size=size, mode="bilinear", align_corners=False)[0]
    if rescale:
        low, high = pixels.amin(dim=(1, 2), keepdim=True), pixels.amax(dim=(1, 2), keepdim=True)
        # A map that is the same everywhere has nothing to stretch.
        pixels = torch.where(high > low, (pixels - low) / (high - low), pixels)
    return pixels.argmax(dim=0).cpu()


def own_grid(query: DenseFeatures, video: range) -> tuple[int, int]:
    """Return rows and columns of the tokens that are the own ones of each frame of a video, at the top left.

    Raises:
        ValueError: Frames of the video differ in size.
    """
    if query.valid is None:
        return query.tokens.shape[1], query.tokens.shape[2]
    own = query.valid[video.start : video.stop]
    if not torch.equal(own, own[:1].expand_as(own)):
        raise ValueError(
            f"expected frames of one size in a video, got different ones in images {video.start} to {video.stop - 1}: "
            "resize them"
        )
    return int(own[0].any(dim=1).sum()), int(own[0].any(dim=0).sum())


def truth(query: DenseFeatures, index: int) -> NDArray[np.uint8]:
    """Return the true numbers of objects of a frame, (H, W): at its own size, or else at that at which it was encoded."""
    if query.own_mask is not None:
        return query.own_mask(index)
    rows, columns = own_grid(query, range(index, index + 1))
    patch = query.labels.shape[1] // query.tokens.shape[1]
    return np.asarray(query.labels[index, : rows * patch, : columns * patch].numpy())


def objects_of(mask: NDArray[np.uint8]) -> list[int]:
    """Return the numbers of the objects in a mask.

    Raises:
        ValueError: There is none.
    """
    numbers = [number for number in np.unique(mask).tolist() if number not in (0, VOID)]
    if not numbers:
        raise ValueError("expected an object in the first frame of each video, got a mask without: add one")
    return numbers


def _scored(query: DenseFeatures, video: range, settings: LabelPropagation) -> set[int]:
    """Return the frames of a video that are scored: those with a mask, but for the first and perhaps the last."""
    stop = len(video) if settings.score_last else len(video) - 1
    return {index for index in video[1:stop] if bool((query.labels[index] != VOID).any())}


def _tokens(query: DenseFeatures, index: int, grid: tuple[int, int]) -> Tensor:
    own = query.tokens[index, : grid[0], : grid[1]].to(query.workspace.device).float()
    return F.normalize(own, dim=2)


def _score(prediction: Tensor, truth: NDArray[np.uint8], objects: list[int]) -> NDArray[np.float64]:
    """Return J and F of objects, (objects, 2), at the size of the truth, to which predictions are brought by nearest pixel."""
    resized = F.interpolate(prediction[None, None], size=truth.shape, mode="nearest-exact")[0, 0]
    return object_scores(resized.numpy(), truth, objects)


def _in_frame(prediction: Tensor, query: DenseFeatures) -> Tensor:
    """Return a prediction at the top left of the whole frame; the rest is void."""
    whole = torch.full(query.labels.shape[1:], VOID, dtype=torch.uint8)
    whole[: prediction.shape[0], : prediction.shape[1]] = prediction
    return whole
