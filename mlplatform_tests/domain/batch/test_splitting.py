from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domain.batch.splitting import SplitError, held_back_rows


def customers(rows: int, churned: float = 0.25, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "customer_id": [f"C{number:05d}" for number in range(rows)],
            "churned": (rng.random(rows) < churned).astype(int),
        }
    )


def held_back(frame: pd.DataFrame, **options) -> set[str]:
    return set(frame["customer_id"][held_back_rows(frame, "customer_id", "churned", **options)])


def test_a_fifth_of_each_class_is_held_back() -> None:
    frame = customers(1_003)
    mask = held_back_rows(frame, "customer_id", "churned")
    for _, rows in frame.groupby("churned"):
        assert mask[rows.index].sum() == round(len(rows) / 5)


def test_it_is_the_same_in_every_process_and_version() -> None:
    """Were this to change, champions and challengers would be compared on rows they have learned."""
    assert sorted(held_back(customers(40))) == [
        "C00009", "C00012", "C00013", "C00017", "C00019", "C00020", "C00025", "C00026",
    ]  # fmt: skip


def test_the_order_of_the_rows_plays_no_part() -> None:
    frame = customers(500)
    assert held_back(frame.sample(frac=1, random_state=1)) == held_back(frame)


def test_numbers_of_any_type_are_the_same_keys() -> None:
    target = [0, 1] * 20
    splits = [
        held_back_rows(pa.table({"id": pa.array(range(40), kind), "y": target}), "id", "y").tolist()
        for kind in (pa.int64(), pa.int32(), pa.uint16())
    ]
    splits.append(
        held_back_rows(pa.table({"id": [str(n) for n in range(40)], "y": target}), "id", "y").tolist()
    )
    assert splits[1:] == splits[:-1]


def test_another_seed_holds_back_others() -> None:
    frame = customers(500)
    overlap = held_back(frame) & held_back(frame, seed=7)
    assert 5 < len(overlap) < 50


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(20, 300), st.integers(0, 60))
def test_new_customers_move_at_most_as_many_old_ones(seed: int, before: int, added: int) -> None:
    frame = customers(before + added, seed=seed)
    frame.loc[:3, "churned"] = [0, 0, 1, 1]
    old = frame[:before]
    names = set(old["customer_id"])
    moved = (held_back(frame) & names) ^ held_back(old)
    assert len(moved) <= added + 2
    if added == 0:
        assert not moved


def test_few_move_when_many_come() -> None:
    frame = customers(7_043)
    old = frame[:6_339]
    moved = (held_back(frame) & set(old["customer_id"])) ^ held_back(old)
    assert len(moved) < 0.01 * len(old)


def test_regression_has_no_classes() -> None:
    frame = pa.table({"id": range(100), "y": np.linspace(0, 1, 100)})
    assert held_back_rows(frame, "id", None).sum() == 20


def test_a_rare_class_is_on_both_sides() -> None:
    frame = pd.DataFrame({"customer_id": range(20), "churned": [1, 1] + [0] * 18})
    mask = held_back_rows(frame, "customer_id", "churned")
    assert mask[:2].sum() == 1


@pytest.mark.parametrize(
    ("keys", "target", "message"),
    [
        (["a"] * 2 + list("cdefghijkl"), [0, 1] * 6, r"customer_id is repeated in 1 rows \(first: a\)"),
        ([None, *"bcdefghijkl"], [0, 1] * 6, r"1 rows have no customer_id \(first: 0\).*skip_row"),
        (list("abcdefghijkl"), [0] * 12, "churned is 0 in all 12 rows.*two classes"),
        (list("abcdefghijkl"), [0] * 11 + [1], r"churned: too few rows of 1 \(1\)"),
        (list("abcdefghijkl"), [0, 1] * 5 + [0, None], "1 rows have no churned, first of customer_id l"),
        (list("abc"), [0, 1, 0], "3 rows are too few.*at least 10"),
        ([], [], "0 rows are too few"),
    ],
)
def test_rows_that_cannot_be_split_are_told(keys: list, target: list, message: str) -> None:
    frame = pa.table({"customer_id": pa.array(keys, pa.string()), "churned": pa.array(target, pa.int64())})
    with pytest.raises(SplitError, match=message):
        held_back_rows(frame, "customer_id", "churned")


def test_a_missing_column_is_named() -> None:
    with pytest.raises(SplitError, match=r"no column 'customer'.*did you mean customer_id"):
        held_back_rows(customers(20), "customer", "churned")
