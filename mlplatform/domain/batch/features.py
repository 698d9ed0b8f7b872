"""Features: the kinds of columns that models take, and a table's columns in their canonical form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["number", "boolean", "category", "time"]

# A column with more distinct texts is rather a key or prose.
MAX_LEVELS = 10_000
SECONDS_PER_DAY = 86_400
_WORDS = {"true": 1.0, "t": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "f": 0.0, "0": 0.0, "0.0": 0.0}


class FeatureError(PlatformError):
    """A table does not have what a model takes; the message names the columns and the remedy."""


@dataclass(frozen=True)
class Feature:
    """A column that a model takes. `dtype` is the type it had in training, for people; `levels` are the
    texts that a category had then, the most frequent first (None: it is no category).
    """

    name: str
    kind: Kind
    dtype: str = ""
    levels: tuple[str, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "dtype": self.dtype,
            "levels": None if self.levels is None else list(self.levels),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Feature:
        levels = state["levels"]
        return cls(state["name"], state["kind"], state["dtype"], None if levels is None else tuple(levels))


@dataclass(frozen=True)
class Conformed:
    """`frame` has one column for each feature: floats for numbers, booleans (0, 1) and times (days since
    1970, UTC), texts for categories; NaN and None where a value is missing. `reasons` says of each row why
    it cannot be scored, and is empty where it can. `unseen` counts texts that training had not, by column.
    """

    frame: pd.DataFrame
    reasons: pd.Series
    unseen: dict[str, int]


def describe(frame: pd.DataFrame) -> tuple[Feature, ...]:
    """The kind of each column, judged by its type and values; a column without any value is a number.

    Raises:
        FeatureError: a column's values are neither numbers, booleans, texts nor times.
    """
    twice = sorted({str(name) for name in frame.columns[frame.columns.duplicated()]})
    if twice:
        raise FeatureError(f"there is more than one column named {', '.join(twice)}")
    columns: list[tuple[Any, Any]] = list(frame.items())
    return tuple(Feature(str(name), _kind(column), str(column.dtype)) for name, column in columns)


def with_levels(frame: pd.DataFrame, features: Sequence[Feature]) -> tuple[Feature, ...]:
    """The features with the levels that the categories of a conformed frame have."""
    columns: Any = frame
    return tuple(
        Feature(each.name, each.kind, each.dtype, _levels(columns[each.name]))
        if each.kind == "category"
        else each
        for each in features
    )


def conform(frame: pd.DataFrame, features: Sequence[Feature]) -> Conformed:
    """The features' columns of a table in canonical form, however the table's types differ from those of
    training (a file's integers where a database had booleans, numbers as text).

    Raises:
        FeatureError: columns are gone.
    """
    import pandas as pd

    gone = [feature.name for feature in features if feature.name not in frame.columns]
    if gone:
        raise FeatureError(
            f"the table has no column {', '.join(gone)}, which the model was trained with: put it back, or"
            " train again without it"
        )
    reasons = pd.Series("", index=frame.index, dtype=object)
    columns: dict[str, Any] = {}
    unseen: dict[str, int] = {}
    for feature in features:
        column: Any = frame[feature.name]
        if feature.kind == "category":
            columns[feature.name] = texts = _texts(column)
            if feature.levels is not None:
                unseen[feature.name] = _unseen(texts, feature.levels)
            continue
        values = {"number": _numbers, "boolean": _booleans, "time": _days}[feature.kind](column)
        # Missing is what training may have seen too; what is there and is no finite number is an error.
        bad = ~np.isfinite(values) & column.notna().to_numpy()
        if bad.any():
            examples = column[bad].map(lambda value: f"{value!r}"[:60])
            text = f"{feature.name} is " + examples + f", not a {_NAMES[feature.kind]}"
            separator = np.where(reasons[bad] == "", "", "; ")
            reasons[bad] = reasons[bad] + separator + text
            values[bad] = np.nan
        columns[feature.name] = values
    names: Any = [feature.name for feature in features]
    conformed = pd.DataFrame(columns, index=frame.index, columns=names)
    return Conformed(conformed, reasons, {name: count for name, count in unseen.items() if count})


_NAMES = {"number": "finite number", "boolean": "boolean", "time": "time"}


def _kind(column: pd.Series) -> Kind:
    import pandas as pd

    types = pd.api.types
    if types.is_bool_dtype(column.dtype):
        return "boolean"
    if types.is_numeric_dtype(column.dtype):
        return "number"
    if types.is_datetime64_any_dtype(column.dtype):
        return "time"
    if isinstance(column.dtype, pd.CategoricalDtype):
        return "category"
    found = types.infer_dtype(column, skipna=True)
    if found in ("integer", "floating", "decimal", "mixed-integer-float", "empty"):
        return "number"
    if found == "boolean":
        return "boolean"
    if found in ("datetime", "datetime64", "date"):
        return "time"
    if found in ("string", "mixed-integer"):
        return "category"
    example = next(iter(column.dropna()), None)
    raise FeatureError(
        f"column {column.name} holds {type(example).__name__} values ({found}), which no model takes: turn"
        " them into numbers or text, or add the column to schema.ignored_columns"
    )


def _numbers(column: pd.Series) -> np.ndarray:
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        # pandas would make nanoseconds of them.
        return np.full(len(column), np.nan)
    numbers: Any = pd.to_numeric(column, errors="coerce")
    return numbers.to_numpy(dtype=float, na_value=np.nan).copy()


def _booleans(column: pd.Series) -> np.ndarray:
    import pandas as pd

    if pd.api.types.is_bool_dtype(column.dtype):
        return column.to_numpy(dtype=float, na_value=float("nan"))
    codes, distinct = pd.factorize(column)
    known = np.array([_WORDS.get(str(value).strip().lower(), np.nan) for value in distinct] + [np.nan])
    # Code -1, a missing value, takes the last.
    return known[codes]


def _days(column: pd.Series) -> np.ndarray:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column.dtype):
        # A bare number is no time: of what unit?
        return _numbers(column) * float("nan")
    times = pd.to_datetime(column, errors="coerce", utc=True, format="mixed").dt.as_unit("us")
    days = times.astype("int64").to_numpy() / 1e6 / SECONDS_PER_DAY
    days[times.isna().to_numpy()] = float("nan")
    return days


def _texts(column: pd.Series) -> np.ndarray:
    import pandas as pd

    codes, distinct = pd.factorize(column)
    known = np.array([*map(_text, distinct), None], dtype=object)
    return known[codes]


def _text(value: Any) -> str:
    # A column of whole numbers with one missing value comes as floats.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _levels(column: pd.Series) -> tuple[str, ...]:
    """Most frequent first, so that what keeps only some keeps the most useful ones; ties by name."""
    counts = column.value_counts()
    return tuple(sorted(counts.index, key=lambda level: (-counts[level], level)))


def _unseen(texts: np.ndarray, levels: Sequence[str]) -> int:
    import pandas as pd

    column = pd.Series(texts)
    return int((column.notna() & ~column.isin(levels)).sum())
