"""The rules that the values of a configuration keep, checked all at once and before torch is imported."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from paka.relations import ABSENT, RELATIONS, get


class Rule(NamedTuple):
    """A condition on one value.

    Attributes:
        expected: The condition in words, as in "expected ...".
        holds: Whether a value keeps it.
    """

    expected: str
    holds: Callable[[Any], bool]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _above(low: float) -> Rule:
    return Rule(f"a number above {low}", lambda value: _is_number(value) and value > low)


def _at_least(low: int) -> Rule:
    return Rule(f"an integer of at least {low}", lambda value: type(value) is int and value >= low)


def _within(low: float, high: float) -> Rule:
    return Rule(f"a number from {low} to {high}", lambda value: _is_number(value) and low <= value <= high)


def _one_of(*choices: str) -> Rule:
    return Rule(f"one of {', '.join(choices)}", lambda value: value in choices)


def _some_of(*choices: str) -> Rule:
    return Rule(
        f"a list out of {', '.join(choices)}",
        lambda value: isinstance(value, Sequence) and not isinstance(value, str) and {*value} <= {*choices},
    )


def _or(literal: str | None, rule: Rule) -> Rule:
    word = "null" if literal is None else literal
    return Rule(f"{word} or {rule.expected}", lambda value: value == literal or rule.holds(value))


def _filled(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0


def _pair(value: object, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(map(holds, value))


def _range(high: float | None = None) -> Rule:
    def holds(value: Any) -> bool:
        return _pair(value, _is_number) and 0 < value[0] <= value[1] and (high is None or value[1] <= high)

    return Rule(f"[low, high] with 0 < low <= high{'' if high is None else f' <= {high:g}'}", holds)


_NOT_NEGATIVE = Rule("a number of at least 0", lambda value: _is_number(value) and value >= 0)
_SHARE = Rule("a number above 0, up to 1", lambda value: _is_number(value) and 0 < value <= 1)
_BELOW_ONE = Rule("a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1)
_SWITCH = Rule("true or false", lambda value: isinstance(value, bool))
_BINS = Rule("an integer from 1 to 8", lambda value: type(value) is int and 1 <= value <= 8)
_GRID = Rule("[rows, columns], integers of at least 2", lambda value: _pair(value, _at_least(2).holds))
_NAMES = Rule("a list of at least one name", _filled)
_LAYERS = Rule(
    "null or a list of block numbers in ascending order, as [-4, -1]",
    lambda value: value is None or (len(value) > 0 and list(value) == sorted({*value})),
)
_FORMATS = ("timm", "dinov2_hub", "hf", "onnx")
_EXPORTS = Rule(
    f"one of {', '.join(_FORMATS)}, or a list of them",
    lambda value: all(one in _FORMATS for one in value) if _filled(value) else value in _FORMATS,
)
_SIZES = Rule(
    "null or a list of sizes in pixels, each a side or [height, width], as [224,[224,448]]",
    lambda value: (
        value is None
        or (
            _filled(value) and all(_at_least(1).holds(one) or _pair(one, _at_least(1).holds) for one in value)
        )
    ),
)
_EVEN = Rule("an even integer of at least 2", lambda value: _at_least(2).holds(value) and value % 2 == 0)
_ALL_ABOVE_0 = Rule(
    "a list of numbers above 0",
    lambda value: isinstance(value, Sequence) and len(value) > 0 and all(map(_above(0).holds, value)),
)


def _is_fraction(value: object) -> bool:
    try:
        return 0 < Fraction(str(value)) <= 1
    except (ValueError, ZeroDivisionError):
        return False


_FRACTION = Rule("a number above 0, up to 1, or a fraction like 1/8", _is_fraction)
_DEVICE = Rule(
    "auto, cpu, cuda or cuda:NUMBER",
    lambda value: isinstance(value, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", value) is not None,
)
_BETAS = Rule("two numbers from 0 to below 1", lambda value: _pair(value, _BELOW_ONE.holds))

_KEPT = Rule("a logger, because reports read metrics.csv", lambda value: isinstance(value, Mapping))

RULES: dict[Rule, tuple[str, ...]] = {
    _at_least(0): (
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
    _NOT_NEGATIVE: (
        "optim.lr_schedule.end",
        "optim.weight_decay.start",
        "optim.weight_decay.end",
        "augmentation.photometric.brightness",
        "augmentation.photometric.contrast",
        "augmentation.photometric.saturation",
        "profile.linear_weight_decay",
        "kernel.offset",
    ),
    _at_least(1): (
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
    _at_least(2): ("objective.grid", "objective.loss.min_points", "objective.loss.references"),
    _or(None, _at_least(1)): (
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
    _FRACTION: ("data.fraction", "data.labelled", "benchmark.labelled"),
    _or(None, _above(0)): ("trainer.gradient_clip", "profile.blue_std"),
    _or("auto", _at_least(0)): ("trainer.workers",),
    _or("auto", _at_least(1)): ("trainer.devices",),
    _above(0): (
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
    _within(0, 1): (
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
    _within(0, 0.5): ("augmentation.photometric.hue",),
    _SHARE: ("tuning.layer_decay",),
    _or(None, _within(0, 1)): ("augmentation.containment",),
    _one_of("image", "parent"): ("augmentation.local_scale_of",),
    _one_of("containing", "parent"): ("augmentation.pair_with",),
    _BELOW_ONE: (
        "augmentation.least_overlap",
        "backbone.encoder.drop_path",
        "profile.linear_momentum",
        "kernel.momentum",
    ),
    _range(): ("augmentation.ratio", "augmentation.photometric.blur_sigma"),
    _range(1): ("augmentation.global_scale", "augmentation.local_scale"),
    _SWITCH: (
        "objective.loss.deconfound",
        "objective.loss.unbiased",
        "objective.loss.pooled",
        "objective.loss.across_ranks",
        "tuning.biases_only",
        "profile.memory_augment",
        "profile.matching",
        "logger.wandb.artifact",
    ),
    _KEPT: ("logger.csv",),
    _or(None, _one_of("online", "offline")): ("logger.wandb.mode",),
    _BINS: ("objective.loss.scale_bins",),
    _or(None, _at_least(2)): ("objective.loss.max_points",),
    _NAMES: ("tuning.adapter.targets",),
    _GRID: ("profile.grid",),
    _EVEN: ("kernel.features",),
    _ALL_ABOVE_0: ("kernel.multipliers",),
    _BETAS: ("optim.optimizer.betas",),
    _one_of("median", "median_per_side", "fixed"): ("kernel.bandwidth_rule",),
    _one_of("teacher", "student"): ("export",),
    _or(None, _one_of("teacher", "student")): ("branch",),
    _EXPORTS: ("to",),
    _SIZES: ("sizes",),
    Rule("an integer from 18 to 23", lambda value: type(value) is int and 18 <= value <= 23): ("opset",),
    _one_of("last", "dse", "stability"): ("choose",),
    _one_of("val", "test"): ("split",),
    _one_of("keep", "stretch"): ("profile.aspect",),
    _one_of("area", "bilinear", "bicubic"): ("profile.interpolation",),
    _one_of("skip", "first", "class"): ("profile.memory_void",),
    _one_of("skip", "vote"): ("profile.patch_void",),
    _one_of("majority", "hungarian"): ("profile.cluster_naming",),
    _one_of("drop", "zero"): ("profile.absent",),
    _one_of("pixels", "images"): ("profile.depth_mean",),
    _one_of("timm", "author"): ("backbone.pos_embed",),
    _LAYERS: ("backbone.layers",),
    _one_of("class", "mean"): ("image_head.pooling",),
    _some_of("pairs", "globals", "clean", "teacher", "images"): ("objective.reads",),
    _some_of("dim", "tags"): ("objective.told",),
    _one_of("none", "zscore", "whiten", "rasa"): ("features",),
    _one_of("float32", "float16"): ("store",),
    _one_of("float32", "bfloat16"): ("search",),
    _DEVICE: ("device",),
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
