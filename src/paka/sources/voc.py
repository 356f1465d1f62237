"""PASCAL VOC 2012 (Everingham et al., IJCV 2010), with the further masks of SBD (Hariharan et al., ICCV 2011)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from paka.sources.decode import read_mask
from paka.sources.folder import check_split, locate
from paka.sources.labelled import LabelledImages, Legend, files_in, id_table, name_list, read_list, under

CLASSES = name_list(
    """
background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
motorbike, person, pottedplant, sheep, sofa, train, tvmonitor
"""
)
"""The classes in order of the stored ids from 0."""

SPLITS = {"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582}
"""Published number of images by split."""

_TREES = ("", "VOCdevkit/VOC2012/", "VOC2012/")
_LISTS = "ImageSets/Segmentation"


class VOC(LabelledImages):
    """The segmentation images of VOC 2012, in 21 classes with the background; the outlines of objects are void."""

    def __init__(
        self,
        split: str,
        *,
        root: str | os.PathLike[str],
        sbd_root: str | os.PathLike[str] | None = None,
        name: str = "voc",
    ) -> None:
        """Pair the images and masks of one split.

        `trainaug` is `ImageSets/Segmentation/trainaug.txt` with the masks of `SegmentationClassAug`, and those of
        `SegmentationClass` where that has none. Without that list it is VOC's train and what SBD has besides
        VOC's val, with SBD's own masks.

        Args:
            split: `train`, `val`, `trainval` or `trainaug`.
            root: Folder with `JPEGImages`, `SegmentationClass` and `ImageSets`, or with `VOCdevkit/VOC2012`.
            sbd_root: Folder with SBD's `dataset`; None looks in `root/sbd`. For `trainaug` without a list.
            name: Name of the data set, as reports print it.

        Raises:
            FileNotFoundError: A folder, the list of the split, or a file that it names is missing.
            ValueError: The split is unknown.
        """
        root = Path(root).expanduser()
        check_split(split, tuple(SPLITS))
        tree = locate(root, *(f"{place}JPEGImages" for place in _TREES)).parent
        if split != "trainaug":
            names = read_list(tree / _LISTS / f"{split}.txt", name=name)
            masks = under(tree, tree / "SegmentationClass", names, ".png")
        elif (tree / _LISTS / "trainaug.txt").is_file():
            names = read_list(tree / _LISTS / "trainaug.txt", name=name)
            masks = _augmented_masks(tree, names)
        else:
            names, masks = _from_sbd(tree, root / "sbd" if sbd_root is None else Path(sbd_root).expanduser())
        super().__init__(
            split,
            name=name,
            root=tree,
            images=under(tree, tree / "JPEGImages", names, ".jpg"),
            masks=masks,
            legend=Legend(CLASSES, id_table({i: i for i in range(len(CLASSES))}), voc_palette(len(CLASSES))),
            published=SPLITS[split],
        )

    def stored(self, index: int) -> NDArray[np.uint8]:
        """Return the ids of image `index` as its PNG or its .mat file of SBD stores them, (H, W) uint8.

        Raises:
            ValueError: The mask cannot be decoded.
        """
        path = self.label_path(index)
        return read_sbd_mask(path) if path.suffix == ".mat" else read_mask(path)


def voc_palette(classes: int) -> NDArray[np.uint8]:
    """Return the colours of VOC, (C, 3) uint8 RGB: bits 0, 3, 6 of an id are the high bits of red, and so on."""
    ids = np.arange(classes)
    bits = [[(ids >> (3 * place + channel) & 1) << (7 - place) for place in range(3)] for channel in range(3)]
    return np.array([sum(channel) for channel in bits], dtype=np.uint8).T


def read_sbd_mask(path: Path) -> NDArray[np.uint8]:
    """Read the class ids of a .mat file of SBD, `GTcls.Segmentation`, (H, W) uint8.

    Raises:
        FileNotFoundError: The file cannot be opened.
        ValueError: The file is damaged or holds something else.
    """
    try:
        content = loadmat(path, variable_names=["GTcls"], squeeze_me=True, struct_as_record=False)
        ids = np.asarray(content["GTcls"].Segmentation)
    except (MatReadError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise ValueError(
            f"cannot read mask {path}, expected SBD's .mat with GTcls.Segmentation: {error}; unpack SBD again"
        ) from error
    return ids.astype(np.uint8)


def _augmented_masks(tree: Path, names: list[str]) -> NDArray[np.bytes_]:
    there = files_in(locate(tree, "SegmentationClassAug"))
    ending = {name: "Aug" if os.fsencode(f"{name}.png") in there else "" for name in names}
    return under(tree, tree, (f"SegmentationClass{ending[name]}/{name}" for name in names), ".png")


def _from_sbd(tree: Path, sbd: Path) -> tuple[list[str], NDArray[np.bytes_]]:
    """Return the names of trainaug and their masks: those of VOC for its own train, of SBD for the rest."""
    if not sbd.is_dir():
        raise FileNotFoundError(
            f"voc has no trainaug: expected the list {tree / _LISTS / 'trainaug.txt'}, or SBD in {sbd}; "
            "add the list and SegmentationClassAug/, set sbd_root to the folder of SBD, or use split train"
        )
    dataset = locate(sbd, "dataset/cls", "benchmark_RELEASE/dataset/cls", "cls").parent
    own, scored = (read_list(tree / _LISTS / f"{part}.txt", name="voc") for part in ("train", "val"))
    listed = {name for part in ("train", "val") for name in read_list(dataset / f"{part}.txt", name="SBD")}
    further = sorted(listed - {*own, *scored})
    masks = (
        under(tree, tree / "SegmentationClass", own, ".png"),
        under(tree, dataset / "cls", further, ".mat"),
    )
    names = [*own, *further]
    order = np.argsort(names)
    return [names[i] for i in order], np.concatenate(masks)[order]
