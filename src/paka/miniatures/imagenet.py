"""A miniature of ImageNet as it is published: a tar of tars to train on, a flat tar to validate."""

from __future__ import annotations

from pathlib import Path

from paka.miniatures.archives import encode, save_tar, tar
from paka.miniatures.files import shares
from paka.miniatures.pictures import picture

WNIDS = ("n01440764", "n02119789", "n03445777")


def write(root: Path, *, images: int = 20, seed: int = 0) -> None:
    """Write `root/ILSVRC2012_img_{train,val}.tar`, with three classes in that of train."""
    parts = shares(images, ("train", "val"))
    content = {
        index: encode(picture(index, classes=6, seed=seed)[0]) for part in parts.values() for index in part
    }
    train = {
        f"{wnid}.tar": tar(
            {f"{wnid}_{index}.JPEG": content[index] for index in parts["train"][place :: len(WNIDS)]}
        )
        for place, wnid in enumerate(WNIDS)
    }
    save_tar(root / "ILSVRC2012_img_train.tar", train)
    val = {f"ILSVRC2012_val_{index:08d}.JPEG": content[index] for index in parts["val"]}
    save_tar(root / "ILSVRC2012_img_val.tar", val)
