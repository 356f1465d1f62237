"""The rules that the values of a configuration keep, checked all at once and before torch is imported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from paka.conditions import (
    ALL_ABOVE_0,
    BELOW_ONE,
    BETAS,
    BINS,
    DEVICE,
    EVEN,
    EXPORTS,
    FRACTION,
    GRID,
    KEPT,
    LAYERS,
    NAMES,
    NOT_NEGATIVE,
    SHARE,
    SIZES,
    SWITCH,
    Rule,
    above,
    at_least,
    either,
    interval,
    one_of,
    some_of,
    within,
)
from paka.relations import ABSENT, RELATIONS, get

RULES: dict[Rule, tuple[str, ...]] = {
    at_least(0): (
        "seed",
        "augmentation.locals",
        "optim.lr_schedule.warmup_steps",
        "optim.weight_decay.warmup_steps",
        "teacher.momentum.warmup_steps",
        "tuning.freeze_blocks",
        "data.source.seed",
        "data.subset_seed",
        "benchmark.subset_seed",
        "logger.wandb.images",
        "objective.loss.seed",
        "objective.loss.queue",
        "kernel.seed",
        "contact_sheet",
        "profile.uncounted",
    ),
    NOT_NEGATIVE: (
        "optim.lr_schedule.end",
        "optim.weight_decay.start",
        "optim.weight_decay.end",
        "augmentation.photometric.brightness",
        "augmentation.photometric.contrast",
        "augmentation.photometric.saturation",
        "profile.linear_weight_decay",
        "kernel.offset",
    ),
    at_least(1): (
        "backbone.batch_size",
        "batch",
        "backbone.global_grid",
        "backbone.local_grid",
        "augmentation.photometric.erase_cell",
        "augmentation.globals",
        "head.hidden",
        "head.out",
        "image_head.hidden",
        "image_head.out",
        "image_head.prototypes",
        "tuning.adapter.rank",
        "eval.subset",
        "trainer.max_steps",
        "trainer.accumulate",
        "trainer.log_every",
        "trainer.checkpoint_every",
        "profile.k",
        "profile.memory",
        "profile.seeds",
        "profile.memory_passes",
        "profile.pca",
        "profile.kmeans_iterations",
        "profile.kmeans_restarts",
        "profile.linear_epochs",
        "profile.linear_batch",
        "profile.linear_resolution",
        "profile.bootstrap",
        "data.source.train",
        "data.source.val",
        "data.source.test",
        "data.source.size",
        "kernel.degree",
    ),
    at_least(2): ("objective.grid", "objective.loss.min_points", "objective.loss.references"),
    either(None, at_least(1)): (
        "eval.every",
        "tuning.train_blocks",
        "profile.train_images",
        "profile.val_images",
        "profile.test_images",
        "profile.clusters",
        "profile.scored_at",
        "teacher.refresh",
        "data.limit",
        "sample",
        "snapshots",
        "visualize",
    ),
    FRACTION: ("data.fraction", "data.labelled", "benchmark.labelled"),
    either(None, above(0)): ("trainer.gradient_clip", "profile.blue_std"),
    either("auto", at_least(0)): ("trainer.workers",),
    either("auto", at_least(1)): ("trainer.devices",),
    above(0): (
        "kernel.bandwidth",
        "kernel.alpha",
        "backbone.lr",
        "backbone.head_lr",
        "optim.lr",
        "optim.head_lr",
        "optim.lr_schedule.start",
        "tuning.adapter.alpha",
        "profile.temperature",
        "objective.loss.temperature",
        "objective.loss.steepness",
        "objective.loss.student_temperature",
        "objective.loss.teacher_temperature",
        "profile.linear_lr",
        "cache_limit",
        "logger.wandb.patience",
    ),
    within(0, 1): (
        "teacher.momentum.start",
        "teacher.momentum.end",
        "objective.loss.centre_momentum",
        "augmentation.flip",
        "augmentation.photometric.jitter_probability",
        "augmentation.photometric.gray_probability",
        "augmentation.photometric.blur_probability",
        "augmentation.photometric.solarize_probability",
        "augmentation.photometric.erase",
    ),
    within(0, 0.5): ("augmentation.photometric.hue",),
    SHARE: ("tuning.layer_decay",),
    either(None, within(0, 1)): ("augmentation.containment",),
    one_of("image", "parent"): ("augmentation.local_scale_of",),
    one_of("containing", "parent"): ("augmentation.pair_with",),
    BELOW_ONE: (
        "augmentation.least_overlap",
        "backbone.encoder.drop_path",
        "profile.linear_momentum",
        "kernel.momentum",
    ),
    interval(): ("augmentation.ratio", "augmentation.photometric.blur_sigma"),
    interval(1): ("augmentation.global_scale", "augmentation.local_scale"),
    SWITCH: (
        "objective.loss.deconfound",
        "objective.loss.unbiased",
        "objective.loss.pooled",
        "objective.loss.across_ranks",
        "tuning.biases_only",
        "profile.memory_augment",
        "profile.matching",
        "logger.wandb.artifact",
    ),
    KEPT: ("logger.csv",),
    either(None, one_of("online", "offline")): ("logger.wandb.mode",),
    BINS: ("objective.loss.scale_bins",),
    either(None, at_least(2)): ("objective.loss.max_points",),
    NAMES: ("tuning.adapter.targets",),
    GRID: ("profile.grid",),
    EVEN: ("kernel.features",),
    ALL_ABOVE_0: ("kernel.multipliers",),
    BETAS: ("optim.optimizer.betas",),
    one_of("median", "median_per_side", "fixed"): ("kernel.bandwidth_rule",),
    one_of("teacher", "student"): ("export",),
    either(None, one_of("teacher", "student")): ("branch",),
    EXPORTS: ("to",),
    SIZES: ("sizes",),
    Rule("an integer from 18 to 23", lambda value: type(value) is int and 18 <= value <= 23): ("opset",),
    one_of("last", "dse", "stability"): ("choose",),
    one_of("val", "test"): ("split",),
    one_of("keep", "stretch"): ("profile.aspect",),
    one_of("area", "bilinear", "bicubic"): ("profile.interpolation",),
    one_of("skip", "first", "class"): ("profile.memory_void",),
    one_of("skip", "vote"): ("profile.patch_void",),
    one_of("majority", "hungarian"): ("profile.cluster_naming",),
    one_of("drop", "zero"): ("profile.absent",),
    one_of("pixels", "images"): ("profile.depth_mean",),
    one_of("timm", "author"): ("backbone.pos_embed",),
    LAYERS: ("backbone.layers",),
    one_of("class", "mean"): ("image_head.pooling",),
    some_of("pairs", "globals", "clean", "teacher", "images"): ("objective.reads",),
    some_of("dim", "tags"): ("objective.told",),
    one_of("none", "zscore", "whiten", "rasa"): ("features",),
    one_of("float32", "float16"): ("store",),
    one_of("float32", "bfloat16"): ("search",),
    DEVICE: ("device",),
}
"""Which keys keep which rule; keys that a configuration does not have are passed over."""

RULED = frozenset(key for concerned in RULES.values() for key in concerned)
"""The keys that keep a rule."""


def validate(cfg: DictConfig) -> list[str]:
    """Return every problem with the values of a composed configuration, one sentence each."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    problems = {
        # A key that refers to a missing one is not missing itself.
        key: f"{key}: expected a value, got none; add {key}=..."
        for key, value in _items(plain)
        if value == "???" and not _is_excused(cfg, key)
    }
    problems |= _single(cfg)
    across = [
        rule.problem(cfg)
        for rule in RELATIONS
        if not problems.keys() & set(rule.keys) and all(get(cfg, key) is not ABSENT for key in rule.keys)
    ]
    return [*problems.values(), *filter(None, across)]


