"""Correspondence: where points of one image are found in another by their tokens alone, scored as PCK.

The token at a point of the first image is compared with every token of the second, and the point is found where the cosine
is largest. PCK, the percentage of correct keypoints, is the share of points that are found within `alpha` times an extent of
their true place (Yang and Ramanan 2013): mostly the longer side of the box around the object, as SPair-71k has it (Min et
al. 2019, arXiv 1908.10543).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.precision import in_float32
from paka.progress import tracked
from paka.protocols import Outcome, Profile
from paka.sources import KeypointPair
from paka.statistics import Metric

ALPHAS = (0.10, 0.05, 0.01)
"""Shares of the extent up to which a point is correct, as published."""

MEANS = {"points": "", "pairs": " per pair", "categories": " per category"}
"""What PCK may be averaged over, and how its name says so."""

SAMPLINGS = ("bilinear", "nearest")
"""How the token at a point may be read."""

POINTS = 1024
"""Points whose similarities to a whole image are held at a time."""

PAIRS = 64
"""Pairs with the same second image that are matched at a time."""


@dataclass(frozen=True)
class PointMatching:
    """How points are matched and PCK is averaged.

    Attributes:
        mean: `points` pools the points of all pairs; `pairs` averages PCK over the pairs; `categories` pools the points of
            each category and averages over these.
        sampling: `bilinear` reads the token map between its four nearest centres; `nearest` takes the token that the
            point lies in.
        window: 0 takes the centre of the best token. Above, a softmax over the tokens up to so many rows and columns from
            it gives the mean place (window soft-argmax).
        temperature: Of that softmax of cosines, above 0.

    Raises:
        ValueError: A setting is out of range.

    Source: means over pairs in Min et al. 2019 and its followers; over points for frozen features, next to those over
    pairs, in DIFT (arXiv 2306.03881) and GeoAware-SC (arXiv 2311.17034); over categories in Probe3D (arXiv 2404.08636),
    whose protocol DINOv3 names, on crops of the objects. Bilinear in DIFT and Probe3D; nearest in SD-DINO (arXiv
    2305.15347) and GeoAware-SC, whose window is 7 on 60 x 60 tokens at temperature 0.02.
    """

    mean: str = "points"
    sampling: str = "bilinear"
    window: int = 0
    temperature: float = 0.02

    def __post_init__(self) -> None:
        """Refuse what cannot match."""
        for name, known in (("mean", tuple(MEANS)), ("sampling", SAMPLINGS)):
            if getattr(self, name) not in known:
                message = f"expected {name} to be one of {', '.join(known)}, got {getattr(self, name)!r}"
                raise ValueError(message)
        if self.window < 0 or not self.temperature > 0:
            message = (
                f"expected a window of at least 0 tokens and a temperature above 0, got {self}: raise them"
            )
            raise ValueError(message)

    @property
    def note(self) -> str:
        """How points are matched, in words."""
        place = (
            f"soft arg-max within {self.window} tokens at {self.temperature:g}" if self.window else "arg-max"
        )
        return f"{self.sampling} points, {place}"


def correspondence(
    train: DenseFeatures | None, query: DenseFeatures, profile: Profile, *, seed: int
) -> Outcome:
    """Score where the points of each pair of images are found; nothing is trained, nothing is random.

    Args:
        train: Not used.
        query: Images and their pairs.
        profile: Reads the settings of kind `PointMatching`.
        seed: Not used.

    Raises:
        ValueError: There is no pair.
    """
    del train, seed
    if not query.pairs:
        message = f"expected a pair among the {len(query)} scored images, got none: raise profile.test_images, or val_images"
        raise ValueError(message)
    settings = profile.of(PointMatching)
    hits = torch.zeros(len(query.pairs), 1 + len(ALPHAS), dtype=torch.float64)
    blocks = same_second(query.pairs)
    for numbers in tracked(blocks, len(blocks)):
        for number, places in zip(numbers, found(query, numbers, settings), strict=True):
            hits[number] = correct(places, query.pairs[number])
    counts = counted_by(settings.mean, hits, [pair.category for pair in query.pairs])
    return Outcome(counts, PCK[settings.mean], stated={"note": settings.note, "upsampling": "none"})


def same_second(pairs: Sequence[KeypointPair]) -> list[list[int]]:
    """Return the numbers of pairs, up to `PAIRS` with the same second image together, so that it is read once."""
    order = sorted(range(len(pairs)), key=lambda number: pairs[number].second)
    groups = [[*group] for _, group in groupby(order, key=lambda number: pairs[number].second)]
    return [group[start : start + PAIRS] for group in groups for start in range(0, len(group), PAIRS)]


def found(query: DenseFeatures, numbers: Sequence[int], settings: PointMatching) -> Iterator[Tensor]:
    """Yield where the points of some pairs are found in the second image that these share.

    Args:
        query: Images and their pairs.
        numbers: Which pairs.
        settings: How points are matched.

    Yields:
        For each pair x and y in pixels of the second image, (m, 2) float64.
    """
    pairs = [query.pairs[number] for number in numbers]
    second, device = pairs[0].second, query.workspace.device
    wanted = torch.cat([_tokens_at(query, pair, settings.sampling) for pair in pairs]).to(device)
    keys = F.normalize(own_tokens(query, second).to(device).float(), dim=2)
    places = torch.cat([best_places(part, keys, settings) for part in wanted.split(POINTS)])
    pixels = places.cpu().double() / tokens_per_pixel(query, second)
    yield from pixels.split([len(pair.points) for pair in pairs])


def _tokens_at(query: DenseFeatures, pair: KeypointPair, sampling: str) -> Tensor:
    places = torch.from_numpy(pair.points).double() * tokens_per_pixel(query, pair.first)
    return tokens_at(own_tokens(query, pair.first), places, sampling)


def own_tokens(query: DenseFeatures, image: int) -> Tensor:
    """Return the tokens of an image without what fills its frame, (h, w, D): a view of them."""
    if query.valid is None:
        return query.tokens[image]
    own = query.valid[image]
    return query.tokens[image, : int(own.any(dim=1).sum()), : int(own.any(dim=0).sum())]


def tokens_per_pixel(query: DenseFeatures, image: int) -> Tensor:
    """Return how many tokens a pixel of an image is wide and high, (2,) float64: its sides are scaled one by one."""
    rows, columns = own_tokens(query, image).shape[:2]
    height, width = query.sizes[image].tolist()
    return torch.tensor([columns / width, rows / height], dtype=torch.float64)


def tokens_at(tokens: Tensor, places: Tensor, sampling: str) -> Tensor:
    """Return the tokens at some places, (m, D) float32; beyond the outermost centres these are taken.

    Args:
        tokens: A map of tokens, (h, w, D); token i of an axis covers `[i, i + 1)` and has its centre at `i + 0.5`.
        places: x and y in tokens, (m, 2) float64.
        sampling: One of `SAMPLINGS`.
    """
    last = torch.tensor([tokens.shape[1] - 1, tokens.shape[0] - 1])
    if sampling == "nearest":
        x, y = places.floor().long().clamp(min=0).minimum(last).unbind(dim=1)
        return tokens[y, x].float()
    exact = (places - 0.5).clamp(min=0).minimum(last)
    low = exact.floor().long()
    (x, y), (right, below) = low.unbind(dim=1), (low + 1).minimum(last).unbind(dim=1)
    across, down = (exact - low).float().split(1, dim=1)
    above = torch.lerp(tokens[y, x].float(), tokens[y, right].float(), across)
    return torch.lerp(above, torch.lerp(tokens[below, x].float(), tokens[below, right].float(), across), down)


@in_float32
def best_places(wanted: Tensor, keys: Tensor, settings: PointMatching) -> Tensor:
    """Return the places of the largest cosine with each wanted token, (m, 2): x and y in tokens.

    Args:
        wanted: (m, D).
        keys: Tokens of an image, of norm 1, (h, w, D).
        settings: Reads `window` and `temperature`.
    """
    rows, columns = keys.shape[:2]
    cosines = F.normalize(wanted, dim=1) @ keys.flatten(0, 1).T
    best = cosines.argmax(dim=1)
    x, y = best % columns, best.div(columns, rounding_mode="floor")
    if not settings.window:
        return torch.stack([x, y], dim=1) + 0.5
    across, down = (torch.arange(side, device=keys.device) for side in (columns, rows))
    near_x = (across - x[:, None]).abs() <= settings.window
    near_y = (down - y[:, None]).abs() <= settings.window
    outside = ~(near_y[:, :, None] & near_x[:, None, :]).flatten(1)
    weights = (cosines / settings.temperature).masked_fill(outside, -torch.inf).softmax(dim=1)
    weights = weights.view(-1, rows, columns)
    return torch.stack([weights.sum(dim=1) @ (across + 0.5), weights.sum(dim=2) @ (down + 0.5)], dim=1)


def correct(places: Tensor, pair: KeypointPair) -> Tensor:
    """Return the number of points, and how many are found within each of `ALPHAS`, (1 + A,) float64.

    Args:
        places: Where they are found, x and y in pixels of the second image, (m, 2) float64.
        pair: Their true places and the extent.
    """
    distances = (places - torch.from_numpy(pair.targets)).norm(dim=1)
    limits = torch.tensor(ALPHAS, dtype=torch.float64) * pair.extent
    within = (distances[:, None] <= limits).sum(dim=0)
    return torch.cat([torch.tensor([float(len(places))], dtype=torch.float64), within.double()])


def counted_by(mean: str, hits: Tensor, categories: Sequence[str]) -> Tensor:
    """Return the counts of n pairs that PCK is computed from, (n, C, 1 + A) float64.

    Args:
        mean: One of `MEANS`; C is the number of categories with `categories`, else 1.
        hits: What `correct` returned for each pair, (n, 1 + A).
        categories: What each pair shows.
    """
    if mean == "points":
        return hits[:, None]
    if mean == "pairs":
        return (hits / hits[:, :1])[:, None]
    place = {name: number for number, name in enumerate(sorted({*categories}))}
    counts = hits.new_zeros(len(hits), len(place), hits.shape[1])
    counts[torch.arange(len(hits)), torch.tensor([place[name] for name in categories])] = hits
    return counts


def _pck(counts: Tensor, *, place: int) -> Tensor:
    """Return the share that is correct, (...) float64, of counts (..., C, 1 + A): the mean over those of the C that occur."""
    return (counts[..., place].double() / counts[..., 0].double()).nanmean(dim=-1)


def _points(counts: Tensor) -> Tensor:
    return counts[..., 0]


PCK = {
    mean: tuple(
        Metric(f"PCK@{alpha:.2f}{name}", partial(_pck, place=place), _points)
        for place, alpha in enumerate(ALPHAS, start=1)
    )
    for mean, name in MEANS.items()
}
"""Metrics by what they are averaged over, the first for alpha 0.1."""
