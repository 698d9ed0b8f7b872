"""Tables as files of a folder: CSV or Parquet."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mlplatform.io.plugins.configuration import refuse_unknown_keys
from mlplatform.io.plugins.data_connectors import CHUNK_ROWS, DataError
from mlplatform.io.plugins.data_connectors.csv_text import csv_lines
from mlplatform.io.plugins.data_connectors.csv_types import MISSING, ColumnTypes
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import csv as pa_csv

SUFFIXES = (".csv", ".parquet")
# What the CSV reader parses at once.
BLOCK_BYTES = 4 << 20


class LocalFileConnector:
    """The table `customers` is `customers.csv` or `customers.parquet` in `data_path` (relative to the
    project; `sample_data` unless set).

    A CSV file is read twice: its columns' types follow from all their values, not from the first ones.
    """

    config_keys = ("data_path",)

    def __init__(self, config: Mapping[str, Any], settings: Settings, root: Path) -> None:
        refuse_unknown_keys("data connector local_file", config, self.config_keys, DataError)
        self._folder = (root / config.get("data_path", "sample_data")).resolve()

    def schema(self, table: str) -> pa.Schema:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._path(table)
        with _told(path):
            if path.suffix == ".parquet":
                return pq.read_schema(path)
            with pa.OSFile(str(path)) as file:
                return pa.schema(list(_csv_types(path, file).items()))

    def read(self, table: str) -> Iterator[pa.RecordBatch]:
        path = self._path(table)
        batches = _parquet_batches(path) if path.suffix == ".parquet" else _csv_batches(path)
        with _told(path):
            for batch in batches:
                for start in range(0, batch.num_rows, CHUNK_ROWS):
                    yield batch.slice(start, CHUNK_ROWS)

    def publish(
        self, table: str, batches: Iterator[pa.RecordBatch], key: Sequence[str], run_column: str, run_id: str
    ) -> int:
        """Writes `<table>.csv`, which holds the rows of the newest run only."""
        path = self._folder / f"{_valid(table)}.csv"
        return write_csv(path, batches, header=[*key, run_column])

    def check(self) -> None:
        if not self._folder.is_dir():
            raise DataError(
                f"{self._folder} is no folder; create it, or correct `data_connector.config.data_path`"
            )

    def _path(self, table: str) -> Path:
        self.check()
        paths = [self._folder / f"{_valid(table)}{suffix}" for suffix in SUFFIXES]
        found = [path for path in paths if path.exists()]
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(f"table {table!r} is both {found[0]} and {found[1].name}: remove one of them")
        tables = sorted({path.stem for path in self._folder.iterdir() if path.suffix in SUFFIXES})
        near = get_close_matches(table, tables, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise DataError(
            f"no table {table!r}: there is neither {paths[0]} nor {paths[1].name}; "
            f"tables there: {', '.join(tables[:10]) or 'none'}{hint}"
        )


def write_csv(path: Path, batches: Iterator[pa.RecordBatch], header: Sequence[str] = ()) -> int:
    """Writes the rows to a file that is there only when it is whole, and returns how many.

    Args:
        header: names of the columns if there is no batch to tell them.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with open(handle, "wb") as file:
            rows = _write_rows(path, file, batches, header)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp's are for their owner alone.
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
    return rows


def _write_rows(path: Path, file: IO[bytes], batches: Iterator[pa.RecordBatch], header: Sequence[str]) -> int:
    import pyarrow as pa

    rows, names = 0, None
    for batch in batches:
        if names is None:
            names = batch.schema.names
            file.write(_header_line(names))
        # Outside of this, an error is that of whoever gives the rows.
        try:
            file.write(csv_lines(batch))
        except pa.ArrowException as error:
            raise DataError(f"{path} cannot be written as CSV: {error}") from error
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror}") from error
        rows += batch.num_rows
    if names is None:
        file.write(_header_line(header))
    return rows


def _header_line(names: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(names)
    return text.getvalue().encode()


def _valid(table: str) -> str:
    if not table or Path(table).name != table or table.startswith("."):
        raise DataError(f"{table!r} is no name of a table: it must be that of a file without its folder")
    return table


def _parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(CHUNK_ROWS)


def _csv_batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    # One open file: what takes its place in between is read next time.
    with pa.OSFile(str(path)) as file:
        types = _csv_types(path, file)
        file.seek(0)
        yield from _open_csv(file, types)


def _csv_types(path: Path, file: pa.NativeFile) -> dict[str, pa.DataType]:
    import pyarrow as pa

    names = _csv_header(path)
    types = ColumnTypes(names)
    for batch in _open_csv(file, dict.fromkeys(names, pa.string())):
        types.add(batch)
    return types.found()


def _csv_header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        names = next(csv.reader(lines), [])
    if not names:
        raise DataError(f"{path} is empty: its first line must name the columns")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DataError(f"{path}:1 names the column {repeated[0]!r} more than once; rename one of them")
    return names


def _open_csv(file: pa.NativeFile, types: Mapping[str, pa.DataType]) -> pa_csv.CSVStreamingReader:
    from pyarrow import csv as pa_csv

    return pa_csv.open_csv(
        file,
        # The lines of errors are only known to a single thread.
        pa_csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
        pa_csv.ParseOptions(newlines_in_values=True),
        pa_csv.ConvertOptions(
            column_types=dict(types),
            null_values=MISSING,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What pyarrow says of a file, with the file's name."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}; correct the file") from error
