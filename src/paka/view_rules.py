"""The rules across keys that views keep, checked with the others of `paka.rules`.

Each function returns what is wrong with a composed configuration, or None.
"""

from __future__ import annotations

from omegaconf import DictConfig


def overlap_is_containment(cfg: DictConfig) -> str | None:
    """Only the measure that views are drawn by is allowed."""
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


def locals_have_parents(cfg: DictConfig) -> str | None:
    """Locals drawn independently of the globals have no parents."""
    views = cfg.augmentation
    needs = [key for key in ("local_scale_of", "pair_with") if views[key] == "parent"]
    if views.containment is not None or not needs:
        return None
    return f"augmentation.containment: expected a number from 0 to 1 with augmentation.{needs[0]}=parent, got null"


def locals_are_smaller(cfg: DictConfig) -> str | None:
    """No local may be larger than the largest global."""
    low, high = cfg.augmentation.local_scale[1], cfg.augmentation.global_scale[1]
    return (
        None
        if low <= high or cfg.augmentation.local_scale_of == "parent"
        else f"augmentation.local_scale: expected no local above the largest global, {high}, got {low}"
    )


def globals_are_rendered(cfg: DictConfig) -> str | None:
    """Whoever needs augmented globals gets them."""
    reads_globals = not cfg.objective.projects
    needs = {
        "an objective that compares no pairs": reads_globals,
        "augmentation.global_pairs=true": cfg.augmentation.global_pairs,
        "augmentation.clean_teacher=false": not cfg.augmentation.clean_teacher,
    }
    reasons = [reason for reason, holds in needs.items() if holds]
    if cfg.augmentation.student_globals or not reasons:
        return None
    return f"augmentation.student_globals: expected true with {reasons[0]}, got False"


def clean_globals_are_kept(cfg: DictConfig) -> str | None:
    """Objectives without pairs read the clean globals, as targets."""
    if cfg.augmentation.clean_teacher or cfg.objective.projects:
        return None
    return "augmentation.clean_teacher: expected true with an objective that compares no pairs, got False"


def views_are_compared(cfg: DictConfig) -> str | None:
    """An objective that compares views needs at least one pair."""
    views = cfg.augmentation
    if not cfg.objective.projects or views.locals or (views.global_pairs and views.globals > 1):
        return None
    return (
        "augmentation: expected views to compare; set augmentation.locals to at least 1, or "
        "augmentation.globals to at least 2 with augmentation.global_pairs=true"
    )