def _is_excused(cfg: DictConfig, key: str) -> bool:
    """Return whether a missing value is not needed: where a data set is, when a miniature of it is to be written."""
    return get(cfg, "miniature") not in (ABSENT, None) and key.partition(".")[0] in ("data", "benchmark")


def keys(node: Any) -> Iterator[str]:
    """Yield the dotted keys of nested dictionaries, those of the dictionaries included."""
    return (key for key, _ in _items(node))


def _items(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        yield f"{prefix}{name}", value
        if isinstance(value, dict):
            yield from _items(value, f"{prefix}{name}.")


def shown(value: object) -> str:
    """Return a value as it is written on the command line."""
    return "null" if value is None else repr(value)


def _single(cfg: DictConfig) -> dict[str, str]:
    return {
        key: f"{key}: expected {rule.expected}, got {shown(value)}"
        for rule, concerned in RULES.items()
        for key in concerned
        if (value := get(cfg, key)) is not ABSENT and not _refers(cfg, key) and not rule.holds(value)
    }


def _refers(cfg: DictConfig, key: str) -> bool:
    """Return whether the value is another key's, whose own rule speaks."""
    parent, _, name = key.rpartition(".")
    return OmegaConf.is_interpolation(OmegaConf.select(cfg, parent) if parent else cfg, name)


def listed(problems: Iterable[str]) -> str:
    """Return problems as text for the terminal: one as it is, several as a list."""
    unique = [*dict.fromkeys(problems)]
    if len(unique) == 1:
        return unique[0]
    return "\n".join([f"{len(unique)} problems with the configuration:", *(f"  - {one}" for one in unique)])
