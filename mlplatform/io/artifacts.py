"""Artefacts of runs: what the steps of a batch pipeline leave for each other, in the profile's storage.

A frame is Parquet, a document JSON, a model the zip of its bundle; which one it is, its first bytes say.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mlplatform.io.archives import pack, unpack
from mlplatform.io.plugins.data_connectors import CHUNK_ROWS
from mlplatform.io.plugins.storages import Storage, StorageError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

REGISTRY = ".artifact_registry.json"


@dataclass(frozen=True)
class Rows:
    """Rows on their way into a frame: `batches` is read once, so that memory does not grow with them."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]

    @classmethod
    def of(cls, table: pa.Table) -> Rows:
        return cls(table.schema, iter(table.to_batches(CHUNK_ROWS)))


class Frame:
    """Rows that are stored. `opened` gives a new reader of the Parquet object."""

    def __init__(self, opened: Callable[[], BinaryIO]) -> None:
        self._opened = opened

    @cached_property
    def schema(self) -> pa.Schema:
        with self._file() as file:
            return file.schema_arrow

    @cached_property
    def count(self) -> int:
        """Number of rows."""
        with self._file() as file:
            return file.metadata.num_rows

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        with self._file() as file:
            yield from _ahead(file.iter_batches(CHUNK_ROWS, columns=columns))

    def to_table(self) -> pa.Table:
        with self._file() as file:
            return file.read()

    def to_pandas(self) -> pd.DataFrame:
        return self.to_table().to_pandas()

    @contextmanager
    def _file(self) -> Iterator[pq.ParquetFile]:
        import pyarrow.parquet as pq

        with self._opened() as source, pq.ParquetFile(source, pre_buffer=False) as file:
            yield file


@dataclass(frozen=True)
class PackedModel:
    """A stored model bundle."""

    opened: Callable[[], BinaryIO]

    @contextmanager
    def unpacked(self) -> Iterator[Path]:
        """The bundle's folder, until the end of the block."""
        with tempfile.TemporaryDirectory() as folder, self.opened() as source:
            unpack(source, Path(folder))
            yield Path(folder)


Document = Mapping[str, Any]
# What a step gives, and what the next one finds: a folder (Path) comes back as a PackedModel.
Given = Rows | Path | Document
Stored = Frame | PackedModel | Document


@dataclass(frozen=True)
class Saved:
    """Where an artefact is; `rows` is None unless it is a frame."""

    uri: str
    size: int
    rows: int | None = None


class Artifacts:
    """The artefacts of one run, `runs[0]`; what it has not, the runs after it in `runs` are asked for."""

    def __init__(self, storage: Storage, runs: Sequence[str]) -> None:
        self._storage = storage
        self._runs = tuple(runs)

    def save(self, step: str, name: str, value: Given) -> Saved:
        """Writes the artefact and enters it into the run's registry.

        Raises:
            StorageError: the storage cannot be written. Nothing half written is left.
        """
        run, rows = self._runs[0], None
        # On disk, since a frame may be larger than memory; and whole before the storage sees a byte.
        with tempfile.TemporaryFile() as content:
            if isinstance(value, Rows):
                rows = _write_parquet(value, content)
            elif isinstance(value, Path):
                pack(value, content)
            else:
                content.write(json.dumps(value, indent=1).encode())
            size = content.tell()
            content.seek(0)
            uri = self._storage.write(f"{run}/{step}/{name}", content)
        self._storage.update(f"{run}/{REGISTRY}", lambda before: _enter(before, name, uri))
        return Saved(uri, size, rows)

    def load(self, name: str) -> Stored:
        """Raises StorageError: no step of the run has made such an artefact."""
        for run in self._runs:
            if uri := self.registry(run).get(name):
                return self.open(uri)
        raise StorageError(
            f"artifact not found: no step of run {self._runs[0]} has made {name!r}; "
            "run the step that makes it first"
        )

    def registry(self, run: str) -> dict[str, str]:
        """The URI of each artefact of a run."""
        try:
            with self._storage.open(self._storage.uri(f"{run}/{REGISTRY}")) as file:
                return json.load(file)
        except FileNotFoundError:
            return {}

    def open(self, uri: str) -> Stored:
        """The artefact at an address that `save` gave."""
        try:
            with self._storage.open(uri) as file:
                magic = file.read(4)
                if magic == b"PAR1":
                    return Frame(lambda: self._storage.open(uri))
                if magic == b"PK\x03\x04":
                    return PackedModel(lambda: self._storage.open(uri))
                return json.loads(magic + file.read())
        except FileNotFoundError:
            raise StorageError(
                f"artifact not found: {uri} is gone; run the step that makes it again"
            ) from None


def _write_parquet(rows: Rows, file: BinaryIO) -> int:
    import pyarrow.parquet as pq

    count = 0
    # Read once and soon: dictionaries of keys, and a smaller file, would cost more time than they save.
    with pq.ParquetWriter(file, rows.schema, compression="snappy", use_dictionary=False) as writer:
        for batch in _ahead(rows.batches):
            writer.write_batch(batch)
            count += batch.num_rows
    return count


def _ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same, the next one being made while the last is in use: most of the work leaves Python's lock."""
    with ThreadPoolExecutor(1, "batches") as thread:
        next_batch = thread.submit(next, batches, None)
        while (batch := next_batch.result()) is not None:
            next_batch = thread.submit(next, batches, None)
            yield batch


def _enter(before: bytes | None, name: str, uri: str) -> bytes:
    registry = json.loads(before) if before else {}
    return json.dumps({**registry, name: uri}, indent=1, sort_keys=True).encode()
