from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domain.batch.data_checks import (
    CheckError,
    CheckResult,
    DataChecks,
    class_balance,
    enough_rows,
    key_checks,
    kind_of,
)
from mlplatform.domain.batch.pipeline import DataCheck

TABLE = pa.table(
    {
        "customer_id": ["a", "b", "c", "d", "b"],
        "tenure": [1, None, 3, -4, 500],
        "charges": [1.0, 2.5, float("nan"), None, 5.0],
        "code": ["1", "2", "x", None, "4"],
        "day": pa.array([date(2025, 1, n) for n in range(1, 6)]),
    }
)


def check(table: pa.Table | pd.DataFrame = TABLE, **declared: Any) -> tuple[CheckResult, list[int]]:
    """The check's result, and the rows that it skips or would skip."""
    functions = declared.pop("functions", {})
    skipping = DataCheck.model_validate({**declared, "on_failure": "skip_row"})
    skipped = DataChecks([skipping], functions, "customer_id").add(table).mask
    checks = DataChecks([DataCheck.model_validate(declared)], functions, "customer_id")
    assert not checks.add(table).mask.any()
    return checks.results()[0], np.flatnonzero(skipped).tolist()


def test_missing_values_up_to_the_threshold_pass() -> None:
    result, rows = check(name="null_threshold", columns=["tenure", "charges"], threshold=0.4)
    assert (result.passed, result.failing_rows, rows) == (True, 3, [1, 2, 3])
    result, _ = check(name="null_threshold", columns=["tenure", "charges"], threshold=0.3)
    assert not result.passed
    assert result.description == (
        "at most 30.00% of each column may be missing: tenure 20.00%, charges 40.00% "
        "(first: b, null, 2.5; c, 3, nan; d, -4, null)"
    )


def test_values_out_of_range_fail_and_missing_ones_pass() -> None:
    result, rows = check(name="value_range", columns=["tenure"], min=0, max=100)
    assert (result.passed, result.rows, result.failing_rows, rows) == (False, 5, 2, [3, 4])
    assert result.examples == ("d, -4", "b, 500")
    assert result.description.startswith("tenure must be at least 0 and at most 100: 2 of 5 rows fail")
    assert check(name="value_range", columns=["tenure"], min=0, max=100, threshold=0.4)[0].passed
    assert check(name="value_range", columns=["tenure", "charges"], min=-4)[0].passed
    result, rows = check(name="value_range", columns=["code"], min=0)
    assert (result.passed, rows) == (False, [])
    assert "code is of type string" in result.description


def test_columns_are_expected() -> None:
    assert check(name="expected_columns", columns=["tenure", "day"])[0].passed
    result, rows = check(name="expected_columns", columns=["tenure", "chargez"])
    assert (result.passed, rows) == (False, [])
    assert "no column 'chargez'" in result.description
    assert "did you mean charges?" in result.description


def test_a_missing_column_fails_any_check_even_one_that_skips() -> None:
    checks = DataChecks([DataCheck(name="value_range", columns=["age"], min=0, on_failure="skip_row")])
    assert not checks.add(TABLE).mask.any()
    result = checks.results()[0]
    assert (result.passed, result.on_failure) == (False, "fail")


def test_keys_are_unique() -> None:
    result, rows = check(name="unique_key", columns=["customer_id"])
    assert (result.passed, result.failing_rows, result.examples, rows) == (False, 1, ("b",), [4])
    assert check(name="unique_key", columns=["customer_id", "tenure"])[0].passed


@settings(max_examples=50)
@given(st.lists(st.integers(0, 40), max_size=80), st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_a_key_is_repeated_across_chunks_too(keys: list[int], sizes: list[int]) -> None:
    checks = DataChecks([DataCheck(name="unique_key", columns=["id"], on_failure="skip_row")])
    table, masks, start = pa.table({"id": pa.array(keys, pa.int64())}), [], 0
    for size in [*sizes, len(keys)]:
        masks += checks.add(table.slice(start, size)).mask.tolist()
        start += size
    assert masks == [keys.index(key) < number for number, key in enumerate(keys)]
    assert checks.results()[0].failing_rows == sum(masks)


@pytest.mark.parametrize(
    ("column", "kind", "passed", "rows"),
    [
        ("tenure", "integer", True, []),
        ("tenure", "number", True, []),
        ("charges", "number", True, []),
        ("charges", "integer", False, [1]),
        ("code", "string", True, []),
        ("code", "integer", False, [2]),
        ("code", "number", False, [2]),
        ("code", "boolean", False, [1, 2, 4]),
        ("code", "timestamp", False, None),
        ("day", "timestamp", True, []),
        ("day", "string", False, []),
        ("tenure", "boolean", False, []),
    ],
)
def test_columns_have_their_type(column: str, kind: str, passed: bool, rows: list[int] | None) -> None:
    result, skipped = check(name="type_check", columns=[column], type=kind)
    assert result.passed == passed
    assert rows is None or skipped == rows


def test_text_that_could_be_numbers_is_still_text() -> None:
    result, rows = check(pa.table({"code": ["1", "2"]}), name="type_check", columns=["code"], type="integer")
    assert (result.passed, rows) == (False, [])
    assert result.description == "code is of type string, and must be integer"


def test_a_function_of_the_project_decides() -> None:
    functions = {"checks:positive": lambda frame: frame["tenure"].fillna(1) > 0}
    result, rows = check(name="custom", function="checks:positive", functions=functions)
    assert (result.passed, rows) == (False, [3])
    assert result.description == "checks:positive must give True: 1 of 5 rows fail (first: d)"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda frame: frame["gone"], r"lib:f failed on 5 rows: KeyError: 'gone'"),
        (lambda frame: [True], r"gave bool of shape \(1,\) for 5 rows"),
        (lambda frame: [1] * 5, r"gave int64 of shape \(5,\)"),
        (lambda frame: None, r"gave object of shape \(\)"),
    ],
)
def test_a_function_that_does_not_do_its_work_is_named(function: Any, message: str) -> None:
    checks = DataChecks([DataCheck(name="custom", function="lib:f")], {"lib:f": function})
    with pytest.raises(CheckError, match=message):
        checks.add(TABLE)


