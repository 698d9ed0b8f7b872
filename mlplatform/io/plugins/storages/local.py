"""Artefacts in a folder of this machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from mlplatform.io.plugins.configuration import refuse_unknown_keys
from mlplatform.io.plugins.storages import StorageError
from mlplatform.settings import Settings

# Drafts and locks, on the same file system as what they become.
WORK = ".work"
COPY_BYTES = 1 << 20


class LocalStorage:
    """Objects are files below `base_path` (relative to the project; `local_artifacts` unless set)."""

    config_keys = ("base_path",)

    def __init__(self, config: Mapping[str, Any], settings: Settings, root: Path) -> None:
        refuse_unknown_keys("storage local", config, self.config_keys, StorageError)
        self._base = (root / config.get("base_path", "local_artifacts")).resolve()

    def write(self, key: str, content: BinaryIO) -> str:
        path = self._path(key)
        with self._told(path), self._replacing(path) as draft:
            shutil.copyfileobj(content, draft, COPY_BYTES)
        return str(path)

    def uri(self, key: str) -> str:
        return str(self._path(key))

    def open(self, uri: str) -> BinaryIO:
        path = Path(uri).resolve()
        if not path.is_relative_to(self._base):
            raise StorageError(
                f"{uri} is not below {self._base}, where this storage keeps its objects; "
                "set `storage.config.base_path` to where the run wrote"
            )
        with self._told(path):
            return path.open("rb")

    def list(self, prefix: str) -> list[str]:
        folder = self._path(prefix) if prefix.strip("/") else self._base
        with self._told(folder):
            return sorted(
                path.relative_to(self._base).as_posix()
                for path in folder.rglob("*")
                if path.is_file() and path.relative_to(self._base).parts[0] != WORK
            )

    def update(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        path = self._path(key)
        with self._told(path), self._locked(key):
            before = path.read_bytes() if path.exists() else None
            with self._replacing(path) as draft:
                draft.write(change(before))

    def check(self) -> None:
        with self._told(self._base):
            self._work_folder()
            with tempfile.TemporaryFile(dir=self._base / WORK):
                pass

    def _path(self, key: str) -> Path:
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or ".." in parts or parts[0] == WORK:
            raise StorageError(f"{key!r} is no key: it must be a relative path without '..'")
        return self._base.joinpath(*parts)

    def _work_folder(self) -> Path:
        folder = self._base / WORK
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def _replacing(self, path: Path) -> Iterator[IO[bytes]]:
        """A draft that becomes the file when the block ends, and goes away if it raises."""
        handle, draft = tempfile.mkstemp(prefix=f"{path.name}.", dir=self._work_folder())
        try:
            with open(handle, "wb") as file:
                yield file
                file.flush()
                # A power cut must not leave a name without its content.
                os.fsync(file.fileno())
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(draft, path)
        except BaseException:
            os.unlink(draft)
            raise

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        with (self._work_folder() / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        """An error of the file system as one that names the folder; missing files stay FileNotFoundError."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            # Errors of what is read into an object are not this storage's.
            if error.filename is None and error.errno is None:
                raise
            raise StorageError(
                f"storage local: {path}: {error.strerror}; check the disk and `storage.config.base_path`"
            ) from error
