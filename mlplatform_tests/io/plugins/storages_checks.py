"""What every storage must be able to do: run each of CHECKS on yours, with a folder of keys of its own.

@pytest.mark.parametrize("check", CHECKS)
def test_my_storage(check):
    CHECKS[check](MyStorage({...}, settings, root))
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlplatform.io.plugins.storages import Storage, StorageError
from mlplatform_tests.io.racing import race

LARGE = 20_000_000


class Failing(io.RawIOBase):
    """A reader that gives some bytes and then fails."""

    def __init__(self, good: int) -> None:
        self._left = good

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._left <= 0:
            raise RuntimeError("the disk is gone")
        self._left -= size
        return bytes(size)


def read(storage: Storage, uri: str) -> bytes:
    with storage.open(uri) as file:
        return file.read()


def gives_back_what_was_written(storage: Storage) -> None:
    for content in (b"", b"content", random.Random(0).randbytes(LARGE)):
        uri = storage.write("run/step/artefact", io.BytesIO(content))
        assert uri == storage.uri("run/step/artefact")
        with storage.open(uri) as file:
            assert file.read() == content


def reads_at_any_position(storage: Storage) -> None:
    content = random.Random(1).randbytes(100_000)
    uri = storage.write("a", io.BytesIO(content))
    with storage.open(uri) as file:
        assert file.seek(-10, io.SEEK_END) == len(content) - 10
        assert file.read() == content[-10:]
        assert file.read() == b""
        file.seek(50)
        assert file.read(7) == content[50:57]
        assert file.tell() == 57


def reads_parquet(storage: Storage) -> None:
    table = pa.table({"x": range(1_000)})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    with storage.open(storage.write("t", io.BytesIO(sink.getvalue()))) as file:
        assert pq.ParquetFile(file).read().equals(table)


def replaces(storage: Storage) -> None:
    for content in (b"long content", b"short"):
        uri = storage.write("a/b", io.BytesIO(content))
        assert read(storage, uri) == content
    assert storage.list("a") == ["a/b"]


def a_reader_keeps_its_version(storage: Storage) -> None:
    """One who reads while the object is replaced gets the old content or an error, and no mixture."""
    old, new = b"o" * LARGE, b"n" * LARGE
    with storage.open(storage.write("a", io.BytesIO(old))) as file:
        content = file.read(10)
        storage.write("a", io.BytesIO(new))
        try:
            content += file.read()
        except StorageError as error:
            assert "replaced while it was read" in str(error)  # noqa: PT017
        else:
            assert content == old


def leaves_nothing_half_written(storage: Storage) -> None:
    for good in (1_000, LARGE):
        storage.write("run/kept", io.BytesIO(b"before"))
        for key in ("run/kept", "run/new"):
            with pytest.raises(RuntimeError, match="the disk is gone"):
                storage.write(key, Failing(good))
        assert storage.list("run") == ["run/kept"]
        assert read(storage, storage.uri("run/kept")) == b"before"


def says_what_is_missing(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        storage.open(storage.uri("run/missing"))


def lists_keys_below_a_prefix(storage: Storage) -> None:
    keys = ["run_1/a/x", "run_1/b", "run_1/.registry.json", "run_10/a"]
    for key in keys:
        storage.write(key, io.BytesIO(b"1"))
    assert storage.list("run_1") == sorted(keys[:3])
    assert set(storage.list("")) >= set(keys)
    assert storage.list("none") == []


def updates_lose_nothing(storage: Storage) -> None:
    def enter(number: int) -> None:
        def change(before: bytes | None) -> bytes:
            entries = json.loads(before) if before else {}
            return json.dumps({**entries, str(number): number}).encode()

        storage.update("run/.registry.json", change)

    assert race(12, enter) == [None] * 12
    assert json.loads(read(storage, storage.uri("run/.registry.json"))) == {str(n): n for n in range(12)}


def an_update_that_fails_changes_nothing(storage: Storage) -> None:
    def change(before: bytes | None) -> bytes:
        raise ValueError("no JSON")

    storage.write("a", io.BytesIO(b"before"))
    for key in ("a", "new"):
        with pytest.raises(ValueError, match="no JSON"):
            storage.update(key, change)
    assert storage.list("") == ["a"]
    assert read(storage, storage.uri("a")) == b"before"


def refuses_what_lies_elsewhere(storage: Storage) -> None:
    for key in ("", "/etc/passwd", "../x", "a/../../x"):
        with pytest.raises(StorageError, match="is no key"):
            storage.write(key, io.BytesIO(b"1"))
    for uri in ("/etc/passwd", "s3://somebody-elses-bucket/key"):
        with pytest.raises(StorageError, match="not below"):
            storage.open(uri)


def can_be_used(storage: Storage) -> None:
    storage.check()
    assert storage.list("") == []


CHECKS: dict[str, Callable[[Storage], None]] = {
    check.__name__: check
    for check in (
        gives_back_what_was_written,
        reads_at_any_position,
        reads_parquet,
        replaces,
        a_reader_keeps_its_version,
        leaves_nothing_half_written,
        says_what_is_missing,
        lists_keys_below_a_prefix,
        updates_lose_nothing,
        an_update_that_fails_changes_nothing,
        refuses_what_lies_elsewhere,
        can_be_used,
    )
}
