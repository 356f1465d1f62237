"""SPair-71k (Min et al. 2019, arXiv 1908.10543): pairs of images of 18 categories with keypoints that both show."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from paka.sources import KeypointPair
from paka.sources.folder import check_split, locate
from paka.sources.keypoints import Annotation, checked, existing, field, read_json
from paka.sources.labelled import NamedImages
from paka.sources.listing import list_files

logger = logging.getLogger(__name__)

SPLITS = {"trn": 53_340, "val": 5_384, "test": 12_234}
"""Published number of pairs by split."""


class SPair(NamedImages):
    """The images of one split; distances are measured by the longer side of the box around the second object.

    Two images of each category come first, then two more of each, and so on: the first so many images are of all
    categories and have pairs.
    """

    def __init__(self, split: str, *, root: str | os.PathLike[str], name: str = "spair") -> None:
        """List the pairs of one split by the names of their files; these are opened when pairs are asked for.

        Args:
            split: `trn`, `val` or `test`.
            root: Folder with `JPEGImages/CATEGORY` and `PairAnnotation/{split}`, or with `SPair-71k`.
            name: Name of the data set, as reports print it.

        Raises:
            FileNotFoundError: A folder or an image is missing, or there are no pairs.
            ValueError: The split is unknown, or a file is not called as those of the owners.
        """
        root = Path(root).expanduser()
        check_split(split, tuple(SPLITS))
        tree = locate(root, "PairAnnotation", "SPair-71k/PairAnnotation").parent
        self._folder = locate(tree, f"PairAnnotation/{split}")
        self._files = [os.fsdecode(file) for file in list_files(self._folder, (".json",))]
        if not self._files:
            message = (
                f"{self._folder} has no pairs: expected JSON files of the owners; unpack SPair-71k again"
            )
            raise FileNotFoundError(message)
        if len(self._files) != SPLITS[split]:
            logger.warning(
                "%s %s holds %d pairs, but %d were published", name, split, len(self._files), SPLITS[split]
            )
        named: dict[str, str] = {}
        for file in self._files:
            for image in _images(file):
                named.setdefault(image, str(self._folder / file))
        folder = locate(tree, "JPEGImages")
        ordered = {image: named[image] for image in _two_by_two(named)}
        super().__init__(split, name=name, root=folder, images=existing(folder, ordered))

    @cached_property
    def pairs(self) -> tuple[KeypointPair, ...]:
        """The pairs of the split, in the order of their files.

        Raises:
            ValueError: A file is damaged, or has points that lie outside their image or do not go together.
        """
        return checked(self._annotations(), self)

    def _annotations(self) -> Iterator[Annotation]:
        for file in self._files:
            first, second = _images(file)
            where = str(self._folder / file)
            content = read_json(self._folder / file)
            points, targets, box = (
                field(content, key, where) for key in ("src_kps", "trg_kps", "trg_bndbox")
            )
            yield Annotation(where, first, second, points, targets, box, first.partition("/")[0])


def _images(file: str) -> tuple[str, str]:
    """Return the images `CATEGORY/NAME.jpg` of a pair whose file is called `NUMBER-NAME-NAME:CATEGORY.json`."""
    names, _, category = file.removesuffix(".json").partition(":")
    parts = names.split("-")
    if len(parts) != 3 or not category:
        raise ValueError(
            f"expected files called NUMBER-SOURCE-TARGET:CATEGORY.json, got {file}; use those of the owners"
        )
    return f"{category}/{parts[1]}.jpg", f"{category}/{parts[2]}.jpg"


def _two_by_two(images: dict[str, str]) -> list[str]:
    """Return images in order of their names, but two of each category at a time."""
    seen: Counter[str] = Counter()
    rounds = {}
    for image in sorted(images):
        category = image.partition("/")[0]
        rounds[image] = seen[category] // 2
        seen[category] += 1
    return sorted(rounds, key=lambda image: (rounds[image], image))
