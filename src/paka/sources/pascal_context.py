"""PASCAL Context (Mottaghi et al., CVPR 2014): every pixel of VOC 2010, in its 59 most frequent classes."""

from __future__ import annotations

import os

from paka.sources.folder import check_split, locate
from paka.sources.labelled import LabelledImages, Legend, choose, id_table, name_list, read_list, under
from paka.sources.voc import voc_palette

NAMES = name_list(
    """
aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, table, dog, horse, motorbike, person,
pottedplant, sheep, sofa, train, tvmonitor, bag, bed, bench, book, building, cabinet, ceiling, cloth, computer,
cup, door, fence, floor, flower, food, grass, ground, keyboard, light, mountain, mouse, curtain, platform, sign,
plate, road, rock, shelves, sidewalk, sky, snow, bedclothes, track, tree, truck, wall, water, window, wood
"""
)
"""The classes in order of the stored ids from 1."""

SPLITS = {"train": 4998, "val": 5105}
"""Published number of images by split."""


class PascalContext(LabelledImages):
    """Images of PASCAL Context; stored id 0 is all that belongs to none of the 59 classes."""

    def __init__(
        self, split: str, *, root: str | os.PathLike[str], classes: int = 59, name: str = "pascal_context"
    ) -> None:
        """Pair the images and masks of one split.

        The masks are the PNGs that MMSegmentation's converter writes. The owners publish no colours: classes
        have those of VOC for their stored id.

        Args:
            split: `train` or `val`.
            root: Folder with `JPEGImages`, `SegmentationClassContext` and `ImageSets/SegmentationContext`, or
                with `VOCdevkit/VOC2010` or `VOC2010`.
            classes: 59 makes stored id 0 void, 60 makes it a class, "background", as id 0.
            name: Name of the data set, as reports print it.

        Raises:
            FileNotFoundError: A folder, the list of the split, or a file that it names is missing.
            ValueError: The split or the number of classes is unknown.
        """
        check_split(split, tuple(SPLITS))
        background = choose(classes, (59, 60), name) - 59
        trees = ("", "VOCdevkit/VOC2010/", "VOC2010/")
        masks = locate(root, *(f"{tree}SegmentationClassContext" for tree in trees))
        tree = masks.parent
        names = read_list(tree / f"ImageSets/SegmentationContext/{split}.txt", name=name)
        super().__init__(
            split,
            name=name,
            root=tree,
            images=under(tree, tree / "JPEGImages", names, ".jpg"),
            masks=under(tree, masks, names, ".png"),
            legend=Legend(
                ("background",) * background + NAMES,
                id_table(
                    {i: i - 1 + background for i in range(1 - background, 60)}, void=range(1 - background)
                ),
                voc_palette(60)[1 - background :],
            ),
            published=SPLITS[split],
        )
