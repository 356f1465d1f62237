"""A benchmark: protocols run on the labelled splits of a source, one encoder against another."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch.nn import functional as F

from paka.collectives import is_first, wait_for_all
from paka.encoded import Encoded
from paka.encoder import Encoder
from paka.feature_store import FeatureCache, images_digest, labels_digest
from paka.features import DenseFeatures, Transform
from paka.frames import Frame
from paka.memory_views import MemoryViews
from paka.outcome_store import OutcomeStore
from paka.progress import pass_over, step
from paka.protocols import Entry, Outcome, Profile
from paka.protocols.harm import ImageTokens
from paka.result import Result, stated, value
from paka.scores import Score
from paka.sharing import by_all, by_first
from paka.sources import Source
from paka.sources.subset import Subset
from paka.statistics import Metric, bootstrap, paired_bootstrap
from paka.warps import WarpPairs
from paka.workspace import Workspace, memory_named


@dataclass(frozen=True)
class Benchmark:
    """Labelled splits, the protocols to run on them and their settings.

    Attributes:
        train: Labelled images that memories and probes are built from; None where there are none.
        query: Images that are scored.
        profile: Settings of the protocols.
        protocols: The protocols by name.
        seed: Seed of everything random in them.
        query_images: At most this many images are scored; None for all.
        skipped: Why protocols that were asked for do not run here, by name.
        cache: Where features are kept for later evaluations; None keeps nothing.
        kept: Where outcomes are kept for an evaluation that goes on after it was killed; None keeps nothing.
        facts: What features depend on beside weights and images, as JSON.
        asked: What outcomes depend on beside those, as JSON, by protocol.
        workspace: Where protocols compute, and keep what is large.
    """

    train: Source | None
    query: Source
    profile: Profile
    protocols: Mapping[str, Entry]
    seed: int
    query_images: int | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    cache: FeatureCache | None = None
    kept: OutcomeStore | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    workspace: Workspace = field(default_factory=Workspace)

    def run(
        self, encoder: Encoder, transform: Transform | None = None, *, name: str = ""
    ) -> dict[str, Result]:
        """Run every protocol on the encoder's frozen tokens.

        Args:
            encoder: The encoder.
            transform: Training-free change of its tokens.
            name: What the encoder is called where progress is shown.

        Raises:
            ValueError: Tokens are to be changed, and a protocol encodes images itself.
        """
        encoded = Encoded(self, encoder, transform, name=name)
        return {
            name: Result(tuple(self._outcome(name, encoded, seed) for seed in self._seeds(entry)))
            for name, entry in self.protocols.items()
        }

    def alone(self) -> Benchmark:
        """Return the same for this process alone, when others have gone."""
        return replace(self, workspace=replace(self.workspace, shared=False))

    def steps(self, encoders: int) -> list[str]:
        """Return the kinds of steps that running that many encoders takes, for a progress bar."""
        read = {
            name
            for entry in self.protocols.values()
            for name in self.sets(entry)[0 if entry.trains else 1 :]
            if entry.views != "own"
        }
        runs = [name for name, entry in self.protocols.items() for _ in self._seeds(entry)]
        return encoders * [*(f"encode {name}" for name in sorted(read)), *runs]

    def sets(self, entry: Entry) -> tuple[str, str]:
        """Return which sets of images a protocol reads, to train on and to score; see `images`."""
        augmented = self.profile.memory_passes > 1 or self.profile.memory_augment
        memory = "memory" if entry.views == "memory" and augmented else "train"
        scored = "warped" if entry.views == "warped" else "query"
        return scored if self.train is None else memory, scored

    def _outcome(self, name: str, encoded: Encoded, seed: int) -> Outcome:
        """Run one protocol with one seed, unless its outcome is kept from an evaluation before."""
        facts = self._outcome_facts(name, encoded, seed)
        found = None if self.kept is None else self.kept.get(facts, self.profile)
        if found is not None:
            pass_over(name, f"{encoded.name} {name}".strip())
        else:
            found = self._computed(self.protocols[name], name, encoded, seed, facts)
            self._keep(facts, found)
        return found

    def _keep(self, facts: Mapping[str, Any], outcome: Outcome) -> None:
        """Keep an outcome; of several processes the first does, and no other goes on before it has."""
        if self.kept is None:
            return
        if not self.workspace.shared or is_first():
            self.kept.put(facts, outcome)
            shutil.rmtree(self.kept.unfinished(facts), ignore_errors=True)
        if self.workspace.shared:
            wait_for_all()

    def _outcome_facts(self, name: str, encoded: Encoded, seed: int) -> dict[str, Any]:
        transform = encoded.transform
        return {
            **self.facts,
            "asked": [name, repr(self.profile), self.asked.get(name)],
            "weights": encoded.weights,
            "images": self._digests,
            "transform": None if transform is None else getattr(transform, "__name__", repr(transform)),
            "seed": [self.seed, seed],
            "computed": [str(self.workspace.dtype), self.workspace.device.type],
        }

    @cached_property
    def _digests(self) -> list[str]:
        sides = [
            self.images(name) for name in ("train", "query") if name != "train" or self.train is not None
        ]
        return [digest for side in sides for digest in (images_digest(side, len(side)), labels_digest(side))]

    def _computed(
        self, entry: Entry, name: str, encoded: Encoded, seed: int, facts: Mapping[str, Any]
    ) -> Outcome:
        title, shared = f"{encoded.name} {name}".strip(), self.workspace.shared
        if entry.views == "own":
            run = self._of_sources(entry, name, encoded, seed, facts)
            with step(name, title), memory_named(name):
                return by_first(run, self.profile) if shared else run()
        train, scored = encoded.pair(entry)
        query = _scored_at(self.profile.scored_at, scored)

        def of(part: DenseFeatures) -> Outcome:
            return entry.run(train, part, self.profile, seed=seed)

        with step(name, title), memory_named(name):
            if shared and not entry.pools:
                return by_all(of, query, self.profile)
            return by_first(lambda: of(query), self.profile) if shared else of(query)

    def _of_sources(
        self, entry: Entry, name: str, encoded: Encoded, seed: int, facts: Mapping[str, Any]
    ) -> Callable[[], Outcome]:
        """Return what runs a protocol that encodes images itself.

        Raises:
            ValueError: Its tokens were to be changed.
        """
        if encoded.transform is not None:
            message = f"expected features=none with protocols that encode images themselves, got {name}: leave it out of eval"
            raise ValueError(message)
        folder = None if self.kept is None else self.kept.unfinished(facts)
        sides = self.images("train"), self.images("query")
        return lambda: entry.run(encoded.encoder, *sides, self.profile, seed=seed, folder=folder)

    def _seeds(self, entry: Entry) -> range:
        return range(self.seed, self.seed + (entry.seeds or self.profile.seeds))

    def images(self, name: str) -> Source:
        """Return a set of images.

        Args:
            name: `train`; `query`, those that are scored; `warped`, these with a warped copy of each; or `memory`, the
                training images as they enter the memory.

        Raises:
            ValueError: There are no training images.
        """
        if name in ("query", "warped"):
            scored = _first(self.query, self.query_images)
            return scored if name == "query" else WarpPairs(scored, seed=self.seed)
        if self.train is None:
            raise ValueError(
                f"expected labelled training images of {self.query.name}, which has none: choose another benchmark"
            )
        train = _first(self.train, self.profile.train_images)
        if name == "train":
            return train
        profile = self.profile
        return MemoryViews(
            train, passes=profile.memory_passes, augment=profile.memory_augment, seed=self.seed
        )

    def tokens(self, encoder: Encoder) -> ImageTokens:
        """Return the tokens of the images that are scored, for measures that need no labels."""
        features = self.features(encoder)
        return ImageTokens(features.tokens.float(), features.globals, features.valid)

    def features(self, encoder: Encoder, name: str = "") -> DenseFeatures:
        """Return the plain features of the images that are scored."""
        return Encoded(self, encoder, name=name).features("query")

    def frame(self, encoder: Encoder) -> Frame:
        """Return the grid of tokens that images are brought to."""
        profile = self.profile
        rows, columns = profile.grid
        return Frame(rows, columns, encoder.patch_size, profile.aspect, profile.interpolation)

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
            self._row(name, metric, method, stated(*(side for side in results if side is not None))),
            before=first,
            after=second,
            delta=None if second is None else second - first,
            ci_low=metric.scale * interval.low,
            ci_high=metric.scale * interval.high,
        )

    def _row(self, name: str, metric: Metric, method: str, facts: Mapping[str, Any]) -> Score:
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
            method=method,
            size=f"{profile.grid[0]}x{profile.grid[1]} tokens",
            classes=classes or None,
            rules=profile.rules_of(self._seeds(self.protocols[name])),
            upsampling="bilinear",
            unit=metric.unit,
            better="higher" if metric.rises else "lower",
        )
        return replace(row, **facts)


def _scored_at(side: int | None, query: DenseFeatures) -> DenseFeatures:
    """Bring the labels to a square of `side` pixels by nearest neighbour."""
    if side is None or not query.num_classes:
        return query
    labels = F.interpolate(query.labels[:, None], size=(side, side), mode="nearest-exact")[:, 0]
    return replace(query, labels=labels)


def _first(source: Source, limit: int | None) -> Source:
    return source if limit is None or limit >= len(source) else Subset(source, np.arange(limit))
