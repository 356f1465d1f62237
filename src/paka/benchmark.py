"""A benchmark: protocols run on the labelled splits of a source, one encoder against another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from paka.encoder import Encoder
from paka.feature_store import FeatureCache, Storage, images_digest, weights_digest
from paka.features import DenseFeatures, Transform, extract
from paka.frames import Frame
from paka.memory_views import MemoryViews
from paka.protocols import Entry, Outcome, Profile
from paka.protocols.harm import ImageTokens
from paka.protocols.image_level import Knn
from paka.scores import Score
from paka.sources import Source
from paka.sources.subset import Subset
from paka.statistics import Metric, bootstrap, paired_bootstrap


@dataclass(frozen=True)
class Result:
    """What a protocol made of n images, once for each of S seeds.

    Attributes:
        outcomes: One for each seed.
    """

    outcomes: tuple[Outcome, ...]

    @property
    def counts(self) -> Tensor:
        """Counts per image and seed, (n, S, *count)."""
        return torch.stack([outcome.counts for outcome in self.outcomes], dim=1)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the counts, as means over the seeds."""
        return tuple(_mean_over_seeds(metric) for metric in self.outcomes[0].metrics)


def _mean_over_seeds(metric: Metric) -> Metric:
    """Return the metric of counts with an axis of seeds after that of the images, if there is one."""
    if not metric.weighs:
        return metric._replace(of=lambda counts: metric.of(counts).mean(dim=-1))

    def of(counts: Tensor, times: Tensor) -> Tensor:
        return torch.stack([metric.of(seed, times) for seed in counts.unbind(dim=1)]).mean(dim=0)

    return metric._replace(of=of)


