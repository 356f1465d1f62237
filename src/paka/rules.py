"""The rules that the values of a configuration keep, checked all at once and before torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

_ABSENT = object()


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
_NAMES = Rule(
    "a list of at least one name",
    lambda value: isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0,
)
_EVEN = Rule("an even integer of at least 2", lambda value: _at_least(2).holds(value) and value % 2 == 0)
_ALL_ABOVE_0 = Rule(
    "a list of numbers above 0",
    lambda value: isinstance(value, Sequence) and len(value) > 0 and all(map(_above(0).holds, value)),
)
_BETAS = Rule("two numbers from 0 to below 1", lambda value: _pair(value, _BELOW_ONE.holds))

RULES: dict[Rule, tuple[str, ...]] = {
    _at_least(0): (
        "seed",
        "augmentation.locals",
        "optim.lr_schedule.warmup_steps",
        "optim.weight_decay.warmup_steps",
        "teacher.momentum.warmup_steps",
        "tuning.freeze_blocks",
        "data.source.seed",
        "objective.loss.seed",
        "kernel.seed",
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
        "profile.clusters",
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
    _at_least(2): ("objective.grid", "objective.loss.min_points"),
    _or(None, _at_least(1)): (
        "eval.every",
        "tuning.train_blocks",
        "profile.train_images",
        "profile.val_images",
        "profile.test_images",
        "teacher.refresh",
    ),
    _or(None, _above(0)): ("trainer.gradient_clip",),
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
        "objective.loss.student_temperature",
        "objective.loss.teacher_temperature",
        "profile.linear_lr",
    ),
    _within(0, 1): (
        "teacher.momentum.start",
        "teacher.momentum.end",
        "objective.loss.centre_momentum",
        "augmentation.flip",
        "augmentation.photometric.jitter_probability",
        "augmentation.photometric.gray_probability",
        "augmentation.photometric.blur_probability",
        "augmentation.photometric.erase",
    ),
    _within(0, 0.5): ("augmentation.photometric.hue",),
    _SHARE: ("augmentation.containment", "tuning.layer_decay"),
    _BELOW_ONE: ("backbone.encoder.drop_path", "profile.linear_momentum", "kernel.momentum"),
    _range(): ("augmentation.ratio", "augmentation.photometric.blur_sigma"),
    _range(1): ("augmentation.global_scale", "augmentation.local_scale"),
    _SWITCH: (
        "objective.loss.deconfound",
        "objective.loss.unbiased",
        "objective.loss.pooled",
        "objective.loss.across_ranks",
        "tuning.biases_only",
    ),
    _BINS: ("objective.loss.scale_bins",),
    _or(None, _at_least(2)): ("objective.loss.max_points",),
    _NAMES: ("tuning.adapter.targets",),
    _GRID: ("profile.grid",),
    _EVEN: ("kernel.features",),
    _ALL_ABOVE_0: ("kernel.multipliers",),
    _BETAS: ("optim.optimizer.betas",),
    _one_of("median", "median_per_side", "fixed"): ("kernel.bandwidth_rule",),
    _one_of("teacher", "student"): ("export",),
    _one_of("val", "test"): ("split",),
    _one_of("class", "mean"): ("image_head.pooling",),
    _some_of("pairs", "globals", "teacher", "images"): ("objective.reads",),
    _some_of("dim", "tags"): ("objective.told",),
    _one_of("none", "zscore", "whiten"): ("features",),
}
"""Which keys keep which rule; keys that a configuration does not have are passed over."""

RULED = frozenset(key for concerned in RULES.values() for key in concerned)
"""The keys that keep a rule."""


class Relation(NamedTuple):
    """A rule across keys; it is passed over while one of them has a problem of its own.

    Attributes:
        keys: The keys that it relates.
        problem: Returns what is wrong, or None.
    """

    keys: tuple[str, ...]
    problem: Callable[[DictConfig], str | None]


def _at_most(small: str, large: str) -> Relation:
    def problem(cfg: DictConfig) -> str | None:
        low, high = _get(cfg, small), _get(cfg, large)
        return None if low <= high else f"{small}: expected at most {large} = {high}, got {low}"

    return Relation((small, large), problem)


def _locals_are_smaller(cfg: DictConfig) -> str | None:
    low, high = cfg.augmentation.local_scale[1], cfg.augmentation.global_scale[1]
    return (
        None
        if low <= high
        else f"augmentation.local_scale: expected no local above the largest global, {high}, got {low}"
    )


def _globals_are_rendered(cfg: DictConfig) -> str | None:
    reads_globals = "globals" in cfg.objective.reads
    if cfg.augmentation.student_globals or not (cfg.augmentation.global_pairs or reads_globals):
        return None
    needs = (
        "an objective that looks at the student's globals"
        if reads_globals
        else "augmentation.global_pairs=true"
    )
    return f"augmentation.student_globals: expected true with {needs}, got False"


def _views_are_compared(cfg: DictConfig) -> str | None:
    views = cfg.augmentation
    if "pairs" not in cfg.objective.reads or views.locals or (views.global_pairs and views.globals > 1):
        return None
    return (
        "augmentation: expected views to compare; set augmentation.locals to at least 1, or "
        "augmentation.globals to at least 2 with augmentation.global_pairs=true"
    )


def _others_to_deconfound_with(cfg: DictConfig) -> str | None:
    least = 2 * cfg.trainer.accumulate
    if not cfg.objective.loss.deconfound or cfg.backbone.batch_size >= least:
        return None
    return (
        f"backbone.batch_size: expected at least {least}, two images at a time, with "
        f"objective.loss.deconfound=true, got {cfg.backbone.batch_size}"
    )


def _points_suffice(cfg: DictConfig) -> str | None:
    points, least = cfg.objective.grid**2, cfg.objective.loss.min_points
    return (
        None
        if least <= points
        else f"objective.loss.min_points: expected at most objective.grid ** 2 = {points}, got {least}"
    )


def _unbiased_needs_four(cfg: DictConfig) -> str | None:
    loss = cfg.objective.loss
    if not loss.unbiased or loss.min_points >= 4:
        return None
    return f"objective.loss.min_points: expected at least 4 with objective.loss.unbiased=true, got {loss.min_points}"


def _subset_suffices(cfg: DictConfig) -> str | None:
    most, least = cfg.objective.loss.max_points, cfg.objective.loss.min_points
    if most is None or most >= least:
        return None
    return f"objective.loss.max_points: expected at least objective.loss.min_points = {least}, got {most}"


def _parts_are_read(cfg: DictConfig) -> str | None:
    needed = {what for part in cfg.objective.parts.values() for what in part.reads}
    missing = sorted(needed - {*cfg.objective.reads})
    if not missing:
        return None
    return f"objective.reads: expected what its parts read, {', '.join(sorted(needed))}; {', '.join(missing)} is missing"


def _batch_is_shared_out(cfg: DictConfig) -> str | None:
    devices = 1 if cfg.trainer.devices == "auto" else cfg.trainer.devices
    if cfg.backbone.batch_size % (devices * cfg.trainer.accumulate) == 0:
        return None
    return (
        "backbone.batch_size: expected a multiple of trainer.devices x trainer.accumulate = "
        f"{devices} x {cfg.trainer.accumulate}, got {cfg.backbone.batch_size}"
    )


def _others_to_permute(cfg: DictConfig) -> str | None:
    if not cfg.teacher.permute or cfg.backbone.batch_size > 1:
        return None
    return "backbone.batch_size: expected at least 2 with teacher.permute=true, got 1"


def _blocks_are_chosen_once(cfg: DictConfig) -> str | None:
    first, last = cfg.tuning.freeze_blocks, cfg.tuning.train_blocks
    if last is None or not first:
        return None
    return (
        f"tuning.freeze_blocks: expected 0 with tuning.train_blocks={last}, got {first}; set one of the two"
    )


def _weights_are_chosen_once(cfg: DictConfig) -> str | None:
    if not cfg.tuning.biases_only or cfg.tuning.adapter is None:
        return None
    return "tuning.biases_only: expected false with a tuning.adapter, got True; set one of the two"


RELATIONS = (
    _at_most("backbone.local_grid", "backbone.global_grid"),
    _at_most("profile.k", "profile.memory"),
    Relation(("augmentation.local_scale", "augmentation.global_scale"), _locals_are_smaller),
    Relation(("augmentation.student_globals", "objective.reads"), _globals_are_rendered),
    Relation(("augmentation.locals", "augmentation.globals", "objective.reads"), _views_are_compared),
    Relation(("objective.grid", "objective.loss.min_points"), _points_suffice),
    Relation(
        ("objective.loss.deconfound", "backbone.batch_size", "trainer.accumulate"), _others_to_deconfound_with
    ),
    Relation(("objective.loss.unbiased", "objective.loss.min_points"), _unbiased_needs_four),
    Relation(("objective.loss.max_points", "objective.loss.min_points"), _subset_suffices),
    Relation(("objective.reads", "objective.parts"), _parts_are_read),
    Relation(("backbone.batch_size", "trainer.devices", "trainer.accumulate"), _batch_is_shared_out),
    Relation(("backbone.batch_size", "teacher.permute"), _others_to_permute),
    Relation(("tuning.freeze_blocks", "tuning.train_blocks"), _blocks_are_chosen_once),
    Relation(("tuning.biases_only", "tuning.adapter"), _weights_are_chosen_once),
)
"""Rules across keys."""


def validate(cfg: DictConfig) -> list[str]:
    """Return every problem with the values of a composed configuration, one sentence each."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    problems = {
        # A key that refers to a missing one is not missing itself.
        key: f"{key}: expected a value, got none; add {key}=..."
        for key, value in _items(plain)
        if value == "???"
    }
    problems |= _single(cfg)
    across = [
        rule.problem(cfg)
        for rule in RELATIONS
        if not problems.keys() & set(rule.keys) and all(_get(cfg, key) is not _ABSENT for key in rule.keys)
    ]
    return [*problems.values(), *filter(None, across)]


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


def _get(cfg: DictConfig, key: str) -> Any:
    return OmegaConf.select(cfg, key, default=_ABSENT)


def _single(cfg: DictConfig) -> dict[str, str]:
    return {
        key: f"{key}: expected {rule.expected}, got {shown(value)}"
        for rule, concerned in RULES.items()
        for key in concerned
        if (value := _get(cfg, key)) is not _ABSENT and not _refers(cfg, key) and not rule.holds(value)
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
