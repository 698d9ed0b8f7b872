"""Families of series: how many lags a series carries, its season, and what counts as absurd."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from statistics import median

DEFAULT_LAGS = 15


@dataclass(frozen=True)
class AbsurdityBand:
    """Refuses a value that no earlier one makes plausible.

    A value is absurd when its distance from the median of the last values exceeds `width` times
    their range, or a tenth of the median where that is larger; `minimum_values` must be known
    before. Zeros alone give no scale, so that after them anything is plausible.
    """

    width: float = 10.0
    minimum_values: int = 12

    def refuses(self, value: float, last_values: Sequence[float]) -> bool:
        if len(last_values) < self.minimum_values:
            return False
        middle = median(last_values)
        spread = max(max(last_values) - min(last_values), abs(middle) / 10)
        return 0 < self.width * spread < abs(value - middle)

    def reason(self, value: float, last_values: Sequence[float]) -> str | None:
        """What is said of a value that is refused (`last_values` newest first); None of any other."""
        if not self.refuses(value, last_values):
            return None
        return (
            f"absurd: {value:g} after {last_values[0]:g} is outside the band of its family; "
            "if it is right, widen absurd_beyond"
        )


@dataclass(frozen=True)
class Family:
    """Series that are treated alike: those whose id matches one of the `series` patterns.

    `lags` is the N of `in_1 … in_N`; `season` is the length of the seasonal cycle in observations,
    None where there is none.

    Raises:
        ValueError: `lags` is not positive, or too small for the season.
    """

    name: str = "default"
    series: tuple[str, ...] = ("*",)
    lags: int = DEFAULT_LAGS
    season: int | None = None
    band: AbsurdityBand = AbsurdityBand()

    def __post_init__(self) -> None:
        if self.lags < 1:
            raise ValueError(f"family {self.name!r} has lags: {self.lags}; a series needs at least 1")
        if self.season is not None and not 2 <= self.season <= self.lags - 2:
            raise ValueError(
                f"family {self.name!r} has season: {self.season}, which needs at least 2 and lags of at "
                f"least season + 2; it has lags: {self.lags}"
            )

    @property
    def version(self) -> str:
        """Names the definition of the lag features by its content (12 hexadecimal digits)."""
        definition = f"lags={self.lags} zero-filled newest-first"
        return hashlib.sha256(definition.encode()).hexdigest()[:12]

    def describe(self) -> dict[str, object]:
        return {**asdict(self), "version": self.version}


@dataclass(frozen=True)
class Families:
    """The families in their order; the first that matches a series has it."""

    families: tuple[Family, ...] = ()

    def of(self, series_id: str) -> Family:
        for family in self.families:
            if any(fnmatchcase(series_id, pattern) for pattern in family.series):
                return family
        return DEFAULT_FAMILY

    @property
    def version(self) -> str:
        """Names all definitions by their content (12 hexadecimal digits)."""
        definitions = [(f.name, f.series, f.lags, f.season) for f in self]
        return hashlib.sha256(repr(definitions).encode()).hexdigest()[:12]

    @property
    def widest(self) -> int:
        """The most lags that any series can carry."""
        return max(family.lags for family in self)

    def __iter__(self) -> Iterator[Family]:
        yield from self.families
        if not any("*" in family.series for family in self.families):
            yield DEFAULT_FAMILY


DEFAULT_FAMILY = Family()