@dataclass(frozen=True)
class Benchmark:
    """Labelled splits, the protocols to run on them and their settings.

    Attributes:
        train: Labelled images that memories and probes are built from.
        query: Labelled images that are scored.
        profile: Settings of the protocols.
        protocols: The protocols by name.
        seed: Seed of everything random in them.
        query_images: At most this many images are scored; None for all.
        skipped: Why protocols that were asked for do not run here, by name.
        cache: Where features are kept for later evaluations; None keeps nothing.
        facts: What features depend on beside weights and images, as JSON.
    """

    train: Source
    query: Source
    profile: Profile
    protocols: Mapping[str, Entry]
    seed: int
    query_images: int | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    cache: FeatureCache | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def run(self, encoder: Encoder, transform: Transform | None = None) -> dict[str, Result]:
        """Run every protocol on the encoder's frozen tokens, after an optional training-free `transform`."""
        if self.profile.blue_std is not None:
            encoder = encoder.normalised_by(blue_std=self.profile.blue_std)
        found = self._run_encoding(encoder, transform)
        if len(found) == len(self.protocols):
            return found
        query = _scored_at(self.profile.scored_at, self._extract(encoder, self.query, self.query_images))
        for memory in (False, True):
            names = [
                name
                for name, entry in self.protocols.items()
                if not entry.encodes and self._from_memory(entry) == memory
            ]
            if names:
                train = self._training(encoder, memory=memory)
                found |= self._run(names, *(transform(train, query) if transform else (train, query)))
        return {name: found[name] for name in self.protocols}

    def _run_encoding(self, encoder: Encoder, transform: Transform | None) -> dict[str, Result]:
        """Run the protocols that encode images themselves.

        Raises:
            ValueError: There are some, and the tokens would have to be changed.
        """
        names = [name for name, entry in self.protocols.items() if entry.encodes]
        if names and transform is not None:
            message = f"expected features=none with protocols that encode images themselves, got {', '.join(names)}: leave them out of eval"
            raise ValueError(message)
        train, query = _first(self.train, self.profile.train_images), _first(self.query, self.query_images)
        return {
            name: Result(
                tuple(
                    self.protocols[name].run(encoder, train, query, self.profile, seed=seed, folder=None)
                    for seed in self._seeds
                )
            )
            for name in names
        }

    @property
    def _seeds(self) -> range:
        return range(self.seed, self.seed + self.profile.seeds)

    def tokens(self, encoder: Encoder) -> ImageTokens:
        """Return the tokens of the images that are scored, for measures that need no labels."""
        features = self._extract(encoder, self.query, self.query_images)
        return ImageTokens(features.tokens.float(), features.globals, features.valid)

    def _from_memory(self, entry: Entry) -> bool:
        """Return whether a protocol's training images differ from the plain ones."""
        return entry.memory and (self.profile.memory_passes > 1 or self.profile.memory_augment)

    def _run(self, names: list[str], train: DenseFeatures, query: DenseFeatures) -> dict[str, Result]:
        return {
            name: Result(
                tuple(self.protocols[name].run(train, query, self.profile, seed=seed) for seed in self._seeds)
            )
            for name in names
        }

    def _training(self, encoder: Encoder, *, memory: bool) -> DenseFeatures:
        if not memory:
            return self._extract(encoder, self.train, self.profile.train_images)
        images = _first(self.train, self.profile.train_images)
        views = MemoryViews(
            images,
            passes=self.profile.memory_passes,
            augment=self.profile.memory_augment,
            seed=self.seed,
        )
        return self._extract(encoder, views, None)

    def frame(self, encoder: Encoder) -> Frame:
        """Return the grid of tokens that images are brought to."""
        rows, columns = self.profile.grid
        return Frame(rows, columns, encoder.patch_size, self.profile.aspect)

    def _extract(self, encoder: Encoder, source: Source, limit: int | None) -> DenseFeatures:
        count, frame = _count(source, limit), self.frame(encoder)
        storage = None if self.cache is None else self._storage(self.cache, encoder, source, count)
        return extract(encoder, source, frame=frame, indices=range(count), storage=storage)

    def _storage(self, cache: FeatureCache, encoder: Encoder, source: Source, count: int) -> Storage:
        views = (source.passes, source.augment, source.seed) if isinstance(source, MemoryViews) else None
        facts = {
            **self.facts,
            "weights": weights_digest(encoder),
            "images": images_digest(source, count),
            "views": list(views) if views else None,
            "grid": list(self.profile.grid),
            "aspect": self.profile.aspect,
        }
        rows, columns = self.profile.grid
        return cache.open(facts, count, (rows, columns, encoder.dim))

    def compare(
        self, before: Mapping[str, Result], after: Mapping[str, Result] | None, *, method: str
    ) -> list[Score]:
        """Return one row for each protocol and metric: its values, and the difference with its 95 % interval.

        Without `after`, the interval is that of the score itself.
        """
        return [
            self._score(name, (before[name], None if after is None else after[name]), place, method)
            for name in self.protocols
            for place in range(len(before[name].metrics))
        ]

    def _score(self, name: str, results: tuple[Result, Result | None], place: int, method: str) -> Score:
        before, after = results
        metric = before.metrics[place]
        resamples, seed = self.profile.bootstrap, self.seed
        if after is None:
            interval = bootstrap(before.counts, resamples=resamples, seed=seed, metric=metric)
        else:
            interval = paired_bootstrap(
                before.counts, after.counts, resamples=resamples, seed=seed, metric=metric
            )
        first = value(before, metric)
        second = None if after is None else value(after, metric)
        return replace(
            self._row(name, metric, method),
            before=first,
            after=second,
            delta=None if second is None else second - first,
            ci_low=metric.scale * interval.low,
            ci_high=metric.scale * interval.high,
        )

    def _row(self, name: str, metric: Metric, method: str) -> Score:
        """Return a row without values: what was measured, and how."""
        profile, classes = self.profile, len(self.query.classes)
        row = Score(
            benchmark=self.query.name,
            protocol=name,
            profile=profile.name,
            metric=metric.name,
            split=self.query.split,
            seed=self.seed,
            before=None,
            after=None,
            delta=None,
            ci_low=None,
            ci_high=None,
            memory=None,
            k=None,
            note="",
            method=method,
            size=f"{profile.grid[0]}x{profile.grid[1]} tokens",
            classes=classes or None,
            rules=profile.rules,
            unit=metric.unit,
            better="higher" if metric.rises else "lower",
        )
        return replace(row, **self._neighbours(name))

    def _neighbours(self, name: str) -> dict[str, Any]:
        """Return memory, k and temperature of a protocol, as far as it has them."""
        profile = self.profile
        if name.startswith("in_context"):
            return {"memory": profile.memory, "k": profile.k, "temperature": profile.temperature}
        if name.startswith("overclustering"):
            return {"k": profile.number_of_clusters(len(self.query.classes))}
        if name == "knn":
            knn = profile.of(Knn)
            return {"k": knn.k, "temperature": knn.temperature}
        return {}


def value(result: Result, metric: Metric) -> float:
    """Return a metric of all images, in the unit in which it is printed."""
    return metric.scale * metric.once(result.counts)


def printed(result: Result) -> float:
    """Return the first metric of a protocol, in the unit in which it is printed."""
    return value(result, result.metrics[0])


def _scored_at(side: int | None, query: DenseFeatures) -> DenseFeatures:
    """Bring the labels to a square of `side` pixels by nearest neighbour."""
    if side is None or not query.num_classes:
        return query
    labels = F.interpolate(query.labels[:, None], size=(side, side), mode="nearest-exact")[:, 0]
    return replace(query, labels=labels)


def _first(source: Source, limit: int | None) -> Source:
    return Subset(source, np.arange(_count(source, limit)))


def _count(source: Source, limit: int | None) -> int:
    return len(source) if limit is None else min(limit, len(source))
