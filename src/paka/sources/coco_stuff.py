"""COCO-Stuff 164k (Caesar et al., CVPR 2018) in the coarse classes that work without labels is scored on."""

from __future__ import annotations

import os
from pathlib import Path

from paka.sources.folder import check_split, locate
from paka.sources.labelled import LabelledImages, Legend, choose, id_table, stems, under

# Coarse class and the stored ids of its fine ones: COCO's category less 1. The order is that of IIC and PiCIE.
_COARSE = """
electronic: 71-76
appliance: 77-82
food: 51-60
furniture: 61-70
indoor: 83-90
kitchen: 43-50
accessory: 25-32
animal: 15-24
outdoor: 9-14
person: 0
sports: 33-42
vehicle: 1-8
ceiling: 101-102
floor: 100 113-117
food-stuff: 120-121 152 169
furniture-stuff: 97 106-107 109 111 122 129 132 155 160 164
raw-material: 99 131 138 142
textile: 91-92 103-104 108 130 136 140 151 166-167
wall: 170-176
window: 179-180
building: 94-95 127 150 157 165
ground: 110 124-125 135 139 143-144 146 148 153 158
plant: 93 96 118 123 128 133 141 162 168
sky: 105 156
solid: 126 134 149 159 161 181
structural: 98 112 137 145 163
water: 119 147 154 177-178
"""


def _members(text: str) -> tuple[int, ...]:
    ends = [run.split("-") for run in text.split()]
    return tuple(i for run in ends for i in range(int(run[0]), int(run[-1]) + 1))


COARSE = {
    name: _members(ids) for name, _, ids in (line.partition(":") for line in _COARSE.split("\n") if line)
}
"""Stored ids of the fine classes by coarse class: 12 of things, then 15 of stuff."""

CONVENTIONS = {27: slice(0, 27), 15: slice(12, 27), 12: slice(0, 12)}
"""Which of the coarse classes are taken, by their number: all, stuff, things."""

SPLITS = {"train": 118_287, "val": 5_000}
"""Published number of images by split."""

_MASKS = (
    "annotations/stuffthingmaps",
    "annotations",
    "stuffthingmaps",
    "stuffthingmaps_trainval2017",
    "annotations/stuffthingmaps_trainval2017",
)


class CocoStuff(LabelledImages):
    """Images of COCO with the stuff and thing maps, in 27 coarse classes, the 15 of stuff, or the 12 of things.

    In the 15 and the 12 the pixels of all other classes are void, as with unlabelled ones (stored 255): a class
    for the rest would be the largest, and the coarse thing and stuff tables of the field have none.
    """

    def __init__(
        self, split: str, *, root: str | os.PathLike[str], classes: int = 27, name: str = "coco_stuff"
    ) -> None:
        """Pair the images and masks of one split.

        Args:
            split: `train` or `val`.
            root: Folder with `images/{split}2017` or `{split}2017`, and the PNGs of stuffthingmaps in
                `annotations/stuffthingmaps/{split}2017`, `annotations/{split}2017` or
                `stuffthingmaps/{split}2017`. From panoptic maps `paka.sources.panoptic.convert` writes such PNGs.
            classes: 27, 15 or 12.
            name: Name of the data set, as reports print it.

        Raises:
            FileNotFoundError: A folder or a mask is missing.
            ValueError: The split or the number of classes is unknown.
        """
        root = Path(root).expanduser()
        release = f"{check_split(split, tuple(SPLITS))}2017"
        taken = tuple(COARSE)[CONVENTIONS[choose(classes, tuple(CONVENTIONS), name)]]
        table = {stored: number for number, coarse in enumerate(taken) for stored in COARSE[coarse]}
        images = locate(root, f"images/{release}", release)
        names = stems(images, ".jpg")
        super().__init__(
            split,
            name=name,
            root=root,
            images=under(root, images, names, ".jpg"),
            masks=under(root, locate(root, *(f"{place}/{release}" for place in _MASKS)), names, ".png"),
            legend=Legend(taken, id_table(table, void=range(182))),
            published=SPLITS[split],
        )
