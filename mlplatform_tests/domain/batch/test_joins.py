from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domain.batch.joins import JoinError, join_feature_table
from mlplatform.domain.batch.pipeline import FeatureTable

START = datetime(2025, 1, 1)


def at(hour: float) -> datetime:
    return START + timedelta(hours=hour)


def spec(**changes: Any) -> FeatureTable:
    return FeatureTable.model_validate({"table": "features", "join_key": ["customer_id"], **changes})


def as_of(**changes: Any) -> FeatureTable:
    times = {"event_time": "event", "created_time": "created", "label_time": "time", **changes}
    return spec(point_in_time={name: value for name, value in times.items() if value is not None})


LABELS = {"customer_id": pa.string(), "time": pa.timestamp("us"), "churned": pa.int64()}
FEATURES = {
    "customer_id": pa.string(),
    "event": pa.timestamp("us"),
    "created": pa.timestamp("us"),
    "value": pa.int64(),
    "text": pa.string(),
}


def labels(*rows: tuple[Any, ...]) -> pa.Table:
    filled = [(*row, number) for number, row in enumerate(rows)]
    return pa.Table.from_pylist([dict(zip(LABELS, row, strict=True)) for row in filled], pa.schema(LABELS))


def features(*rows: tuple[Any, ...]) -> pa.Table:
    filled = [(*row, None)[: len(FEATURES)] for row in rows]
    return pa.Table.from_pylist(
        [dict(zip(FEATURES, row, strict=True)) for row in filled], pa.schema(FEATURES)
    )


def values(left: pa.Table, right: pa.Table, how: FeatureTable) -> list[int | None]:
    return join_feature_table(left, right, how)[0]["value"].to_pylist()