def test_an_unknown_function_is_named() -> None:
    with pytest.raises(CheckError, match="no function 'lib:g'"):
        DataChecks([DataCheck(name="custom", function="lib:g")], {})


def test_rows_are_skipped_with_every_reason() -> None:
    checks = DataChecks(
        [
            *key_checks("customer_id", "skip_row"),
            DataCheck(name="value_range", columns=["tenure"], min=0, max=100, on_failure="skip_row"),
            DataCheck(name="null_threshold", columns=["tenure"], on_failure="warn"),
        ]
    )
    skipped = checks.add(TABLE)
    assert skipped.mask.tolist() == [False, False, False, True, True]
    assert skipped.reasons == [
        *["", "", ""],
        "tenure must be at least 0 and at most 100",
        "customer_id is repeated; tenure must be at least 0 and at most 100",
    ]
    assert [result.passed for result in checks.results()] == [True, False, False, False]


def test_chunks_add_up() -> None:
    declared = [
        DataCheck(name="null_threshold", columns=["tenure"], threshold=0.2),
        DataCheck(name="value_range", columns=["tenure"], max=100),
    ]
    whole, parts = DataChecks(declared), DataChecks(declared)
    whole.add(TABLE)
    for batch in TABLE.to_batches(2):
        parts.add(batch)
    assert parts.results() == whole.results()


def test_data_frames_are_checked_too() -> None:
    frame = pd.DataFrame({"customer_id": ["a", None], "kind": pd.Categorical(["x", None])})
    results = DataChecks(key_checks("customer_id"))
    results.add(frame)
    assert [result.passed for result in results.results()] == [False, True]


def test_no_rows_pass() -> None:
    checks = DataChecks(
        [*key_checks("customer_id"), DataCheck(name="value_range", columns=["tenure"], min=0)]
    )
    checks.add(TABLE.slice(0, 0))
    assert all(result.passed for result in checks.results())
    assert not enough_rows(0, 1).passed
    assert enough_rows(1, 1).passed


@pytest.mark.parametrize(
    ("counts", "classes", "passed", "on_failure", "message"),
    [
        ({0: 70, 1: 30}, [0, 1], True, "warn", "rows by class: 0: 70, 1: 30; 30.00% are 1"),
        ({0: 999, 1: 1}, [0, 1], False, "warn", "0.10% are 1, less than 1%"),
        ({0: 10}, [0, 1], False, "fail", "no rows of 1"),
        ({0: 10, 1: 5, 2: 1}, [0, 1], False, "fail", "undeclared 2"),
        ({"no": 10}, None, False, "fail", r"one class only \(no: 10\)"),
        ({}, None, False, "fail", "no rows"),
        ({"a": 5, "b": 5, "c": 0}, None, True, "warn", "50.00% are"),
    ],
)
def test_classes_are_balanced(
    counts: dict, classes: list | None, passed: bool, on_failure: str, message: str
) -> None:
    import re

    result = class_balance(counts, classes)
    assert (result.passed, result.on_failure) == (passed, on_failure)
    assert re.search(message, result.description)


def test_kinds_do_not_depend_on_where_data_came_from() -> None:
    kinds = {
        "number": [pa.int8(), pa.float64(), pa.decimal128(5, 2), pa.uint64()],
        "text": [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())],
        "boolean": [pa.bool_()],
        "timestamp": [pa.date32(), pa.timestamp("ns", "UTC")],
    }
    for kind, types in kinds.items():
        assert {kind_of(each) for each in types} == {kind}
