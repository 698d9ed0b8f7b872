from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from mlplatform.io.archives import ArchiveError, pack, unpack

FILES = {"model.json": b"{}\n", "estimator/a.bin": bytes(range(256)) * 300, "estimator/mojo.zip": b"PK"}


def folder(root: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def packed(directory: Path) -> bytes:
    file = io.BytesIO()
    pack(directory, file)
    return file.getvalue()


def content_of(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_a_folder_comes_back(tmp_path: Path) -> None:
    unpack(io.BytesIO(packed(folder(tmp_path / "a"))), tmp_path / "b" / "c")
    assert content_of(tmp_path / "b" / "c") == FILES


def test_the_same_files_are_the_same_bytes(tmp_path: Path) -> None:
    first = folder(tmp_path / "first")
    second = folder(tmp_path / "second", dict(reversed(FILES.items())))
    for path in second.rglob("*"):
        os.utime(path, (1, 1))
        if path.is_file():
            path.chmod(0o600)
    assert packed(first) == packed(second)


def test_what_is_compressed_is_not_compressed_again(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(packed(folder(tmp_path)))) as archive:
        kinds = {entry.filename: entry.compress_type for entry in archive.infolist()}
    assert kinds["estimator/mojo.zip"] == zipfile.ZIP_STORED
    assert kinds["estimator/a.bin"] == zipfile.ZIP_DEFLATED


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "folder/"])
def test_nothing_is_written_outside(name: str, tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"")
    with pytest.raises(ArchiveError, match="no file below its folder"):
        unpack(file, tmp_path / "inside")
    assert content_of(tmp_path) == {}


@pytest.mark.parametrize("keep", [0, 10, 500, -30])
def test_a_torn_archive_is_told(keep: int, tmp_path: Path) -> None:
    content = packed(folder(tmp_path / "a"))
    with pytest.raises(ArchiveError, match="torn or no zip file"):
        unpack(io.BytesIO(content[:keep]), tmp_path / "b")


def test_a_changed_byte_is_told(tmp_path: Path) -> None:
    content = bytearray(packed(folder(tmp_path / "a")))
    content[content.index(b"a.bin") + 200] ^= 0xFF
    with pytest.raises(ArchiveError):
        unpack(io.BytesIO(bytes(content)), tmp_path / "b")
