"""Columns of a frame as H2O's two kinds, numbers and categories, alike for training and for scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from mlplatform.io.plugins.frameworks import FrameworkError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty"}
TIMES = {"datetime64", "datetime", "date"}


def is_category(column: pd.Series) -> bool:
    """Text and pandas' categories are; numbers, booleans and times are not."""
    import pandas as pd

    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        return True
    if not (pd.api.types.is_object_dtype(kind) or pd.api.types.is_string_dtype(kind)):
        return False
    return pd.api.types.infer_dtype(column, skipna=True) not in NUMBERS | TIMES


def numbers(column: pd.Series) -> np.ndarray:
    """(n,) doubles: times as milliseconds since 1970 in UTC; missing and infinite ones, as for H2O, NaN.

    Raises:
        FrameworkError: there is something else.
    """
    import numpy as np
    import pandas as pd

    kind = column.dtype
    times = isinstance(kind, pd.DatetimeTZDtype) or pd.api.types.is_datetime64_dtype(kind)
    if not times and pd.api.types.is_object_dtype(kind):
        times = pd.api.types.infer_dtype(column, skipna=True) in TIMES
    try:
        if times:
            moments = pd.to_datetime(column, utc=True).dt.as_unit("ms")
            values = moments.astype("int64").to_numpy(dtype=float)
            values[moments.isna().to_numpy()] = np.nan
        else:
            # A copy, as it is changed below.
            read = cast("pd.Series", pd.to_numeric(column))
            values = read.to_numpy(dtype=float, na_value=np.nan, copy=True)
    except (TypeError, ValueError) as error:
        raise FrameworkError(f"column {column.name}: the model reads numbers there, and {error}") from error
    values[np.isinf(values)] = np.nan
    return values


def categories(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    """(n,) indices into the levels that follow; -1 where the value is missing.

    A level is its text; numbers that are whole have no point, since one missing value turns integers to
    floats.
    """
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, levels = column.cat.codes.to_numpy(), column.cat.categories
    else:
        codes, levels = pd.factorize(column.to_numpy(dtype=object), use_na_sentinel=True)
    return codes, [_text(level) for level in levels]


def _text(level: Any) -> str:
    if isinstance(level, float) and level.is_integer():
        return str(int(level))
    return str(level)
