"""Folders as one file: the same files give the same bytes."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from mlplatform.errors import PlatformError

# The earliest time that the format knows.
_TIME = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o100644


class ArchiveError(PlatformError):
    """A file is no archive of ours, or would write outside of its folder."""


def pack(directory: Path, file: BinaryIO) -> None:
    """Writes the folder's files as a zip: sorted, without times and owners."""
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(directory).as_posix(), _TIME)
            # Deflated unless it is compressed already, as a MOJO is.
            entry.compress_type = zipfile.ZIP_STORED if path.suffix == ".zip" else zipfile.ZIP_DEFLATED
            entry.external_attr = _FILE_MODE << 16
            with archive.open(entry, "w", force_zip64=True) as target, path.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)


def unpack(file: BinaryIO, directory: Path) -> None:
    """Writes the archive's files below the folder, which is made.

    Raises:
        ArchiveError: the file is no zip, is torn, or names a path outside of the folder.
    """
    root = directory.resolve()
    root.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                path = (root / entry.filename).resolve()
                if not path.is_relative_to(root) or entry.is_dir():
                    raise ArchiveError(
                        f"the archive holds {entry.filename!r}, which is no file below its folder"
                    )
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ArchiveError(f"the archive is torn or no zip file: {error}") from error
