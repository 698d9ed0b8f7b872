"""A database on this machine's disk for one process, whose commits outlive it and the machine."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

from mlplatform.errors import PlatformError, TransientError


class LocalDatabase:
    """SQLite, which a subclass gives its tables. Methods may be called from any thread; they take turns.

    Attributes:
        name: what messages call it.
        format: of the tables; raised when they change, so that an older file is refused, not misread.
        schema: the statements that make the tables of this class, after those of its bases.
        other_format: what is said of a file of another format: `path`, `found`, `known` and the remedy.
        in_use: raised where another process has it open.
        unavailable: raised where it cannot be used; nothing of what was to be written is in it.
    """

    name: ClassVar[str]
    format: ClassVar[int]
    schema: ClassVar[str]
    other_format: ClassVar[str]
    in_use: ClassVar[type[PlatformError]]
    unavailable: ClassVar[type[TransientError]]

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = threading.RLock()
        with self._told():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Transactions are begun and ended by us.
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            with ExitStack() as failed:
                # Who cannot use it does not keep its lock.
                failed.callback(self._database.close)
                self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
                # Takes the lock, which SQLite would take only with the first write.
                with self._transaction():
                    self._prepare()
                failed.pop_all()

    def close(self) -> None:
        with self._turn:
            self._database.close()

    def _prepare(self) -> None:
        (found,) = self._database.execute("PRAGMA user_version").fetchone()
        if found == self.format:
            return
        if found:
            raise self.unavailable(self.other_format.format(path=self._path, found=found, known=self.format))
        schemas = (vars(kind).get("schema", "") for kind in reversed(type(self).__mro__))
        for statement in filter(None, (each.strip() for each in ";".join(schemas).split(";"))):
            self._database.execute(statement)
        self._database.execute(f"PRAGMA user_version = {self.format}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            # A failed COMMIT may have ended the transaction by itself.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Takes a turn, and says in our words what goes wrong, but for values that are there already."""
        try:
            with self._turn:
                yield
        except sqlite3.IntegrityError:
            raise
        except (sqlite3.DatabaseError, OSError) as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise self.in_use(
                    f"{self._path} is in use by another process: end that one, or give this one another"
                    " MLPLATFORM_DATA_DIRECTORY"
                ) from None
            raise self.unavailable(
                f"the {self.name} {self._path} cannot be used ({error}): look whether its disk is full or"
                " gone"
            ) from error
