from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from mlplatform.domain.batch.features import Feature, FeatureError, conform, describe, with_levels

DAY = pd.Timestamp("2026-01-02")
NUMBERS = [1, 2, None]
SINCE_1970 = (DAY - pd.Timestamp("1970-01-01")).days


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pd.Series([1, 2]), "number"),
        (pd.Series(NUMBERS, dtype="Int64"), "number"),
        (pd.Series(NUMBERS, dtype="float32"), "number"),
        (pd.Series([Decimal("1.5"), None]), "number"),
        (pd.Series([None, None]), "number"),
        (pd.Series([True, False]), "boolean"),
        (pd.Series([True, None]), "boolean"),
        (pd.Series([True, None], dtype="boolean"), "boolean"),
        (pd.Series(["a", None]), "category"),
        (pd.Series(["a", None], dtype="string"), "category"),
        (pd.Series([1, 2], dtype="category"), "category"),
        (pd.Series(["a", 1]), "category"),
        (pd.Series([DAY, None]), "time"),
        (pd.Series([DAY.tz_localize("UTC")]), "time"),
        (pd.Series([datetime.date(2026, 1, 2), None]), "time"),
    ],
)
def test_the_kind_of_a_column(column: pd.Series, kind: str) -> None:
    (feature,) = describe(column.to_frame("x"))
    assert feature.kind == kind
    assert feature.dtype == str(column.dtype)


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, b"raw", pd.Timedelta(1, "D")])
def test_values_that_no_model_takes_are_told(value: object) -> None:
    with pytest.raises(FeatureError, match=r"column x holds .* schema\.ignored_columns"):
        describe(pd.DataFrame({"x": pd.Series([value, value], dtype=object)}))


def test_a_column_twice_is_told() -> None:
    with pytest.raises(FeatureError, match="more than one column named x"):
        describe(pd.DataFrame([[1, 2]], columns=["x", "x"]))


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        ("number", [1, 2.5, None], [1, 2.5, np.nan]),
        ("number", ["1", "2.5", None], [1, 2.5, np.nan]),
        ("number", [Decimal("1.5"), None], [1.5, np.nan]),
        ("number", [True, False], [1, 0]),
        ("boolean", [True, False, None], [1, 0, np.nan]),
        ("boolean", [1, 0, None], [1, 0, np.nan]),
        ("boolean", ["true", "F", None], [1, 0, np.nan]),
        ("boolean", pd.array([True, None], dtype="boolean"), [1, np.nan]),
        ("time", [DAY, None], [SINCE_1970, np.nan]),
        ("time", ["2026-01-02 12:00:00", None], [SINCE_1970 + 0.5, np.nan]),
        ("time", [datetime.date(2026, 1, 2)], [SINCE_1970]),
        ("time", [DAY.tz_localize("Europe/Berlin")], [SINCE_1970 - 1 / 24]),
    ],
)
def test_the_canonical_form_of_numbers(kind: str, given: object, wanted: list[float]) -> None:
    conformed = conform(pd.DataFrame({"x": given}), [Feature("x", kind)])  # type: ignore[arg-type]
    assert conformed.frame["x"].dtype == float
    assert np.array_equal(conformed.frame["x"], wanted, equal_nan=True)
    assert (conformed.reasons == "").all()


@pytest.mark.parametrize(
    "given",
    [["1", "2", None], [1, 2, None], pd.array([1, 2, None], dtype="Int64"), pd.Categorical(["1", "2", None])],
)
def test_the_canonical_form_of_texts(given: object) -> None:
    """A column of whole numbers becomes one of floats as soon as a value is missing."""
    column = conform(pd.DataFrame({"x": given}), [Feature("x", "category")]).frame["x"]
    assert column.tolist() == ["1", "2", None]


def test_rows_that_cannot_be_scored_have_a_reason() -> None:
    frame = pd.DataFrame({"a": [1, "many", np.inf, 2], "b": [True, "perhaps", 0, None]}, index=list("wxyz"))
    conformed = conform(frame, [Feature("a", "number"), Feature("b", "boolean")])
    assert conformed.reasons.to_dict() == {
        "w": "",
        "x": "a is 'many', not a finite number; b is 'perhaps', not a boolean",
        "y": "a is inf, not a finite number",
        "z": "",
    }
    assert conformed.frame.index.tolist() == list("wxyz")


@pytest.mark.parametrize("value", [DAY, "yesterday"])
def test_a_time_is_no_number_nor_a_number_a_time(value: object) -> None:
    reasons = conform(pd.DataFrame({"x": [value]}), [Feature("x", "number")]).reasons
    assert "not a finite number" in reasons[0]
    reasons = conform(pd.DataFrame({"x": [17]}), [Feature("x", "time")]).reasons
    assert reasons[0] == "x is 17, not a time"


def test_unseen_texts_are_counted() -> None:
    features = [Feature("x", "category", levels=("a", "b")), Feature("y", "category", levels=("a",))]
    conformed = conform(pd.DataFrame({"x": ["a", "c", "c", None], "y": ["a"] * 4}), features)
    assert conformed.unseen == {"x": 2}


def test_columns_that_are_gone_are_named() -> None:
    with pytest.raises(FeatureError, match=r"no column a, c, which the model was trained with"):
        conform(pd.DataFrame({"b": [1]}), [Feature(name, "number") for name in "abc"])


def test_other_columns_do_not_matter() -> None:
    conformed = conform(pd.DataFrame({"b": [[1]], "a": [1]}), [Feature("a", "number")])
    assert list(conformed.frame) == ["a"]


def test_levels_are_most_frequent_first() -> None:
    frame = pd.DataFrame({"x": ["b", "c", "a", "c", None], "n": [1.0] * 5})
    category, number = with_levels(frame, describe(frame))
    assert category.levels == ("c", "a", "b")
    assert number.levels is None
    assert Feature.from_dict(category.as_dict()) == category


def test_a_table_without_rows_has_the_same_columns() -> None:
    frame = pd.DataFrame({"a": pd.Series(dtype=object), "t": pd.Series(dtype="datetime64[ns]")})
    features = [Feature("a", "category", levels=("x",)), Feature("t", "time")]
    conformed = conform(frame, features)
    assert list(conformed.frame) == ["a", "t"]
    assert len(conformed.frame) == 0
