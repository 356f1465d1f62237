"""Cityscapes (Cordts et al., CVPR 2016): streets of German cities, finely annotated."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from paka.sources.folder import check_split, locate
from paka.sources.labelled import LabelledImages, Legend, choose, hex_palette, id_table, stems, under

# The owners' classes from label id 7 on: colour, whether it is scored (+), name.
_LABELS = """
804080 + road
f423e8 + sidewalk
faaaa0 - parking
e6968c - rail track
464646 + building
66669c + wall
be9999 + fence
b4a5b4 - guard rail
966464 - bridge
96785a - tunnel
999999 + pole
999999 - polegroup
faaa1e + traffic light
dcdc00 + traffic sign
6b8e23 + vegetation
98fb98 + terrain
4682b4 + sky
dc143c + person
ff0000 + rider
00008e + car
000046 + truck
003c64 + bus
00005a - caravan
00006e - trailer
005064 + train
0000e6 + motorcycle
770b20 + bicycle
"""
_ROWS = [line.split(maxsplit=2) for line in _LABELS.strip().splitlines()]
FIRST_ID = 7
"""Label id of road; those below are void."""

SPLITS = {"train": 2975, "val": 500, "test": 1525}
"""Published number of images by split; the masks of `test` are empty."""


class Cityscapes(LabelledImages):
    """Images of Cityscapes with the fine annotations, in the 19 scored classes or all 27 that are no void."""

    def __init__(
        self, split: str, *, root: str | os.PathLike[str], classes: int = 19, name: str = "cityscapes"
    ) -> None:
        """Pair the images and masks of one split.

        Args:
            split: `train`, `val` or `test`.
            root: Folder with `leftImg8bit/{split}` and `gtFine/{split}`.
            classes: 19 for those the owners score, in the order of their train ids, the others void; 27 for
                label ids 7 to 33, as work on clustering scores them (PiCIE, STEGO).
            name: Name of the data set, as reports print it.

        Raises:
            FileNotFoundError: A folder or a mask is missing.
            ValueError: The split or the number of classes is unknown.
        """
        root = Path(root).expanduser()
        check_split(split, tuple(SPLITS))
        choose(classes, (19, 27), name)
        images, masks = locate(root, f"leftImg8bit/{split}"), locate(root, f"gtFine/{split}")
        names = stems(images, "_leftimg8bit.png")
        _refuse_train_ids(masks)
        taken = [i for i, row in enumerate(_ROWS) if classes == len(_ROWS) or row[1] == "+"]
        super().__init__(
            split,
            name=name,
            root=root,
            images=under(root, images, names, "_leftImg8bit.png"),
            masks=under(root, masks, names, "_gtFine_labelIds.png"),
            legend=Legend(
                tuple(_ROWS[i][2] for i in taken),
                id_table({FIRST_ID + i: new for new, i in enumerate(taken)}, void=range(34)),
                np.ascontiguousarray(hex_palette("".join(row[0] for row in _ROWS))[taken]),
            ),
            published=SPLITS[split],
        )


def _refuse_train_ids(masks: Path) -> None:
    if not stems(masks, "_gtfine_labelids.png") and stems(masks, "_gtfine_labeltrainids.png"):
        raise FileNotFoundError(
            f"{masks} holds *_gtFine_labelTrainIds.png only: expected *_gtFine_labelIds.png, which tell all "
            "classes apart; unpack the owners' gtFine_trainvaltest.zip there"
        )
