"""Archives are read in place: the same bytes as unpacked, and nothing is trusted."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from paka.miniatures.archives import encode, save_tar, tar
from paka.miniatures.pictures import picture
from paka.sources import archive
from paka.sources.archive import TarFiles, ZipFiles, open_files
from paka.sources.files import Files
from paka.sources.folder import Folder

SUFFIXES = (".jpg", ".png")
CONTENT = {"b/two.jpg": b"2" * 700, "a.PNG": b"1", "b/three.jpg": b"3" * 70_000, "ä.png": b"4" * 512}
IGNORED = {"notes.txt": b"x", "__MACOSX/._a.png": b"x", "b/.hidden.jpg": b"x", ".git/c.png": b"x"}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PAKA_CACHE", str(tmp_path / "cache"))


def save_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)


def content(files: Files) -> dict[str, bytes]:
    return {name.decode(): files.read(index) for index, name in enumerate(files.names)}


@pytest.fixture(params=["tar", "stored.zip", "deflated.zip"])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"packed.{request.param}"
    if request.param == "tar":
        save_tar(path, CONTENT | IGNORED)
    else:
        save_zip(
            path, CONTENT | IGNORED, zipfile.ZIP_STORED if "stored" in path.name else zipfile.ZIP_DEFLATED
        )
    return path


def test_the_bytes_are_those_that_were_packed(packed: Path) -> None:
    files = open_files(packed, SUFFIXES)
    assert content(files) == CONTENT
    assert files.names.tolist() == sorted(name.encode() for name in CONTENT)
    assert files.sizes.tolist() == [len(CONTENT[name.decode()]) for name in files.names]
    assert files.item(0) == f"{packed}/a.PNG"


def test_a_copy_opens_its_own_handles(packed: Path) -> None:
    files = open_files(packed, SUFFIXES)
    files.read(1)
    assert content(pickle.loads(pickle.dumps(files))) == CONTENT
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(content, (files,)) == CONTENT


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_loader_processes_read_one_archive_at_once(tmp_path: Path, kind: str) -> None:
    members = {f"{i:02d}.jpg": encode(picture(i, classes=3)[0]) for i in range(24)}
    save: Callable[[Path, dict[str, bytes]], None] = save_tar if kind == "tar" else save_zip
    save(tmp_path / f"photos.{kind}", members)
    source = Folder("train", root=tmp_path / f"photos.{kind}")
    source.image(0)  # its handle is open before the processes are forked
    expected = torch.from_numpy(np.stack([source.image(i) for i in range(24)]))
    dataset = [*range(24)]
    loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=lambda batch: torch.from_numpy(np.stack([source.image(i) for i in batch])))  # fmt: skip
    assert torch.equal(torch.cat(list(loader)), expected)


def test_tars_inside_a_tar_are_entered(tmp_path: Path) -> None:
    inner = {"n01": {"n01_1.jpg": b"1" * 600, "n01_2.jpg": b"2"}, "n02": {"n02_1.jpg": b"3" * 5000}}
    save_tar(
        tmp_path / "all.tar",
        {f"{wnid}.tar": tar(members) for wnid, members in inner.items()} | {"z.jpg": b"4"},
    )
    expected = {f"{wnid}/{name}": data for wnid, members in inner.items() for name, data in members.items()}
    assert content(TarFiles([tmp_path / "all.tar"], SUFFIXES)) == expected | {"z.jpg": b"4"}


def test_several_tars_are_one_listing(tmp_path: Path) -> None:
    for name, data in (("b", b"2"), ("a", b"1")):
        save_tar(tmp_path / f"{name}.tar", {"x.jpg": data, "x.cls": b"0"})
    files = TarFiles([tmp_path / "b.tar", tmp_path / "a.tar"], SUFFIXES)
    assert content(files) == {"a.tar/x.jpg": b"1", "b.tar/x.jpg": b"2"}
    assert files.item(1) == f"{tmp_path}/b.tar/x.jpg"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_and_links(tmp_path: Path, form: int) -> None:
    name = "/".join(["folder"] * 12) + "/photo.jpg"
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as file:
        member = tarfile.TarInfo(name)
        member.size = 3
        file.addfile(member, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "../../etc/passwd"
        file.addfile(link)
    assert content(TarFiles([tmp_path / "a.tar"], SUFFIXES)) == {name: b"abc"}


def test_a_second_start_reads_no_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar"
    save_tar(path, CONTENT)
    TarFiles([path], SUFFIXES)
    with monkeypatch.context() as patch:
        patch.setattr(archive.tarfile, "open", lambda **_: pytest.fail("the tar was scanned again"))
        assert content(TarFiles([path], SUFFIXES)) == CONTENT
    save_tar(path, {"new.jpg": b"new", **CONTENT})
    assert content(TarFiles([path], SUFFIXES)) == {"new.jpg": b"new", **CONTENT}


@pytest.mark.parametrize("name", ["../outside.jpg", "/etc/outside.jpg", "a/../../outside.jpg"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_outside_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / f"a.{kind}"
    (save_tar if kind == "tar" else save_zip)(path, {name: b"1"})
    with pytest.raises(ValueError, match=r"names a file outside of itself, '.*outside\.jpg'"):
        open_files(path, SUFFIXES)


def test_bombs_and_passwords_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_zip(tmp_path / "bomb.zip", {"a.png": bytes(20_000)})
    with monkeypatch.context() as patch:
        patch.setattr(archive, "LARGEST_MEMBER", 10_000)
        with pytest.raises(
            ValueError, match=r"bomb\.zip/a\.png claims 20,000 bytes, which may be a decompression bomb"
        ):
            ZipFiles(tmp_path / "bomb.zip", SUFFIXES)
    save_zip(tmp_path / "locked.zip", {"a.png": b"1"})
    data = bytearray((tmp_path / "locked.zip").read_bytes())
    data[data.find(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"locked\.zip/a\.png is encrypted"):
        ZipFiles(tmp_path / "locked.zip", SUFFIXES)


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    save_zip(tmp_path / "a.zip", CONTENT)
    whole = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.zip is damaged: expected a whole zip"):
        open_files(tmp_path / "a.zip", SUFFIXES)
    scrambled = bytearray(whole)
    scrambled[60:80] = bytes(20)
    (tmp_path / "a.zip").write_bytes(scrambled)
    files = open_files(tmp_path / "a.zip", SUFFIXES)
    with pytest.raises(ValueError, match=r"cannot be read: expected a whole zip"):
        content(files)
    save_tar(tmp_path / "a.tar", CONTENT)
    files = open_files(tmp_path / "a.tar", SUFFIXES)
    with (tmp_path / "a.tar").open("r+b") as file:
        file.truncate(3000)
    with pytest.raises(ValueError, match=r"b/three\.jpg is cut off: expected a whole tar"):
        content(files)
    (tmp_path / "text.tar").write_text("no tar " * 200)
    with pytest.raises(ValueError, match=r"text\.tar is damaged: expected an uncompressed tar"):
        open_files(tmp_path / "text.tar", SUFFIXES)


def test_a_cut_tar_is_named_when_it_is_opened(tmp_path: Path) -> None:
    data = tar(CONTENT)
    (tmp_path / "a.tar").write_bytes(data[:3000])
    with pytest.raises(ValueError, match=r"a\.tar"):
        content(open_files(tmp_path / "a.tar", SUFFIXES))


def test_other_kinds_of_files_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar(CONTENT)))
    with pytest.raises(ValueError, match="a compressed tar cannot be read in place; decompress it"):
        open_files(tmp_path / "a.tar.gz", SUFFIXES)
    (tmp_path / "packed.tar").write_bytes(gzip.compress(tar(CONTENT)))
    with pytest.raises(ValueError, match=r"packed\.tar is damaged: expected an uncompressed tar"):
        open_files(tmp_path / "packed.tar", SUFFIXES)
    (tmp_path / "a.rar").touch()
    with pytest.raises(ValueError, match=r"expected a folder, a \.zip or a \.tar of images, got .*a\.rar"):
        open_files(tmp_path / "a.rar", SUFFIXES)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_without_images_says_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    (save_tar if kind == "tar" else save_zip)(path, {"notes.txt": b"1"})
    with pytest.raises(FileNotFoundError, match=rf"a\.{kind} holds no images"):
        Folder("train", root=path)
