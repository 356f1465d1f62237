"""Composing configurations in tests: every option of every group, with what it asks for."""

from __future__ import annotations

import functools
import pickle

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from paka.config import CONF_DIR

GROUPS = sorted(path.name for path in CONF_DIR.iterdir() if path.is_dir() and path.name != "hydra")
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF_DIR / group).glob("*.yaml"))]
RENDERED = {"scenes", "portraits"}
PHOTOGRAPHS = {"camvid": "camvid", "paper": "coco"}
"""Which data each preset asks for."""
LABELLED = {
    **dict.fromkeys(("nyu", "depth", "in_context_depth", "linear_depth"), ("nyu", "depth")),
    **dict.fromkeys(("spair", "correspondence"), ("spair", "correspondence")),
    "keypoints": ("keypoints", "correspondence"),
    **dict.fromkeys(("davis", "label_propagation"), ("davis", "label_propagation")),
    "frames": ("frames", "label_propagation"),
}
"""Which data set, and which protocols of it, options need that have to do with other labels than masks."""
TOGETHER = [{"image_level", "image_tags"}, {"masked", "masked_features"}]
"""Options of the groups augmentation and objective that need each other."""

SPECIAL = {
    ("backbone", "timm"): ["backbone=timm", "backbone.name=deit3_small_patch16_224.fb_in1k"],
    ("data", "mix"): [
        "data=mix",
        "data.parts.coco.root={root}/coco",
        "data.parts.imagenet.root={root}/imagenet",
    ],
    ("eval", "unsupervised"): ["benchmark=voc", "benchmark.root={root}/voc", "eval=unsupervised"],
    # Left out without a model of open_clip, and something has to be scored.
    ("eval", "zero_shot"): ["eval=[knn,zero_shot]"],
}
"""Options that ask for others, or for what is theirs alone."""


def composed(*overrides: str, name: str = "train") -> DictConfig:
    """Return what Hydra composes: each choice of options once, and single values as Hydra sets them last of all."""
    chosen = [one for one in overrides if one.partition("=")[0] in GROUPS]
    cfg: DictConfig = pickle.loads(_composed(name, *chosen))
    values = OverridesParser.create().parse_overrides([one for one in overrides if one not in chosen])
    ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
    return cfg


@functools.cache
def _composed(name: str, *chosen: str) -> bytes:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        return pickle.dumps(compose(name, overrides=list(chosen)))


def choosing(group: str, option: str, root: str = "x") -> list[str]:
    """Overrides that choose an option and give it what it asks for; data sets lie below `root` by their names."""
    for augmentation, objective in map(sorted, TOGETHER):
        if (group, option) in (("augmentation", augmentation), ("objective", objective)):
            return [f"augmentation={augmentation}", f"objective={objective}"]
    if (group, option) in SPECIAL:
        return [override.format(root=root) for override in SPECIAL[group, option]]
    if option in LABELLED and group != "profile":
        name, protocols = LABELLED[option]
        chosen = group if option == name else "benchmark"
        return [f"{chosen}={name}", f"{chosen}.root={root}/{name}", f"eval={protocols}"]
    if group == "experiment" and option in PHOTOGRAPHS:
        return [f"experiment={option}", f"data.root={root}/{PHOTOGRAPHS[option]}"]
    has_root = group in ("data", "benchmark") and (CONF_DIR / "data" / f"{option}.yaml").is_file()
    roots = [f"{group}.root={root}/{option}"] if has_root and option not in RENDERED else []
    return [f"{group}={option}", *roots]
