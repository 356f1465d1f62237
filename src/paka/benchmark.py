"""A benchmark: protocols run on the labelled splits of a source, one encoder against another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paka.encoder import Encoder
from paka.features import Transform, extract
from paka.protocols import Outcome, Profile, Protocol
from paka.scores import Score
from paka.sources import Source
from paka.statistics import paired_bootstrap


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
    """

    train: Source
    query: Source
    profile: Profile
    protocols: Mapping[str, Protocol]
    seed: int
    query_images: int | None = None

    def run(self, encoder: Encoder, transform: Transform | None = None) -> dict[str, Outcome]:
        """Run every protocol on the encoder's frozen tokens, after an optional training-free `transform`."""
        train, query = (
            extract(encoder, source, grid=self.profile.grid, indices=range(_count(source, limit)))
            for source, limit in (
                (self.train, self.profile.train_images),
                (self.query, self.query_images),
            )
        )
        if transform is not None:
            train, query = transform(train, query)
        return {
            name: protocol(train, query, self.profile, seed=self.seed)
            for name, protocol in self.protocols.items()
        }

    def compare(
        self, before: Mapping[str, Outcome], after: Mapping[str, Outcome] | None, *, method: str
    ) -> list[Score]:
        """Return one row per protocol: its metric in percent, and the difference with its 95 % interval."""
        return [
            self._score(name, before[name], None if after is None else after[name], method)
            for name in self.protocols
        ]

    def _score(self, name: str, before: Outcome, after: Outcome | None, method: str) -> Score:
        first = percent(before)
        second = delta = low = high = None
        if after is not None:
            second = percent(after)
            interval = paired_bootstrap(
                before.counts,
                after.counts,
                resamples=self.profile.bootstrap,
                seed=self.seed,
                metric=before.metric,
            )
            delta, low, high = second - first, 100.0 * interval.low, 100.0 * interval.high
        searches = name.startswith("in_context")
        return Score(
            benchmark=self.query.name,
            protocol=name,
            profile=self.profile.name,
            metric=before.metric.name,
            split=self.query.split,
            seed=self.seed,
            before=first,
            after=second,
            delta=delta,
            ci_low=low,
            ci_high=high,
            memory=self.profile.memory if searches else None,
            k=self.profile.k if searches else self.profile.clusters if name == "overclustering" else None,
            note="",
            method=method,
        )


def percent(outcome: Outcome) -> float:
    """Return a protocol's data-set metric in percent."""
    return 100.0 * float(outcome.metric.of(outcome.counts.sum(dim=0)))


def _count(source: Source, limit: int | None) -> int:
    return len(source) if limit is None else min(limit, len(source))
