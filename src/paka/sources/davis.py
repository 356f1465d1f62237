"""DAVIS 2017 (Pont-Tuset et al., arXiv 1704.00675): videos in which every frame has its objects outlined."""

from __future__ import annotations

import os
from pathlib import Path

from paka.sources.folder import check_split, locate
from paka.sources.labelled import read_list
from paka.sources.videos import Videos, by_folder, paired

SPLITS = {"train": 4209, "val": 1999}
"""Published number of frames by split, of 60 and 30 videos."""


class DAVIS(Videos):
    """The videos of DAVIS 2017 at 480p, with a mask of the objects for every frame."""

    def __init__(self, split: str, *, root: str | os.PathLike[str], name: str = "davis") -> None:
        """List the videos of one split.

        Args:
            split: `train` or `val`; the masks of the others are not public.
            root: Folder with `JPEGImages/480p/VIDEO/00000.jpg`, `Annotations/480p/VIDEO/00000.png` and
                `ImageSets/2017/{train,val}.txt`, or with `DAVIS`, which has these.
            name: Name of the data set, as reports print it.

        Raises:
            FileNotFoundError: A folder, the list of the split, a video of it or a mask is missing.
            ValueError: The split is unknown, a frame is missing, or a mask belongs to no frame.
        """
        root = Path(root).expanduser()
        check_split(split, tuple(SPLITS))
        folders = (
            locate(root, "JPEGImages/480p", "DAVIS/JPEGImages/480p"),
            locate(root, "Annotations/480p", "DAVIS/Annotations/480p"),
        )
        chosen = read_list(folders[0].parents[1] / f"ImageSets/2017/{split}.txt", name=name)
        frames, masks = by_folder(folders[0], (".jpg",)), by_folder(folders[1], (".png",))
        absent = [video for video in chosen if video not in frames]
        if absent:
            raise FileNotFoundError(
                f"{len(absent)} of the {len(chosen)} videos of {name} {split} are missing: expected {absent[0]} in "
                f"{folders[0]}; unpack the files of the owners again, or correct the list that names it"
            )
        videos = [paired(video, (frames[video], masks.get(video, [])), folders) for video in chosen]
        for video in videos:
            bare = [frame for frame in video.frames if frame not in video.masks]
            if bare:
                raise FileNotFoundError(
                    f"{len(bare)} of {len(video.frames)} masks of a video are missing: expected "
                    f"{Path(bare[0]).with_suffix('.png')} in {folders[1]}; unpack the files of the owners again"
                )
        super().__init__(split, name=name, root=root, folders=folders, videos=videos, published=SPLITS[split])
