"""The files that keep who has logged in to the control plane."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    from mlplatform.client import Tokens


class LoginUnreadable(PlatformError):
    """The file of a login cannot be used."""


@dataclass(frozen=True)
class LoginFile:
    """The tokens for one address, in a file that only its owner reads."""

    path: Path

    @classmethod
    def of(cls, url: str) -> LoginFile:
        """One for each address, so that no token goes to another."""
        name = quote(url.rstrip("/"), safe="")
        return cls(Path(click.get_app_dir("mlplatform")) / "logins" / f"{name}.json")

    @contextmanager
    def locked(self) -> Iterator[None]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def load(self) -> Tokens | None:
        from mlplatform.client import Tokens

        try:
            return Tokens(**json.loads(self.path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            raise LoginUnreadable(f"{self.path} is no login: remove it, and log in again") from None

    def save(self, tokens: Tokens | None) -> None:
        if tokens is None:
            self.path.unlink(missing_ok=True)
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Another name, so that nobody reads half of it, nor finds it with the mode of one that was there.
        written = self.path.with_suffix(f".{os.getpid()}")
        with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(tokens), file)
        written.replace(self.path)
