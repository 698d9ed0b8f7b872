from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlplatform.domain.batch.stability import (
    Stability,
    StabilityError,
    population_stability_index,
    reference_histograms,
)


def sample(rows: int, shift: float = 0.0, gold: float = 0.1, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "charges": rng.normal(shift, 1, rows),
            "tenure": rng.integers(0, 72, rows),
            "plan": rng.choice(["basic", "pro", "gold"], rows, p=[0.6, 0.4 - gold, gold]),
            "senior": rng.random(rows) < 0.2,
            "since": pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 10**7, rows), unit="s"),
        }
    )


def compare(reference: dict[str, Any], frame: Any) -> dict[str, str]:
    new = Stability(reference)
    new.add(frame)
    return {name: column.level for name, column in new.result().items()}


def test_the_index_of_a_known_example() -> None:
    """Shares of 10, 20, 30, 40 % against 15, 25, 30, 30 %, computed by hand."""
    expected, actual = np.array([100, 200, 300, 400]), np.array([150, 250, 300, 300])
    by_hand = 0.05 * np.log(1.5) + 0.05 * np.log(1.25) + 0 + -0.1 * np.log(0.75)
    assert population_stability_index(expected, actual) == pytest.approx(by_hand)
    assert population_stability_index(actual, expected) == pytest.approx(by_hand)
    assert population_stability_index(expected, 7 * expected) == pytest.approx(0)


def test_what_has_not_moved_is_stable_for_any_number_of_rows() -> None:
    frame = sample(5_000, seed=0)
    reference = reference_histograms(frame, list(frame))
    for rows in (1, 2, 10, 100, 1_000, 20_000):
        assert set(compare(reference, sample(rows)).values()) == {"none"}, rows


def test_what_has_moved_is_told() -> None:
    frame = sample(5_000, seed=0)
    reference = reference_histograms(frame, list(frame))
    levels = compare(reference, sample(5_000, shift=0.36, gold=0.3))
    assert levels == {
        "charges": "moderate", "tenure": "none", "plan": "significant", "senior": "none", "since": "none"
    }  # fmt: skip
    assert compare(reference, sample(5_000, shift=1))["charges"] == "significant"
    assert compare(reference, sample(40, shift=3))["charges"] == "significant"


def test_missing_and_unseen_values_have_bins() -> None:
    frame = sample(2_000, seed=0)
    reference = reference_histograms(frame, ["charges", "plan"])
    new = sample(2_000)
    new.loc[:999, "charges"] = None
    new.loc[:999, "plan"] = "platinum"
    assert compare(reference, new) == {"charges": "significant", "plan": "significant"}
    assert reference["charges"]["counts"][-1] == 0
    assert sum(reference["plan"]["counts"]) == 2_000


def test_histograms_are_json_and_of_about_equal_bins() -> None:
    frame = sample(1_000, seed=0)
    reference = json.loads(json.dumps(reference_histograms(frame, list(frame))))
    assert compare(reference, frame) == dict.fromkeys(frame, "none")
    counts = reference["charges"]["counts"]
    assert len(counts) == 11
    assert min(counts[:-1]) > 95
    assert max(counts) < 105


def test_chunks_add_up() -> None:
    frame = sample(1_000, seed=0)
    reference = reference_histograms(frame, list(frame))
    new = pa.Table.from_pandas(sample(999))
    whole, parts = Stability(reference), Stability(reference)
    whole.add(new)
    for batch in new.to_batches(100):
        parts.add(batch)
    assert parts.result() == whole.result()


def test_numbers_of_any_type_compare() -> None:
    reference = reference_histograms(pa.table({"x": pa.array(range(100), pa.int32())}), ["x"])
    assert compare(reference, pa.table({"x": np.arange(100.0)})) == {"x": "none"}


def test_odd_columns_have_histograms() -> None:
    table = pa.table(
        {
            "empty": pa.array([None] * 50, pa.float64()),
            "constant": [7] * 50,
            "ids": [str(number) for number in range(50)],
            "nothing": pa.nulls(50),
            "infinite": [float("inf")] * 50,
        }
    )
    reference = reference_histograms(table, table.column_names)
    json.dumps(reference)
    assert set(compare(reference, table).values()) == {"none"}
    many = pa.table({"ids": [f"C{number}" for number in range(500)]})
    assert len(reference_histograms(many, ["ids"])["ids"]["categories"]) == 50


def test_no_new_rows_have_not_moved() -> None:
    reference = reference_histograms(sample(100), ["charges"])
    assert compare(reference, sample(1)[:0]) == {"charges": "none"}


def test_a_column_that_is_gone_or_changed_is_named() -> None:
    reference = reference_histograms(sample(100), ["charges"])
    with pytest.raises(StabilityError, match="column charges of the training data is not in"):
        compare(reference, pa.table({"x": [1]}))
    with pytest.raises(StabilityError, match="charges is of type string, and was a number"):
        compare(reference, pa.table({"charges": ["high"]}))
