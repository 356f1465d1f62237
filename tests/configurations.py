"""Composing configurations in tests: every option of every group, with what it asks for."""

from __future__ import annotations

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from paka.config import CONF_DIR

GROUPS = sorted(path.name for path in CONF_DIR.iterdir() if path.is_dir() and path.name != "hydra")
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF_DIR / group).glob("*.yaml"))]
LABELLED = {"voc", "ade20k", "coco_stuff", "coco_things", "cityscapes", "pascal_context", "nyu"}
"""Data sets of the field that are tested on miniatures of them."""
ROOTED = {"folder", "camvid", "coco", "imagenet"} | LABELLED
TOGETHER = [{"image_level", "image_tags"}, {"masked", "masked_features"}]
"""Options of the groups augmentation and objective that need each other."""


def composed(*overrides: str, name: str = "train") -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        return compose(name, overrides=list(overrides))


def choosing(group: str, option: str, root: str = "x") -> list[str]:
    """Overrides that choose an option and give it what it asks for."""
    for augmentation, objective in map(sorted, TOGETHER):
        if (group, option) in (("augmentation", augmentation), ("objective", objective)):
            return [f"augmentation={augmentation}", f"objective={objective}"]
    if (group, option) == ("backbone", "timm"):
        return ["backbone=timm", "backbone.name=deit3_small_patch16_224.fb_in1k"]
    if option in ("nyu", "depth"):
        chosen = group if option == "nyu" else "benchmark"
        return [f"{chosen}=nyu", f"{chosen}.root={root}", "eval=depth"]
    roots = [f"{group}.root={root}"] if group in ("data", "benchmark") and option in ROOTED else []
    if group == "experiment" and option in ("camvid", "paper"):
        roots = [f"data.root={root}"]
    return [f"{group}={option}", *roots]
