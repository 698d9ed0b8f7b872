"""Takes what a command has left in its folder to the object store."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from urllib.parse import quote

from mlplatform.io.control_plane.artefacts import Artefact
from mlplatform.io.object_store import ObjectStore
from mlplatform.worker.lines import Redaction

LONGEST_KEY = 1024


@dataclass(frozen=True)
class ArtefactLimits:
    """Of one execution."""

    files: int = 1000
    bytes: int = 2 * 2**30


@dataclass(frozen=True)
class Uploaded:
    artefacts: list[Artefact]
    # What was left out, and why, for the log.
    left_out: list[str]


def upload(
    folder: Path, execution_id: str, store: ObjectStore, redact: Redaction, limits: ArtefactLimits
) -> Uploaded:
    """Uploads the files below a folder in which nothing writes any more.

    Only regular files: no link is followed, out of the folder or within it.

    Raises:
        StoreUnavailable: some may be there, which nobody knows of.
    """
    done: dict[str, Artefact] = {}
    left_out: list[str] = []
    total = 0
    for name, file in _files(folder):
        path = redact(os.fsencode(name).decode(errors="replace"))
        size = os.fstat(file.fileno()).st_size
        key = f"artefacts/{execution_id}/{quote(path)}"
        if len(done) == limits.files:
            left_out.append(f"no more files are kept: there are more than {limits.files}")
            break
        if total + size > limits.bytes:
            left_out.append(f"{path} is not kept: with it, the files have more than {limits.bytes} bytes")
        elif len(key) > LONGEST_KEY:
            left_out.append(f"{path} is not kept: its name is too long")
        elif path in done:
            left_out.append(f"{path} is not kept: another file has the same name without secrets")
        else:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            store.put_file(key, file)
            total += size
            done[path] = Artefact(path, size, digest, key)
    return Uploaded(list(done.values()), left_out)


def _files(folder: Path) -> Iterator[tuple[str, BufferedReader]]:
    for parent, folders, names, handle in os.fwalk(folder, follow_symlinks=False):
        folders.sort()
        for name in sorted(names):
            # Not one that waits for a writer, if it is no file.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                opened = os.open(name, flags, dir_fd=handle)
            except OSError:
                continue
            with open(opened, "rb") as file:
                if stat.S_ISREG(os.fstat(opened).st_mode):
                    yield os.path.relpath(os.path.join(parent, name), folder), file
