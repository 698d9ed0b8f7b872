"""Where the artefacts of runs are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Protocol

from mlplatform.errors import PlatformError


class StorageError(PlatformError):
    """An artefact cannot be read or written; the message names it and the remedy."""


class Storage(Protocol):
    """Made as `Storage(config, settings, root)`, like a data connector. Keys are paths with slashes."""

    # What its configuration may hold; other keys are refused when the profile is validated.
    config_keys: tuple[str, ...]

    def write(self, key: str, content: BinaryIO) -> str:
        """Puts the object, whole or not at all, and returns its URI (`s3://bucket/key`, or a path)."""
        ...

    def uri(self, key: str) -> str:
        """Where the object of a key is or would be."""
        ...

    def open(self, uri: str) -> BinaryIO:
        """A seekable reader; raises FileNotFoundError if there is no such object, else StorageError."""
        ...

    def list(self, prefix: str) -> list[str]:
        """The keys below a prefix."""
        ...

    def update(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replaces the object by `change(content)` (None: there is none), safe against others who do the "
        "same."""
        ...

    def check(self) -> None:
        """Raises StorageError unless the storage can be written now (`mlplatform debug`)."""
        ...