class TestKnownThen:
    def test_an_older_push_does_not_overwrite_a_newer_value(self) -> None:
        """The row of 9:00 is written after that of 10:00: at noon, the value of 10:00 is the newest."""
        history = features(("C1", at(10), at(10), 1), ("C1", at(9), at(11), 2))
        assert values(labels(("C1", at(12))), history, as_of()) == [1]

    def test_a_correction_that_was_written_later_is_not_known_yet(self) -> None:
        history = features(("C1", at(1), at(1), 10), ("C1", at(1), at(5), 11))
        asked = labels(("C1", at(0)), ("C1", at(1)), ("C1", at(4)), ("C1", at(5)), ("C1", at(6)))
        assert values(asked, history, as_of()) == [None, 10, 10, 11, 11]

    def test_two_label_rows_with_the_same_key_and_time_stay_two(self) -> None:
        history = features(("C1", at(1), at(1), 7))
        asked = labels(("C1", at(2)), ("C1", at(2)), ("C2", at(2)), ("C1", at(2)))
        joined, report = join_feature_table(asked, history, as_of())
        assert joined.select(["churned", "value"]).to_pydict() == {
            "churned": [0, 1, 2, 3],
            "value": [7, 7, None, 7],
        }
        assert (report.rows_in, report.rows_out, report.matched) == (4, 4, 3)

    def test_without_a_created_time_the_event_alone_counts(self) -> None:
        history = features(("C1", at(1), at(9), 1), ("C1", at(3), at(9), 3))
        assert values(labels(("C1", at(2))), history, as_of(created_time=None).model_copy()) == [1]

    def test_values_older_than_the_ttl_are_missing(self) -> None:
        history = features(("C1", at(0), at(0), 1))
        asked = labels(("C1", at(24)), ("C1", at(24.001)))
        assert values(asked, history, as_of(ttl_days=1)) == [1, None]

    def test_rows_without_a_time_were_never_known(self) -> None:
        history = features(("C1", None, at(0), 1), ("C1", at(0), None, 2), (None, at(0), at(0), 3))
        assert values(labels(("C1", at(9)), (None, at(9))), history, as_of()) == [None, None]

    def test_of_two_with_the_same_event_the_one_created_last_counts(self) -> None:
        rows = [("C1", at(1), at(2), 5), ("C1", at(1), at(3), 4), ("C1", at(1), at(2), 6)]
        for _ in range(5):
            random.shuffle(rows)
            assert values(labels(("C1", at(9))), features(*rows), as_of()) == [4]

    def test_the_remaining_columns_break_ties(self) -> None:
        rows = [("C1", at(1), at(2), value, text) for value in (1, 2, None) for text in ("a", "b", None)]
        for _ in range(5):
            random.shuffle(rows)
            joined, _ = join_feature_table(labels(("C1", at(9))), features(*rows), as_of())
            assert joined.select(["value", "text"]).to_pylist() == [{"value": 2, "text": "b"}]

    def test_ties_of_columns_without_an_order_are_broken_too(self) -> None:
        history = features(*[("C1", at(1), at(1), 1)] * 3).append_column("tags", pa.array([[2], [3], [1]]))
        for rows in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
            joined, _ = join_feature_table(labels(("C1", at(9))), history.take(rows), as_of())
            assert joined["tags"].to_pylist() == [[3]]

    def test_inner_leaves_out_rows_without_features(self) -> None:
        asked = labels(("C2", at(2)), ("C1", at(2)))
        how = as_of().model_copy(update={"join_type": "inner"})
        joined, report = join_feature_table(asked, features(("C1", at(1), at(1), 7)), how)
        assert joined.select(["customer_id", "value"]).to_pylist() == [{"customer_id": "C1", "value": 7}]
        assert (report.rows_in, report.rows_out) == (2, 1)

    def test_times_are_no_features_and_types_stay(self) -> None:
        joined, _ = join_feature_table(labels(("C1", at(0))), features(("C1", at(1), at(1), 7)), as_of())
        assert joined.schema == pa.schema({**LABELS, "value": pa.int64(), "text": pa.string()})

    def test_dates_zones_and_texts_are_times(self) -> None:
        history = features(("C1", at(0), at(0), 1), ("C1", at(25), at(25), 2))
        for column in (
            pa.array([date(2025, 1, 2)]),
            pa.array([at(24).replace(tzinfo=UTC)], pa.timestamp("ns", "Europe/Vienna")),
            pa.array(["2025-01-02"]),
            pa.array([at(24)], pa.timestamp("s")),
        ):
            assert values(pa.table({"customer_id": ["C1"], "time": column}), history, as_of()) == [1]

    def test_empty_tables_join(self) -> None:
        assert values(labels(), features(), as_of()) == []
        assert values(labels(("C1", at(1))), features(), as_of()) == [None]
        assert values(labels(), features(("C1", at(1), at(1), 1)), as_of()) == []

    def test_a_label_without_a_time_is_named(self) -> None:
        with pytest.raises(JoinError, match=r"features: 1 label rows have no time \(customer_id C7\)"):
            join_feature_table(labels(("C1", at(1)), ("C7", None)), features(), as_of())

    def test_what_is_no_time_is_told(self) -> None:
        asked = pa.table({"customer_id": ["C1"], "time": [20250101]})
        with pytest.raises(JoinError, match="label_time time is of type int64, and must be a date"):
            join_feature_table(asked, features(), as_of())
        asked = pa.table({"customer_id": ["C1"], "time": ["tomorrow"]})
        with pytest.raises(JoinError, match=r"no time everywhere.*tomorrow"):
            join_feature_table(asked, features(), as_of())


KEYS = st.sampled_from(["C1", "C2", "C3", None])
HOURS = st.one_of(st.none(), st.integers(0, 8).map(at))
LABEL_ROWS = st.lists(st.tuples(KEYS, st.integers(0, 8).map(at)), max_size=12)
FEATURE_ROWS = st.lists(
    st.tuples(KEYS, HOURS, HOURS, st.one_of(st.none(), st.integers(0, 3)), st.sampled_from(["a", "b", None])),
    max_size=25,
)


