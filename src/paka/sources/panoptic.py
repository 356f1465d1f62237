"""Masks of class ids from COCO's panoptic maps (Kirillov et al., CVPR 2019)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paka.sources import VOID
from paka.sources.decode import read_image
from paka.sources.labelled import id_table

_MERGED = (168, 112, 101, 156, 97, 164, 114, 139, 134, 123, 110, 138, 120, 95, 149, 172, 151)
"""For the merged categories 184 to 200: tree, fence, ceiling, sky, cabinet, table, floor, pavement, mountain, grass,
dirt, paper, food, building, rock, wall, rug."""

STUFF_IDS = id_table(
    {category: category - 1 for category in range(1, 183)}
    | {184 + i: stored for i, stored in enumerate(_MERGED)}
)
"""Id of stuffthingmaps for each COCO panoptic category, (256,) uint8; a merged one has an id of its coarse class."""


def convert(
    panoptic_json: str | os.PathLike[str],
    panoptic_pngs: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    table: NDArray[np.uint8] = STUFF_IDS,
) -> int:
    """Write a PNG of class ids for each panoptic map, under the same name; pixels of no segment become void.

    A pixel's segment is R + 256 G + 256^2 B. `convert(ROOT/annotations/panoptic_val2017.json,
    ROOT/annotations/panoptic_val2017, ROOT/stuffthingmaps/val2017)` makes what `CocoStuff` reads.

    Args:
        panoptic_json: File with the segments and categories of a split.
        panoptic_pngs: Folder of the maps that it names.
        out: Folder to write to; it is made if it does not exist.
        table: Id to write for each category, (256,) uint8.

    Returns:
        The number of files written.

    Raises:
        FileNotFoundError: The JSON or a map is missing.
        ValueError: The JSON has no segments, a category that it does not define or one above 255, or a map
            cannot be decoded.
    """
    content = _load(Path(panoptic_json))
    known = {category["id"] for category in content["categories"] if category["id"] <= VOID}
    Path(out).mkdir(parents=True, exist_ok=True)
    for annotation in content["annotations"]:
        file = annotation["file_name"]
        category_of = {segment["id"]: segment["category_id"] for segment in annotation["segments_info"]}
        wrong = sorted({*category_of.values()} - known)
        if wrong:
            raise ValueError(
                f"{panoptic_json} gives {file} the category {wrong[0]}: expected one of its {len(known)} "
                f"categories up to {VOID}; use the file of the owners"
            )
        ids = _class_ids(read_image(Path(panoptic_pngs) / file), category_of, table)
        Image.fromarray(ids).save(Path(out) / file)
    return len(content["annotations"])


def _load(panoptic_json: Path) -> dict[str, Any]:
    if not panoptic_json.is_file():
        message = (
            f"there is no {panoptic_json}: expected COCO's panoptic_SPLIT2017.json; unpack its annotations"
        )
        raise FileNotFoundError(message)
    content: dict[str, Any] = json.loads(panoptic_json.read_text(encoding="utf-8"))
    if any("segments_info" not in annotation for annotation in content["annotations"]):
        message = (
            f"{panoptic_json} has no segments: expected COCO's panoptic_SPLIT2017.json, not that of instances"
        )
        raise ValueError(f"{message}; use panoptic_annotations_trainval2017.zip")
    return content


def _class_ids(
    panoptic: NDArray[np.uint8], category_of: dict[int, int], table: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    segments = panoptic.astype(np.int64) @ np.array([1, 256, 256**2])
    found, inverse = np.unique(segments, return_inverse=True)
    ids = [table[category_of[segment]] if segment in category_of else VOID for segment in found.tolist()]
    return np.array(ids, dtype=np.uint8)[inverse].reshape(segments.shape)
