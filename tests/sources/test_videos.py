"""Videos open from their trees, in the order of time, and what is wrong with one is said with the name of its file."""

from __future__ import annotations

import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.configurations import composed

from paka.config import build
from paka.inspection import inspect
from paka.miniatures import davis, videos
from paka.miniatures.clips import clip
from paka.sources import VOID
from paka.sources.davis import DAVIS
from paka.sources.subset import Subset, labelled_splits, verify_labels
from paka.sources.videos import VideoFolder, Videos, in_order

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("miniatures")
    davis.write(root / "davis", images=25)
    videos.write(root / "frames", images=24)
    return root


@pytest.fixture
def tree(written: Path, tmp_path: Path) -> Path:
    """A copy of the miniature of DAVIS, to break."""
    return Path(shutil.copytree(written / "davis", tmp_path / "davis")) / "DAVIS"


@pytest.fixture
def own(written: Path, tmp_path: Path) -> Path:
    """A copy of the miniature of a folder of videos, to break."""
    return Path(shutil.copytree(written / "frames", tmp_path / "frames"))


def test_davis_opens_in_the_order_of_its_list(written: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        source = DAVIS("val", root=written / "davis")
    assert "davis val holds 15 images, but 1999 were published" in caplog.text
    assert source.videos == (range(5), range(5, 10), range(10, 15))
    assert source.classes == ()
    assert [Path(source.item(i)).parts[-2:] for i in (0, 6, 14)] == [
        ("blackswan", "00000.jpg"),
        ("camel", "00001.jpg"),
        ("cows", "00004.jpg"),
    ]
    expected = list(clip(3, 5))  # the second video to be scored, after two to train on
    np.testing.assert_array_equal(source.mask(6), expected[1][1])
    assert source.palette[[0, 1, 2]].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    verify_labels(source)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).mask(6), source.mask(6))


@pytest.mark.parametrize("root", ["davis", "davis/DAVIS"])
def test_davis_is_found_at_its_root_or_above(written: Path, root: str) -> None:
    assert len(DAVIS("train", root=written / root)) == 10


def test_nothing_is_trained_on_and_settings_are_chosen_on_the_training_videos(written: Path) -> None:
    data = composed("data=davis", f"data.root={written / 'davis'}").data
    for role, split in (("val", "train"), ("test", "val")):
        train, scored = labelled_splits(build(data.source), data.splits, role, seed=0)
        assert (train, scored.split) == (None, split)


def test_a_folder_of_videos_knows_of_some_frames_only(written: Path) -> None:
    source = VideoFolder("all", root=written / "frames")
    assert [len(video) for video in source.videos] == [6] * 4
    expected = list(clip(1, 6))
    for frame in range(6):
        known = frame % videos.MASKED == 0
        wanted = expected[frame][1] if known else np.full((96, 128), VOID)
        np.testing.assert_array_equal(source.mask(6 + frame), wanted)
    np.testing.assert_array_equal(source.image(6), expected[0][0])  # a PNG keeps every value
    assert (source.name, source.split) == ("frames", "all")


def test_a_subset_keeps_videos_from_their_first_frames_on(written: Path) -> None:
    source = Subset(VideoFolder("all", root=written / "frames"), np.arange(9))
    assert source.videos == (range(6), range(6, 9))


def test_frames_are_ordered_by_number_or_else_by_name(tmp_path: Path) -> None:
    assert in_order(["f10.png", "f9.png", "f8.jpg"], tmp_path) == ["f8.jpg", "f9.png", "f10.png"]
    assert in_order(["20.png", "5.png", "10.png", "15.png"], tmp_path) == [
        "5.png",
        "10.png",
        "15.png",
        "20.png",
    ]
    assert in_order(["b.png", "a.png"], tmp_path) == ["a.png", "b.png"]
    assert in_order(["a2.png", "b1.png", "a10.png"], tmp_path) == ["a10.png", "a2.png", "b1.png"]
    assert in_order(["7.png"], tmp_path) == ["7.png"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["00000.jpg", "00001.jpg", "00003.jpg"],
            r"00002\.jpg is missing: .* rise by 1, got 00001\.jpg and then 00003\.jpg",
        ),
        (["x_05.png", "x_10.png", "x_20.png"], r"x_15\.png is missing: .* rise by 5"),
        (["1.jpg", "01.jpg"], r"01\.jpg and 1\.jpg are the same frame"),
        (["a.jpg", "a.png"], r"a\.jpg and a\.png are the same frame"),
    ],
)
def test_gaps_and_doubles_are_named(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        in_order(names, tmp_path)


def test_frames_of_one_video_may_lie_in_the_folder_itself(
    tmp_path: Path, write_image: Write, write_mask: Write
) -> None:
    for frame in range(3):
        write_image(tmp_path / f"frames/{frame}.png", seed=frame)
    write_mask(tmp_path / "masks/0.png", 1)
    source = VideoFolder("all", root=tmp_path)
    assert source.videos == (range(3),)
    assert [np.unique(source.mask(frame)).tolist() for frame in range(3)] == [[1], [VOID], [VOID]]


def test_a_missing_frame_is_named(tree: Path) -> None:
    (tree / "JPEGImages/480p/camel/00002.jpg").unlink()
    with pytest.raises(ValueError, match=r"camel/00002\.jpg is missing"):
        DAVIS("val", root=tree)
    DAVIS("train", root=tree)


def test_a_missing_mask_of_davis_is_named(tree: Path) -> None:
    (tree / "Annotations/480p/cows/00003.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of 5 masks of a video are missing: expected cows/00003\.png"
    ):
        DAVIS("val", root=tree)


def test_a_missing_video_and_a_missing_list_are_named(tree: Path) -> None:
    shutil.rmtree(tree / "JPEGImages/480p/bear")
    with pytest.raises(
        FileNotFoundError, match="1 of the 2 videos of davis train are missing: expected bear in"
    ):
        DAVIS("train", root=tree)
    (tree / "ImageSets/2017/val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no list .*ImageSets/2017/val\.txt"):
        DAVIS("val", root=tree)


@pytest.mark.parametrize(
    ("source", "split", "wrong"), [(DAVIS, "val", "test-dev"), (VideoFolder, "all", "val")]
)
def test_wrong_roots_and_splits_are_explained(
    source: type[Videos], split: str, wrong: str, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="expected a folder with"):
        source(split, root=tmp_path / "gone")  # type: ignore[call-arg]
    with pytest.raises(FileNotFoundError, match="found nothing in"):
        source(split, root=tmp_path)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=f"split must be one of .*, but '{wrong}' came"):
        source(wrong, root=tmp_path)  # type: ignore[call-arg]


