"""One encoder's features of the images of a benchmark, each set extracted when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from paka.collectives import is_first, wait_for_all
from paka.encoder import Encoder
from paka.feature_store import FeatureCache, Storage, images_digest, weights_digest
from paka.features import DenseFeatures, Transform, extent, extract, taken
from paka.frames import Frame
from paka.progress import step
from paka.protocols import Entry
from paka.sources import Source

if TYPE_CHECKING:
    from paka.benchmark import Benchmark


class Encoded:
    """What an encoder makes of a benchmark's images.

    Args:
        benchmark: Which images, and how they are seen.
        encoder: The frozen encoder.
        transform: Training-free change of its tokens, fitted on the training images.
        name: What the encoder is called.
    """

    def __init__(
        self, benchmark: Benchmark, encoder: Encoder, transform: Transform | None = None, *, name: str = ""
    ) -> None:
        self.benchmark, self.transform, self.name = benchmark, transform, name
        blue = benchmark.profile.blue_std
        self.encoder = encoder if blue is None else encoder.normalised_by(blue_std=blue)
        self.sets: dict[str, DenseFeatures] = {}
        self.changed: tuple[tuple[str, str], tuple[DenseFeatures, DenseFeatures]] | None = None
        self.weights = weights_digest(self.encoder)

    def pair(self, entry: Entry) -> tuple[DenseFeatures | None, DenseFeatures]:
        """Return the features that a protocol reads: those of the training images, if it does, and of the scored ones."""
        names = self.benchmark.sets(entry)
        if self.transform is None:
            return (self.features(names[0]) if entry.trains else None), self.features(names[1])
        if self.changed is None or self.changed[0] != names:
            self.changed = names, self.transform(*map(self.features, names))
        return self.changed[1]

    def features(self, name: str) -> DenseFeatures:
        """Return the plain features of a set of images; see `Benchmark.images`."""
        if name not in self.sets:
            with step(f"encode {name}", f"{self.name} encode {name}".strip()):
                self.sets[name] = self._extract(self.benchmark.images(name))
        return self.sets[name]

    def part(self, name: str, indices: Sequence[int]) -> DenseFeatures:
        """Return the plain features of some images of a set, without the others and what joins them.

        They are read from the cache if it has the whole set, else extracted.
        """
        benchmark = self.benchmark
        source, frame = benchmark.images(name), benchmark.frame(self.encoder)
        storage = None if benchmark.cache is None else self._storage(benchmark.cache, source, frame)
        if storage is not None and storage.complete:
            found = taken(storage, source, frame=frame, indices=indices)
        else:
            encoder = self.encoder.to(benchmark.workspace.device)
            found = extract(encoder, source, frame=frame, indices=indices, workspace=benchmark.workspace)
        return replace(found, pairs=(), videos=())

    def _extract(self, source: Source) -> DenseFeatures:
        frame, cache = self.benchmark.frame(self.encoder), self.benchmark.cache
        storage = None if cache is None else self._storage(cache, source, frame)
        device = self.benchmark.workspace.device
        return extract(
            self.encoder.to(device),
            source,
            frame=frame,
            indices=range(len(source)),
            storage=storage,
            workspace=self.benchmark.workspace,
        )

    def _storage(self, cache: FeatureCache, source: Source, frame: Frame) -> Storage:
        """Return where features are kept; the first of several processes makes the place, and the others find it."""
        if self.benchmark.workspace.shared and not is_first():
            wait_for_all()
        storage = cache.open(self.facts(source), extent(self.encoder, frame, len(source)))
        if self.benchmark.workspace.shared and is_first():
            wait_for_all()
        return storage

    def facts(self, source: Source) -> Mapping[str, Any]:
        """Return what the features of a source's images depend on, as JSON."""
        profile = self.benchmark.profile
        return {
            **self.benchmark.facts,
            "weights": self.weights,
            "images": images_digest(source, len(source)),
            "variant": list(source.variant),
            "grid": list(profile.grid),
            "aspect": profile.aspect,
            "interpolation": profile.interpolation,
        }
