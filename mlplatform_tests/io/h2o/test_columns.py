from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform.io.h2o.columns import categories, is_category, numbers
from mlplatform.io.plugins.frameworks import FrameworkError

DAY = 86_400_000.0


def column(values: list[Any], kind: str | None = None) -> pd.Series:
    return pd.Series(values, dtype=kind, name="a column")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (column([1, 2, 3]), [1, 2, 3]),
        (column([1.5, None, np.inf, -np.inf]), [1.5, np.nan, np.nan, np.nan]),
        (column([1, None], "Int64"), [1, np.nan]),
        (column([True, False]), [1, 0]),
        (column([True, None], "boolean"), [1, np.nan]),
        (column([True, None], "object"), [1, np.nan]),
        (column([1, None, 2.5], "object"), [1, np.nan, 2.5]),
        (column([Decimal("1.25"), None], "object"), [1.25, np.nan]),
        (column([None, None], "object"), [np.nan, np.nan]),
        (column([pd.Timestamp("1970-01-02"), None], "datetime64[us]"), [DAY, np.nan]),
        (column([pd.Timestamp("1970-01-02 01:00+01:00"), None]), [DAY, np.nan]),
        (column([date(1970, 1, 2), None], "object"), [DAY, np.nan]),
        (column([datetime(1970, 1, 2), None], "object"), [DAY, np.nan]),
    ],
    ids=lambda value: f"{value.dtype}" if isinstance(value, pd.Series) else "",
)
def test_numbers(given: pd.Series, expected: list[float]) -> None:
    before = given.copy()
    assert not is_category(given)
    np.testing.assert_array_equal(numbers(given), expected)
    pd.testing.assert_series_equal(given, before)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (column(["a", None, "b", ""]), ["a", None, "b", ""]),
        (column(["a", None], "string"), ["a", None]),
        (column(["a", None], "category"), ["a", None]),
        (column([1, 2], "category"), ["1", "2"]),
        (column([1.0, None, 2.5], "category"), ["1", None, "2.5"]),
        (column(["a", 1, 2.0]), ["a", "1", "2"]),
    ],
    ids=lambda value: f"{value.dtype}" if isinstance(value, pd.Series) else "",
)
def test_categories(given: pd.Series, expected: list[str | None]) -> None:
    assert is_category(given)
    codes, levels = categories(given)
    assert [None if code < 0 else levels[code] for code in codes] == expected


def test_text_where_numbers_belong_names_the_column() -> None:
    with pytest.raises(FrameworkError, match=r"column a column: .* \"many\""):
        numbers(column([1, "many"]))