def test_a_first_frame_without_mask_is_named(own: Path) -> None:
    (own / "masks/clip_2/0001.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"clip_2/0001\.jpg has no mask: .* first frame .*data=folder"
    ):
        VideoFolder("all", root=own)


def test_a_first_frame_without_object_is_named(own: Path, write_mask: Write) -> None:
    source = VideoFolder("all", root=own)
    write_mask(own / "masks/clip_1/0001.png", 0, width=128, height=96)
    with pytest.raises(ValueError, match=r"clip_1/0001\.png of the first frame of a video has no object"):
        verify_labels(source)
    write_mask(own / "masks/clip_1/0001.png", VOID, width=128, height=96)
    with pytest.raises(ValueError, match="has no object"):
        source.mask(6)
    write_mask(own / "masks/clip_1/0003.png", 0, width=128, height=96)
    assert not source.mask(8).any(), "objects may leave"


def test_masks_and_frames_of_another_size_are_named(own: Path, write_mask: Write, write_image: Write) -> None:
    source = VideoFolder("all", root=own)
    write_mask(own / "masks/clip_0/0003.png", 1, width=64, height=48)
    with pytest.raises(ValueError, match=r"mask .*clip_0/0003\.png is 64x48 pixels"):
        source.mask(2)
    write_image(own / "frames/clip_0/0002.jpg", width=64, height=48)
    with pytest.raises(
        ValueError, match=r"frame .*clip_0/0002\.jpg is 64x48 .* first of its video, .*0001\.jpg, is 128x96"
    ):
        source.mask(1)


def test_masks_without_frames_are_named(own: Path, write_mask: Write) -> None:
    extra = write_mask(own / "masks/clip_3/0099.png", 1)
    with pytest.raises(ValueError, match=r"clip_3/0099\.png belongs to no frame: expected a frame 0099 in"):
        VideoFolder("all", root=own)
    extra.unlink()
    write_mask(own / "masks/clip_7/0001.png", 1)
    with pytest.raises(ValueError, match=r"clip_7/0001\.png belongs to no frame"):
        VideoFolder("all", root=own)


def test_the_doctor_counts_videos_masks_and_objects(own: Path) -> None:
    (split,) = inspect(lambda split: VideoFolder(split, root=own), {"test": "all"}, workers=1)
    assert not split.problems
    assert (split.masked, split.objects) == (12, 8)
    Image.new("RGB", (128, 96)).save(own / "masks/clip_0/0003.png")
    (own / "frames/clip_2/0004.jpg").write_bytes(b"")
    (split,) = inspect(lambda split: VideoFolder(split, root=own), {"test": "all"}, workers=1)
    assert [Path(problem.item).name for problem in split.problems] == ["0003.jpg", "0004.jpg"]
    assert "0003.png is stored as RGB" in split.problems[0].sentence


def test_clips_move_and_are_drawn_alike_again() -> None:
    frames = list(clip(0, 6, seed=3))
    again = list(clip(0, 6, seed=3))
    assert all(
        np.array_equal(*pair)
        for one, two in zip(frames, again, strict=True)
        for pair in zip(one, two, strict=True)
    )
    assert {1, 2} <= set(np.unique(frames[0][1]).tolist()) <= {0, 1, 2}
    assert not np.array_equal(frames[0][1], frames[5][1])
    assert not np.array_equal(frames[0][1], next(iter(clip(1, 1, seed=3)))[1])
