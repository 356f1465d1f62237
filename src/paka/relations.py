"""The rules across keys of a configuration, checked with those of single keys in `paka.rules`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

ABSENT = object()
"""What `get` returns for a key that a configuration does not have."""


def get(cfg: DictConfig, key: str) -> Any:
    """Return the value of a dotted key, or `ABSENT`."""
    return OmegaConf.select(cfg, key, default=ABSENT)


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
        low, high = get(cfg, small), get(cfg, large)
        return None if low <= high else f"{small}: expected at most {large} = {high}, got {low}"

    return Relation((small, large), problem)


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


def _deconfounds_all_points(cfg: DictConfig) -> str | None:
    loss = cfg.objective.loss
    if not loss.deconfound or loss.max_points is None:
        return None
    return (
        "objective.loss.max_points: expected null with objective.loss.deconfound=true, which needs the same points in "
        f"all pairs, got {loss.max_points}"
    )


def _queue_holds_references(cfg: DictConfig) -> str | None:
    queue, references = cfg.objective.loss.queue, cfg.objective.loss.references
    if queue == 0 or queue >= references:
        return None
    return (
        f"objective.loss.queue: expected 0 or at least objective.loss.references = {references}, got {queue}"
    )


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


def _pairs_are_permuted(cfg: DictConfig) -> str | None:
    if not cfg.teacher.permute or "pairs" in cfg.objective.reads:
        return None
    return "teacher.permute: expected false with an objective that compares no pairs of views, got True"


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


def _overlap_is_containment(cfg: DictConfig) -> str | None:
    measure = cfg.augmentation.overlap
    if measure == "containment":
        return None
    reason = (
        ": a small local has a small IoU with a large global by geometry; with the default scales and "
        "containment=0.9 only 0.03 % of the local-global pairs reach an IoU of 0.9"
    )
    return (
        "augmentation.overlap: expected containment, the share of the local's own area, got "
        f"{measure!r}{reason if measure == 'iou' else ''}"
    )


def _locals_have_parents(cfg: DictConfig) -> str | None:
    views = cfg.augmentation
    needs = [key for key in ("local_scale_of", "pair_with") if views[key] == "parent"]
    if views.containment is not None or not needs:
        return None
    return f"augmentation.containment: expected a number from 0 to 1 with augmentation.{needs[0]}=parent, got null"


def _locals_are_smaller(cfg: DictConfig) -> str | None:
    low, high = cfg.augmentation.local_scale[1], cfg.augmentation.global_scale[1]
    return (
        None
        if low <= high or cfg.augmentation.local_scale_of == "parent"
        else f"augmentation.local_scale: expected no local above the largest global, {high}, got {low}"
    )


def _globals_are_rendered(cfg: DictConfig) -> str | None:
    needs = {
        "an objective that looks at the student's globals": "globals" in cfg.objective.reads,
        "augmentation.global_pairs=true": cfg.augmentation.global_pairs,
        "augmentation.clean_teacher=false": not cfg.augmentation.clean_teacher,
    }
    reasons = [reason for reason, holds in needs.items() if holds]
    if cfg.augmentation.student_globals or not reasons:
        return None
    return f"augmentation.student_globals: expected true with {reasons[0]}, got False"


def _clean_globals_are_kept(cfg: DictConfig) -> str | None:
    if cfg.augmentation.clean_teacher or "clean" not in cfg.objective.reads:
        return None
    return (
        "augmentation.clean_teacher: expected true with an objective that reads the clean globals, got False"
    )


def _views_are_compared(cfg: DictConfig) -> str | None:
    views = cfg.augmentation
    if "pairs" not in cfg.objective.reads or views.locals or (views.global_pairs and views.globals > 1):
        return None
    return (
        "augmentation: expected views to compare; set augmentation.locals to at least 1, or "
        "augmentation.globals to at least 2 with augmentation.global_pairs=true"
    )


def _whole_views_are_compared(cfg: DictConfig) -> str | None:
    views = cfg.augmentation
    if "images" not in cfg.objective.reads or views.globals + views.locals > 1:
        return None
    return "augmentation.locals: expected at least 1 with one global and an objective that compares whole views, got 0"


def _authors_are_on_record(cfg: DictConfig) -> str | None:
    if cfg.backbone.pos_embed != "author" or cfg.backbone.resampling.author is not None:
        return None
    return (
        f"backbone.pos_embed: expected timm, because the authors of {cfg.backbone.name} are not known to resample "
        "otherwise, got 'author'; or set backbone.resampling.author={mode: bicubic, antialias: false}"
    )


def _parts_have_weights(cfg: DictConfig) -> str | None:
    parts, weights = sorted(cfg.data.parts), cfg.data.weights
    if parts == sorted(weights) and all(weight > 0 for weight in weights.values()):
        return None
    return f"data.weights: expected a number above 0 for each of {', '.join(parts)}, got {weights}"


def _snapshots_to_choose_from(cfg: DictConfig) -> str | None:
    if cfg.choose == "last" or cfg.snapshots is not None:
        return None
    return f"snapshots: expected a number of optimizer steps with choose={cfg.choose}, got null"


PACKAGES = {"wandb": "wandb", "tensorboard": "tensorboard", "mlflow": "mlflow"}
"""Package that each logger imports."""


def _loggers_are_installed(cfg: DictConfig) -> str | None:
    missing = [name for name in cfg.logger if not _is_installed(PACKAGES.get(str(name)))]
    if not missing:
        return None
    extra = missing[0] if missing[0] != "wandb" else ""
    how = (
        f"this package with its extra {extra}, as by pip install -e '.[{extra}]'"
        if extra
        else "it, as by pip install wandb"
    )
    return f"logger: expected the package {PACKAGES[missing[0]]} for logger={missing[0]}, found none: install {how}"


def _is_installed(package: str | None) -> bool:
    """Return whether there is a package, a mere folder of its name aside."""
    found = None if package is None else find_spec(package)
    return package is None or (found is not None and found.origin is not None)


def _started_one_way(cfg: DictConfig) -> str | None:
    if cfg.init_from is None:
        return None
    if cfg.resume is not None:
        return (
            "init_from: expected null with resume, which restores everything, got a path; set one of the two"
        )
    if cfg.backbone.weights is not None:
        return "backbone.weights: expected null with init_from, whose weights take their place, got a path; set one of the two"
    return None


def _project_has_a_name(cfg: DictConfig) -> str | None:
    name = cfg.logger.wandb.project
    if isinstance(name, str) and 0 < len(name) <= 128 and not {*name} & {*"/\\#?%:"}:
        return None
    return f"logger.wandb.project: expected up to 128 characters without any of / \\ # ? % :, got {name!r}"


RELATIONS = (
    Relation(("logger",), _loggers_are_installed),
    Relation(("init_from", "resume", "backbone.weights"), _started_one_way),
    Relation(("logger.wandb.project",), _project_has_a_name),
    Relation(("snapshots", "choose"), _snapshots_to_choose_from),
    Relation(("data.parts", "data.weights"), _parts_have_weights),
    Relation(("backbone.pos_embed", "backbone.resampling.author"), _authors_are_on_record),
    _at_most("backbone.local_grid", "backbone.global_grid"),
    _at_most("profile.k", "profile.memory"),
    Relation(("augmentation.overlap",), _overlap_is_containment),
    Relation(
        ("augmentation.containment", "augmentation.local_scale_of", "augmentation.pair_with"),
        _locals_have_parents,
    ),
    Relation(
        ("augmentation.local_scale", "augmentation.global_scale", "augmentation.local_scale_of"),
        _locals_are_smaller,
    ),
    Relation(("augmentation.student_globals", "objective.reads"), _globals_are_rendered),
    Relation(("augmentation.clean_teacher", "objective.reads"), _clean_globals_are_kept),
    Relation(("augmentation.locals", "augmentation.globals", "objective.reads"), _views_are_compared),
    Relation(("objective.grid", "objective.loss.min_points"), _points_suffice),
    Relation(
        ("objective.loss.deconfound", "backbone.batch_size", "trainer.accumulate"), _others_to_deconfound_with
    ),
    Relation(("objective.loss.unbiased", "objective.loss.min_points"), _unbiased_needs_four),
    Relation(("objective.loss.max_points", "objective.loss.min_points"), _subset_suffices),
    Relation(("objective.loss.deconfound", "objective.loss.max_points"), _deconfounds_all_points),
    Relation(("objective.loss.queue", "objective.loss.references"), _queue_holds_references),
    Relation(("objective.reads", "objective.parts"), _parts_are_read),
    Relation(("backbone.batch_size", "trainer.devices", "trainer.accumulate"), _batch_is_shared_out),
    Relation(("backbone.batch_size", "teacher.permute"), _others_to_permute),
    Relation(("teacher.permute", "objective.reads"), _pairs_are_permuted),
    Relation(("augmentation.locals", "augmentation.globals", "objective.reads"), _whole_views_are_compared),
    Relation(("tuning.freeze_blocks", "tuning.train_blocks"), _blocks_are_chosen_once),
    Relation(("tuning.biases_only", "tuning.adapter"), _weights_are_chosen_once),
)
"""Rules across keys."""