def oracle(label: dict[str, Any], history: list[dict[str, Any]], how: FeatureTable) -> dict[str, Any] | None:
    """What was known, by looking at every feature row."""
    moment = how.point_in_time
    assert moment is not None
    best = None
    for row in history:
        event = row[moment.event_time]
        created = row[moment.created_time] if moment.created_time else event
        if row["customer_id"] is None or row["customer_id"] != label["customer_id"]:
            continue
        if event is None or created is None or event > label["time"] or created > label["time"]:
            continue
        if moment.ttl_days is not None and label["time"] - event > timedelta(days=moment.ttl_days):
            continue
        rest = (
            [row["value"], row["text"]]
            if moment.created_time
            else [row["created"], row["value"], row["text"]]
        )
        order = (event, created, [(value is not None, value) for value in rest])
        if best is None or order > best[0]:
            best = (order, row)
    return best[1] if best else None


@settings(max_examples=150)
@given(LABEL_ROWS, FEATURE_ROWS, st.booleans(), st.sampled_from([None, 0.1, 0.25]), st.randoms())
def test_the_point_in_time_join_is_what_an_oracle_says(
    asked: list, history: list, created: bool, ttl_days: float | None, shuffling: random.Random
) -> None:
    how = as_of(created_time="created" if created else None, ttl_days=ttl_days)
    left, right = labels(*asked), features(*history)
    joined, report = join_feature_table(left, right, how)
    found = [oracle(label, right.to_pylist(), how) for label in left.to_pylist()]
    expected = [(row["value"], row["text"]) if row else (None, None) for row in found]
    assert list(zip(joined["value"].to_pylist(), joined["text"].to_pylist(), strict=True)) == expected
    assert joined.select(left.column_names).equals(left)
    assert report.matched == sum(row is not None for row in found)
    shuffled = list(history)
    shuffling.shuffle(shuffled)
    assert join_feature_table(left, features(*shuffled), how)[0].equals(joined)


