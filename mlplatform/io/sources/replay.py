"""Replay of a CSV file, all at once or at a pace."""

from __future__ import annotations

import csv
import gzip
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from mlplatform.domain.observations import SourceError, Submission

# Headers that name the columns: ours and the seed's.
TIME_COLUMNS = ("timestamp", "input")
VALUE_COLUMNS = ("value", "target")


class ReplaySource:
    """Reads `timestamp,value` (or `input,target`), optionally with `series_id`; `.gz` too.

    Observations come in order of their time, whatever the order of the lines; the observation id is
    the timestamp as written. Positions count from 1.

    Args:
        series_id: the series of a file that has no such column.
        last: only the newest so many observations of each series.
        primed: what may be read at once from the start, as a share of the months (1: everything);
            after that each read gives one month more, so that a replay stays alive.
    """

    def __init__(
        self, name: str, path: Path, series_id: str = "", last: int | None = None, primed: float = 1.0
    ) -> None:
        self.name = name
        self._path = path
        self._series_id = series_id
        self._last = last
        self._primed = primed

    def available(self, after: int) -> int:
        submissions, ends = self._submissions, self._month_ends
        if self._primed >= 1 or not ends:
            return len(submissions)
        first = ends[max(int(len(ends) * self._primed) - 1, 0)]
        following = bisect_right(ends, after)
        return first if after < first else ends[min(following, len(ends) - 1)]

    def read(self, after: int, limit: int | None = None) -> list[Submission]:
        end = self.available(after)
        return self._submissions[after : end if limit is None else min(end, after + limit)]

    @cached_property
    def _month_ends(self) -> list[int]:
        """Position of the last submission of each timestamp, in order."""
        times = [submission.event_time for submission in self._submissions]
        return [i + 1 for i in range(len(times)) if i + 1 == len(times) or times[i] != times[i + 1]]

    @cached_property
    def _submissions(self) -> list[Submission]:
        rows = list(self._rows())
        if self._last is not None:
            rows = self._newest(rows, self._last)
        unknown = datetime.max.replace(tzinfo=UTC)
        rows.sort(key=lambda row: (row[1] or unknown, row[0]))
        return [
            Submission(self.name, position, series_id, text, time, value)
            for position, (series_id, time, text, value) in enumerate(rows, start=1)
        ]

    @staticmethod
    def _newest(rows, last: int):
        per_series: dict[str, list] = {}
        for row in rows:
            per_series.setdefault(row[0], []).append(row)
        unknown = datetime.max.replace(tzinfo=UTC)
        return [
            row
            for series in per_series.values()
            for row in sorted(series, key=lambda row: row[1] or unknown)[-last:]
        ]

    def _rows(self) -> Iterator[tuple[str, datetime | None, str, object]]:
        opener = gzip.open if self._path.suffix == ".gz" else open
        try:
            with opener(self._path, "rt", encoding="utf-8-sig", newline="") as file:
                yield from self._parse(csv.reader(file))
        except FileNotFoundError:
            raise SourceError(
                f"source {self.name!r}: {self._path} does not exist; correct `path` of the source"
            ) from None
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"source {self.name!r}: {self._path} cannot be read: {error}") from error

    def _parse(self, lines) -> Iterator[tuple[str, datetime | None, str, object]]:
        header = [name.strip() for name in next(lines, [])]
        time_column = next((c for c in TIME_COLUMNS if c in header), None)
        value_column = next((c for c in VALUE_COLUMNS if c in header), None)
        if time_column is None or value_column is None:
            raise SourceError(
                f"source {self.name!r}: {self._path}:1 has the header {','.join(header)!r}; "
                "it must name timestamp,value or input,target"
            )
        time_at, value_at = header.index(time_column), header.index(value_column)
        series_at = header.index("series_id") if "series_id" in header else None
        if series_at is None and not self._series_id:
            raise SourceError(
                f"source {self.name!r}: {self._path} has no column series_id; set `series_id` of the source"
            )
        first_seen: dict[tuple[str, datetime], int] = {}
        for cells in lines:
            if not cells:
                continue
            if len(cells) != len(header):
                raise SourceError(
                    f"source {self.name!r}: {self._path}:{lines.line_num} has {len(cells)} cells, "
                    f"the header has {len(header)}"
                )
            series_id = self._series_id if series_at is None else cells[series_at].strip()
            text = cells[time_at].strip()
            time = parse_time(text)
            if time is not None:
                earlier = first_seen.setdefault((series_id, time), lines.line_num)
                if earlier != lines.line_num:
                    raise SourceError(
                        f"source {self.name!r}: {self._path}:{lines.line_num} repeats {text} of series "
                        f"{series_id!r} (first on line {earlier}); remove one of the two"
                    )
            yield series_id, time, text, parse_value(cells[value_at])


def parse_time(text: str) -> datetime | None:
    """`YYYY-MM` or ISO 8601, UTC unless it says otherwise; None if it is neither."""
    try:
        time = datetime.fromisoformat(f"{text}-01" if len(text) == 7 else text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def parse_value(text: str) -> object:
    """A float where the text is one, else the text: quarantine will name it."""
    try:
        return float(text)
    except ValueError:
        return text.strip()
