"""Settings of the evaluation protocols, fixed before methods are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeVar

from paka.resizing import INTERPOLATIONS, Interpolation
from paka.statistics import Metric, iou_metric

Settings = TypeVar("Settings")

COUNTS = (
    "memory",
    "k",
    "pca",
    "kmeans_iterations",
    "kmeans_restarts",
    "linear_epochs",
    "linear_batch",
    "linear_resolution",
    "memory_passes",
    "seeds",
    "bootstrap",
)
"""Settings of a profile that are at least 1."""

CAPS = ("train_images", "val_images", "test_images")
"""Settings of a profile that are at least 1, or None for no limit."""

OPTIONAL = ("clusters", "scored_at")
"""Settings of a profile that are at least 1, or None to follow the data set."""

CHOICES = {
    "aspect": ("keep", "stretch"),
    "interpolation": INTERPOLATIONS,
    "memory_void": ("skip", "first", "class"),
    "patch_void": ("skip", "vote"),
    "cluster_naming": ("majority", "hungarian"),
    "absent": ("drop", "zero"),
    "depth_mean": ("pixels", "images"),
}
"""What the named switches of a profile may be."""


@dataclass(frozen=True)
class Profile:
    """Settings of all protocols; they are fixed before methods are compared.

    Attributes:
        name: Name, as results state it.
        grid: Rows and columns of tokens per image.
        aspect: `keep` fits images into the grid as they are; `stretch` fills it.
        interpolation: Filter that images are resized with, see `paka.resizing.resize`.
        blue_std: Standard deviation of blue to normalise pixels with; None for the encoder's own.
        train_images: At most this many labelled training images; None for all.
        val_images: At most this many validation images; None for all.
        test_images: At most this many test images; None for all.
        seeds: Runs of each protocol, from `seed` on; their mean is the score.
        memory: Patches in the in-context memory.
        memory_passes: Times each training image enters the memory.
        memory_augment: Whether it does so cropped and with changed colours.
        memory_void: `skip` leaves void pixels out of the memory's labels; `first` takes them for the first class,
            `class` makes void a class like others, of which no pixel is right.
        patch_void: `skip` lets void pixels neither name a patch nor be predicted by probes of patches: they take the
            class that most of their patch shows; `vote` makes void a class like others, of which no pixel is right.
        k: Neighbours per query patch.
        temperature: Of the softmax over the neighbours' cosine similarities.
        clusters: Clusters K of over-clustering; None for as many as there are classes.
        cluster_naming: `majority` names each cluster after the class that most of its pixels show; `hungarian`
            gives each class one cluster.
        pca: Dimensions kept before clustering.
        kmeans_iterations: Lloyd iterations at most.
        kmeans_restarts: Initialisations; the one of least inertia counts.
        linear_lr: Learning rate of the linear probe's SGD.
        linear_momentum: Its momentum.
        linear_weight_decay: Its weight decay.
        linear_epochs: Passes over the training images.
        linear_batch: Images per step.
        linear_resolution: Side in pixels at which logits and masks are compared in training.
        scored_at: Side in pixels of the square that labels and predictions are compared on; None for the frame's own.
        matching: Whether predicted classes are matched to the true ones before they are scored.
        absent: What classes in neither truth nor prediction count: `drop` leaves them out, `zero` makes them 0.
        uncounted: Classes that are never scored, yet counted as 0.
        depth_mean: Whether errors of depth are averaged over all `pixels`, or over `images` that are averaged each.
        settings: What single protocols read beside, by any name; a protocol takes those of its own kind, see `of`.
        bootstrap: Resamples behind each confidence interval.

    Raises:
        ValueError: A setting is out of range.
    """

    name: str
    grid: Sequence[int]
    aspect: Literal["keep", "stretch"]
    interpolation: Interpolation
    blue_std: float | None
    train_images: int | None
    val_images: int | None
    test_images: int | None
    seeds: int
    memory: int
    memory_passes: int
    memory_augment: bool
    memory_void: str
    patch_void: str
    k: int
    temperature: float
    clusters: int | None
    cluster_naming: str
    pca: int
    kmeans_iterations: int
    kmeans_restarts: int
    linear_lr: float
    linear_momentum: float
    linear_weight_decay: float
    linear_epochs: int
    linear_batch: int
    linear_resolution: int
    scored_at: int | None
    matching: bool
    absent: str
    uncounted: int
    depth_mean: str
    bootstrap: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse settings that no protocol can run with."""
        for name in COUNTS:
            self._require(name, "at least 1", met=getattr(self, name) >= 1)
        for name in CAPS:
            cap = getattr(self, name)
            self._require(name, "at least 1, or null for all images", met=cap is None or cap >= 1)
        for name in ("temperature", "linear_lr"):
            value = getattr(self, name)
            self._require(name, "finite and above 0", met=isfinite(value) and value > 0)
        for name in OPTIONAL:
            self._require(
                name, "at least 1, or null", met=(getattr(self, name) or 1) >= 1 and getattr(self, name) != 0
            )
        for name, choices in CHOICES.items():
            self._require(name, f"one of {', '.join(choices)}", met=getattr(self, name) in choices)
        self._require("uncounted", "at least 0", met=self.uncounted >= 0)
        self._require("blue_std", "above 0, or null", met=self.blue_std is None or self.blue_std > 0)
        self._require("linear_momentum", "in [0, 1)", met=0 <= self.linear_momentum < 1)
        decay = self.linear_weight_decay
        self._require("linear_weight_decay", "finite and at least 0", met=isfinite(decay) and decay >= 0)
        two = len(self.grid) == 2 and min(self.grid) >= 1
        self._require("grid", "two numbers of tokens, rows and columns, of at least 1", met=two)
        self._require("k", f"at most profile.memory={self.memory}", met=self.k <= self.memory)

    def of(self, kind: type[Settings]) -> Settings:
        """Return the settings of exactly one kind: those of the profile, or else the published defaults."""
        return next((found for found in self.settings.values() if type(found) is kind), kind())

    @property
    def files(self) -> list[Path]:
        """Files that settings of single protocols name, whose content outcomes depend on."""
        return [file for found in self.settings.values() for file in getattr(found, "files", ())]

    @property
    def iou(self) -> Metric:
        """The mean intersection over union as this profile defines it."""
        return iou_metric(matching=self.matching, absent=self.absent, uncounted=self.uncounted)

    def rules_of(self, seeds: Sequence[int]) -> str:
        """Return what scores of runs with these seeds depend on beside sizes, in one line."""
        facts = [
            f"aspect {self.aspect}",
            f"memory void {self.memory_void}",
            f"{self.memory_passes} x {'augmented' if self.memory_augment else 'plain'} memory",
            f"clusters by {self.cluster_naming}",
            f"absent classes {self.absent}",
        ]
        if self.interpolation != "area":
            facts.append(f"{self.interpolation} images")
        if self.patch_void != "skip":
            facts.append("void votes")
        if self.blue_std is not None:
            facts.append(f"blue std {self.blue_std}")
        if self.scored_at is not None:
            facts.append(f"scored at {self.scored_at}x{self.scored_at}")
        if self.matching:
            facts.append("Hungarian matching")
        if self.uncounted:
            facts.append(f"{self.uncounted} uncounted classes")
        return "; ".join([*facts, f"{len(seeds)} x seeded"])

    def number_of_clusters(self, classes: int) -> int:
        """Return K for a data set of that many classes."""
        return classes if self.clusters is None else self.clusters

    def _require(self, name: str, expected: str, *, met: bool) -> None:
        if not met:
            message = (
                f"expected profile.{name} to be {expected}, got {getattr(self, name)}: change profile.{name}"
            )
            raise ValueError(message)