class TestByKey:
    def test_left_keeps_every_row_in_order(self) -> None:
        left = pa.table({"customer_id": ["b", "x", "a", None], "churned": [1, 0, 1, 0]})
        right = pa.table({"customer_id": ["a", "b", "c", None], "tenure": [1, 2, 3, 4]})
        joined, report = join_feature_table(left, right, spec())
        assert joined.to_pydict() == {**left.to_pydict(), "tenure": [2, None, 1, None]}
        assert joined.schema.field("tenure").type == pa.int64()
        assert (report.rows_in, report.rows_out, report.matched, report.factor) == (4, 4, 2, 1.0)

    def test_inner_keeps_what_matches(self) -> None:
        left = pa.table({"customer_id": ["b", "x", "a"]})
        right = pa.table({"customer_id": ["a", "b"], "tenure": [1, 2]})
        assert join_feature_table(left, right, spec(join_type="inner"))[0].to_pydict() == {
            "customer_id": ["b", "a"],
            "tenure": [2, 1],
        }

    def test_several_columns_make_a_key(self) -> None:
        left = pa.table({"id": [1, 1, 2], "day": pa.array([date(2025, 1, n) for n in (1, 2, 1)])})
        right = pa.table(
            {"day": pa.array([at(24), at(0)]), "id": pa.array([1, 2], pa.int32()), "x": [0.5, 0.25]}
        )
        joined, _ = join_feature_table(left, right, spec(join_key=["id", "day"]))
        assert joined["x"].to_pylist() == [None, 0.5, 0.25]

    def test_data_frames_join_too(self) -> None:
        left = pd.DataFrame({"customer_id": pd.Categorical(["b", "a"]), "churned": [1, 0]})
        right = pd.DataFrame({"customer_id": ["a", "b"], "tenure": [1, 2]})
        assert join_feature_table(left, right, spec())[0]["tenure"].to_pylist() == [2, 1]

    def test_a_fan_out_is_refused(self) -> None:
        left = pa.table({"customer_id": [f"C{n}" for n in range(10)]})
        right = pa.table({"customer_id": ["C1", "C1", "C1", "C2", "C2"], "x": [1, 2, 3, 4, 5]})
        with pytest.raises(JoinError) as told:
            join_feature_table(left, right, spec())
        assert str(told.value) == (
            "feature table features: the join on customer_id makes 13 rows of 10 (1.30 times, 1.1 are "
            "allowed), since "
            "2 keys are repeated in it, such as C1 (3 rows); C2 (2 rows); complete join_key so that it is "
            "unique "
            "there, use point_in_time, or set fan_out_check: false"
        )
        joined, report = join_feature_table(left, right, spec(fan_out_check=False))
        assert joined["x"].to_pylist() == [None, 1, 2, 3, 4, 5, *[None] * 7]
        assert (report.rows_out, report.repeated_keys, report.factor) == (13, 2, 1.3)

    def test_a_small_fan_out_is_counted(self) -> None:
        left = pa.table({"customer_id": [f"C{n}" for n in range(10)]})
        right = pa.table({"customer_id": ["C1", "C1"], "x": [1, 2]})
        joined, report = join_feature_table(left, right, spec())
        assert (joined.num_rows, report.rows_out, report.repeated_keys) == (11, 11, 1)

    def test_a_huge_fan_out_is_refused_before_it_is_made(self) -> None:
        rows = pa.table({"customer_id": ["same"] * 200_000})
        with pytest.raises(JoinError, match="makes 40000000000 rows of 200000"):
            join_feature_table(rows, rows.append_column("x", pa.array(range(200_000))), spec())

    @pytest.mark.parametrize(
        ("left", "right", "message"),
        [
            (
                {"customer": ["a"]},
                {"customer_id": ["a"]},
                "label table's side.*'customer_id'.*did you mean customer",
            ),
            ({"customer_id": ["a"]}, {"id": ["a"]}, "feature table features has no column 'customer_id'"),
            ({"customer_id": [1]}, {"customer_id": ["1"]}, "type int64 on the label.*of type string here"),
            (
                {"customer_id": ["a"], "x": [1]},
                {"customer_id": ["a"], "x": [1]},
                "x would come.*is there already",
            ),
        ],
    )
    def test_tables_that_do_not_fit_are_told(self, left: dict, right: dict, message: str) -> None:
        with pytest.raises(JoinError, match=message):
            join_feature_table(pa.table(left), pa.table(right), spec())

    @settings(max_examples=50)
    @given(
        st.lists(st.tuples(KEYS, st.integers(0, 2)), max_size=10),
        st.lists(st.tuples(KEYS, st.integers(0, 2)), max_size=10),
        st.sampled_from(["left", "inner"]),
    )
    def test_it_is_what_nested_loops_say(self, asked: list, others: list, how: str) -> None:
        kinds = {"customer_id": pa.string(), "n": pa.int64()}
        left = pa.table(dict(zip(kinds, _columns(asked, 2), strict=True)), pa.schema(kinds))
        right = pa.table(
            {**dict(zip(kinds, _columns(others, 2), strict=True)), "x": list(range(len(others)))},
            pa.schema({**kinds, "x": pa.int64()}),
        )
        expected = []
        for key, number in asked:
            found = [x for x, (k, n) in enumerate(others) if k is not None and (k, n) == (key, number)]
            expected += [(key, number, x) for x in found or ([None] if how == "left" else [])]
        joined, _ = join_feature_table(
            left, right, spec(join_key=["customer_id", "n"], join_type=how, fan_out_check=False)
        )
        assert [tuple(row.values()) for row in joined.to_pylist()] == expected


def _columns(rows: list, width: int) -> list[list]:
    return [[row[number] for row in rows] for number in range(width)]
