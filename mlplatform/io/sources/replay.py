"""Replay of a CSV file, all at once or at a pace."""

from __future__ import annotations

import csv
import gzip
import zlib
from bisect import bisect_right
from collections import Counter
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
        ends = self._ends
        if not ends:
            return after
        if self._primed >= 1:
            return max(after, ends[-1])
        first = ends[max(int(len(ends) * self._primed) - 1, 0)]
        return first if after < first else ends[min(bisect_right(ends, after), len(ends) - 1)]

    def read(self, after: int, limit: int | None = None) -> list[Submission]:
        positions = [submission.source_position for submission in self._submissions]
        start, end = bisect_right(positions, after), bisect_right(positions, self.available(after))
        return self._submissions[start : end if limit is None else min(end, start + limit)]

    @cached_property
    def _ends(self) -> list[int]:
        """Position of the last submission of each timestamp, in order."""
        following = [*self._submissions[1:], None]
        return [
            this.source_position
            for this, after in zip(self._submissions, following, strict=True)
            if after is None or after.event_time != this.event_time
        ]

    @cached_property
    def _submissions(self) -> list[Submission]:
        """Positions count all of the file, so that months which are added at its end have new ones."""
        unknown = datetime.max.replace(tzinfo=UTC)
        rows = sorted(self._rows(), key=lambda row: (row[1] or unknown, row[0]))
        left = Counter(row[0] for row in rows)
        submissions = []
        for position, (series_id, time, text, value) in enumerate(rows, start=1):
            if self._last is None or left[series_id] <= self._last:
                submissions.append(Submission(self.name, position, series_id, text, time, value))
            left[series_id] -= 1
        return submissions

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
    """`YYYY-MM` or ISO 8601 in UTC, which it is unless it says otherwise; None if it is neither."""
    try:
        time = datetime.fromisoformat(f"{text}-01" if len(text) == 7 else text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def parse_value(text: str) -> object:
    """A float where the text is one, else the text: quarantine will name it."""
    try:
        return float(text)
    except ValueError:
        return text.strip()
