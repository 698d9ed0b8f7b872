from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform.domain.batch.features import MAX_LEVELS, FeatureError
from mlplatform.domain.batch.pipeline import Preprocessing
from mlplatform.domain.batch.transforms import (
    MAX_COLUMNS_OF_CATEGORY,
    OwnTransform,
    Preparation,
    TransformError,
)


def frame(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "tenure": random.integers(0, 72, rows),
            "charges": np.where(random.random(rows) < 0.2, np.nan, random.gamma(2, 30, rows)),
            "contract": random.choice(["monthly", "yearly", None], rows),
        }
    )


TARGET = np.arange(60) % 2


class Spread:
    """Says how far a column is from its mean in training, in deviations."""

    def __init__(self, column: str = "tenure") -> None:
        self.column = column

    def fit(self, frame: pd.DataFrame, target: pd.Series) -> None:
        self.mean, self.deviation = frame[self.column].mean(), frame[self.column].std()
        self.by_class = target.groupby(target).size().to_numpy()

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(spread=(frame[self.column] - self.mean) / self.deviation)


def own(kind: type, **config: Any) -> OwnTransform:
    return OwnTransform.make(f"features:{kind.__name__}", config, kind)


def fit(given: pd.DataFrame, transforms: list[OwnTransform] | None = None, **options: Any) -> Preparation:
    preprocessing = Preprocessing.model_validate(options.pop("preprocessing", {}))
    target = options.pop("target", TARGET[: len(given)])
    return Preparation.fit(given, target, preprocessing, transforms or [], **options)


def again(preparation: Preparation, kind: type = Spread) -> Preparation:
    """The same, by way of JSON."""
    state = json.loads(json.dumps(preparation.state(), allow_nan=False))
    return Preparation.restore(state, lambda _, config: kind(**config))


def outputs(preparation: Preparation) -> list[str]:
    return [feature.name for feature in preparation.outputs]


def test_without_a_block_everything_stays_as_it_is() -> None:
    prepared = fit(frame()).apply(frame())
    assert prepared.features["charges"].isna().sum() == frame()["charges"].isna().sum()
    assert list(prepared.features) == ["tenure", "charges", "contract"]
    assert len(prepared.refused) == 0


@pytest.mark.parametrize(("strategy", "wanted"), [("median", 20.0), ("mean", 25.0), ("mode", 10.0)])
def test_gaps_are_filled_by_what_training_had(strategy: str, wanted: float) -> None:
    train = pd.DataFrame({"x": [10, 10, 20, 30, 55, None], "c": ["b", "a", "b", "a", "c", None]})
    preparation = fit(train, preprocessing={"imputation": {"strategy": strategy}})
    scored = preparation.apply(pd.DataFrame({"x": [None, 1_000.0], "c": [None, "z"]})).features
    assert scored["x"].tolist() == [wanted, 1_000]
    # The most frequent text, the first by name of those that are equally so.
    assert scored["c"].tolist() == ["a", "z"]


def test_columns_without_use_go() -> None:
    train = frame().assign(
        empty=None, same=1, gaps=[1.0, 2.0] + [None] * 58, half=[1.0, None] * 30, key=range(60)
    )
    preparation = fit(
        train, preprocessing={"remove_high_missing": {"threshold": 0.9}, "remove_constant": True}
    )
    assert preparation.dropped == {
        "empty": "has no value at all",
        "same": "is constant",
        "gaps": "is missing in 96.7% of the rows",
    }
    assert outputs(preparation) == ["tenure", "charges", "contract", "half", "key"]
    # What is not used need not be there.
    assert len(preparation.apply(frame().assign(half=1, key=2)).features) == 60


def test_a_column_that_is_one_value_or_missing_is_not_constant() -> None:
    preparation = fit(frame().assign(x=[1.0, None] * 30), preprocessing={"remove_constant": True})
    assert "x" in outputs(preparation)


def test_columns_may_stay_that_are_missing_or_constant() -> None:
    train = frame().assign(same=1, gaps=[1.0] + [None] * 59)
    switched_off = {"remove_high_missing": {"enabled": False, "threshold": 0.5}}
    assert {"same", "gaps"} <= set(outputs(fit(train, preprocessing=switched_off)))


def test_a_text_of_its_own_in_each_row_is_no_feature() -> None:
    rows = MAX_LEVELS + 1
    train = pd.DataFrame({"x": np.arange(rows) % 7, "name": [f"n{row}" for row in range(rows)]})
    preparation = fit(train, target=np.arange(rows) % 2)
    assert preparation.dropped == {"name": "has more than 10,000 different texts"}


def test_nothing_left_is_an_error_that_says_why() -> None:
    with pytest.raises(FeatureError, match="no feature is left to learn from: a has no value at all"):
        fit(pd.DataFrame({"a": [None, None]}))
    with pytest.raises(FeatureError, match="the table has none"):
        fit(pd.DataFrame(index=range(3)))


def test_rows_that_cannot_be_learned_are_counted_and_left_out() -> None:
    train = frame().astype({"tenure": object})
    train.loc[3, "tenure"] = "new"
    # A text among the numbers makes all of them texts; the database's types say what they are.
    preparation = fit(frame())
    prepared = preparation.apply(train)
    assert prepared.refused.to_dict() == {3: "tenure is 'new', not a finite number"}
    assert len(prepared.features) == 59
    infinite = frame().astype({"tenure": float})
    infinite.loc[[1, 2], "tenure"] = np.inf
    assert fit(infinite).refused_rows == 2


def test_encoding_makes_numbers_only() -> None:
    train = pd.DataFrame({"n": [1.0, None, 5.0], "c": ["b", "b", None], "flag": [True, False, True]})
    preparation = fit(train, numbers_only=True)
    encoded = preparation.apply(train).features
    assert encoded.to_dict("list") == {
        "n": [1, 3, 5],
        "c=b": [1, 1, 0],
        "flag": [1, 0, 1],
        "n=(missing)": [0, 1, 0],
        "c=(missing)": [0, 0, 1],
    }
    assert preparation.encoding is not None
    assert preparation.encoding.sources == {
        "n": "n",
        "c=b": "c",
        "flag": "flag",
        "n=(missing)": "n",
        "c=(missing)": "c",
    }


def test_an_unseen_text_is_none_of_the_levels_and_counted() -> None:
    preparation = fit(pd.DataFrame({"c": ["a", "b"]}), numbers_only=True)
    prepared = preparation.apply(pd.DataFrame({"c": ["z", "a", "z", None]}))
    assert prepared.features.to_numpy().tolist() == [[0, 0], [1, 0], [0, 0], [0, 0]]
    assert prepared.unseen == {"c": 2}


def test_a_gap_that_training_had_not_gets_the_median() -> None:
    preparation = fit(pd.DataFrame({"n": [1.0, 2.0, 9.0]}), numbers_only=True)
    assert preparation.apply(pd.DataFrame({"n": [None]})).features.to_dict("list") == {"n": [2.0]}


def test_rare_levels_of_a_rich_category_have_no_column() -> None:
    texts = [f"t{number:03}" for number in range(150)] + ["t149"] * 5
    preparation = fit(pd.DataFrame({"c": texts}), target=np.arange(155) % 2, numbers_only=True)
    columns = list(preparation.apply(pd.DataFrame({"c": texts})).features)
    assert len(columns) == MAX_COLUMNS_OF_CATEGORY
    assert columns[0] == "c=t149"


def test_selected_features_are_all_that_a_table_needs() -> None:
    preparation = fit(frame(), selected=["charges"], numbers_only=True)
    assert [feature.name for feature in preparation.inputs] == ["charges"]
    assert preparation.dropped == {"tenure": "was not selected", "contract": "was not selected"}
    assert len(preparation.apply(frame()[["charges"]]).features) == 60
    with pytest.raises(FeatureError, match="selected features gone are not among those after preprocessing"):
        fit(frame(), selected=["charges", "gone"])


def test_a_transform_of_the_project_learns_in_training_only() -> None:
    preparation = fit(frame(), [own(Spread, column="tenure")])
    train = frame()["tenure"]
    scored = preparation.apply(frame(5, seed=1)).features
    wanted = (frame(5, seed=1)["tenure"] - train.mean()) / train.std()
    assert np.allclose(scored["spread"], wanted)
    assert outputs(preparation) == ["tenure", "charges", "contract", "spread"]


def test_a_transform_sees_filled_gaps_and_the_target() -> None:
    preparation = fit(
        frame(), [own(Spread, column="charges")], preprocessing={"imputation": {"strategy": "median"}}
    )
    assert not preparation.apply(frame()).features["spread"].isna().any()
    assert preparation.transforms[0].fitted.by_class.tolist() == [30, 30]


def test_with_transforms_every_input_may_be_needed() -> None:
    preparation = fit(frame(), [own(Spread)], selected=["spread"])
    assert [feature.name for feature in preparation.inputs] == ["tenure", "charges", "contract"]
    assert list(preparation.apply(frame()).features) == ["spread"]


def test_all_of_it_comes_back_from_json() -> None:
    for options in ({}, {"numbers_only": True}):
        train = frame().assign(since=pd.Timestamp("2026-01-01"), gone=None)
        preparation = fit(train, [own(Spread)], preprocessing={"imputation": {"strategy": "mean"}}, **options)
        restored = again(preparation)
        first, second = (each.apply(train).features for each in (preparation, restored))
        pd.testing.assert_frame_equal(first, second, check_exact=True)
        assert restored.state() == preparation.state()


def test_any_chunks_give_the_same() -> None:
    preparation = fit(frame(), [own(Spread)], numbers_only=True)
    whole = preparation.apply(frame()).features
    for size in (1, 7):
        chunks = [preparation.apply(frame().iloc[at : at + size]).features for at in range(0, 60, size)]
        pd.testing.assert_frame_equal(pd.concat(chunks), whole, check_exact=True)


def test_no_rows_are_no_reason_to_fail() -> None:
    for transforms in ([], [own(Spread)]):
        prepared = fit(frame(), transforms, numbers_only=True).apply(frame().iloc[:0])
        assert len(prepared.features) == 0
        assert "tenure" in prepared.features


class Nothing:
    def fit(self, frame: pd.DataFrame, target: pd.Series) -> None: ...

    def transform(self, frame: pd.DataFrame) -> Any:
        return frame


class Refits(Nothing):
    def transform(self, frame: pd.DataFrame) -> Any:
        return frame.assign(spread=frame["tenure"] - frame["tenure"].mean())


class Sorts(Nothing):
    def transform(self, frame: pd.DataFrame) -> Any:
        return frame.sort_values("tenure")


class Drops(Nothing):
    def transform(self, frame: pd.DataFrame) -> Any:
        return frame.dropna()


class GivesNumbers(Nothing):
    def transform(self, frame: pd.DataFrame) -> Any:
        return frame["tenure"].to_numpy()


class DividesByZero(Nothing):
    def transform(self, frame: pd.DataFrame) -> Any:
        return frame.assign(share=1 / (frame["tenure"] * 0))


class Fails(Nothing):
    def fit(self, frame: pd.DataFrame, target: pd.Series) -> None:
        raise KeyError("balance")


class KeepsAFrame(Nothing):
    def fit(self, frame: pd.DataFrame, target: pd.Series) -> None:
        self.seen = {"all": [frame]}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Refits, "features:Refits gave other values of spread for the same rows in a smaller frame"),
        (Sorts, "features:Sorts.transform gave 60 rows for 60, or in another order"),
        (Drops, r"features:Drops.transform gave \d+ rows for 60"),
        (GivesNumbers, "features:GivesNumbers.transform gave no DataFrame but ndarray"),
        (DividesByZero, r"gave values that no model takes in 60 rows \(row 0: share is inf"),
        (Fails, "features:Fails.fit failed: KeyError: 'balance'"),
    ],
)
def test_a_transform_that_does_not_keep_its_contract(kind: type, message: str) -> None:
    with pytest.raises(TransformError, match=message):
        fit(frame(), [own(kind)])


def test_a_transform_that_fails_in_serving_is_told_by_name() -> None:
    preparation = fit(frame(), [own(Spread)])
    preparation.transforms[0].fitted.column = "balance"
    with pytest.raises(TransformError, match=r"features:Spread\.transform failed: KeyError"):
        preparation.apply(frame())


def test_what_a_transform_learned_must_be_plain() -> None:
    with pytest.raises(TransformError, match=r"features:KeepsAFrame\.seen\.all\[0\] is a DataFrame"):
        fit(frame(), [own(KeepsAFrame)])


def test_a_class_that_is_no_transform() -> None:
    with pytest.raises(TransformError, match="features:dict has no method fit and transform"):
        own(dict)
    with pytest.raises(TransformError, match=r"features:Spread cannot be made with config .*colunm"):
        own(Spread, colunm="tenure")


class Learned(Nothing):
    """Has one attribute of each kind that can be kept."""

    def fit(self, frame: pd.DataFrame, target: pd.Series) -> None:
        self.plain = [1, 2.5, "text", None, True, {"nested": (1, [2])}]
        self.arrays = {
            "floats": np.array([[0.1, np.nan], [np.inf, -np.inf]]),
            "integers": np.arange(3, dtype=np.int32),
            "texts": np.array(["a", "bc"]),
            "booleans": np.array([True, False]),
            "none": np.empty((0, 2)),
        }
        self.numbers = [np.float64(0.1), np.int64(3), np.bool_(True), float("nan"), float("-inf")]


def test_every_plain_kind_comes_back() -> None:
    fitted = fit(frame(), [own(Learned)])
    restored = again(fitted, Learned).transforms[0].fitted
    original = fitted.transforms[0].fitted
    assert restored.plain == original.plain
    for name, array in original.arrays.items():
        assert restored.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(restored.arrays[name], array)
    assert np.array_equal(restored.numbers, original.numbers, equal_nan=True)


class OwnState(KeepsAFrame):
    def get_state(self) -> dict[str, Any]:
        return {"seen": len(self.seen["all"][0])}

    def set_state(self, state: dict[str, Any]) -> None:
        self.rows = state["seen"]


def test_a_transform_may_say_what_it_keeps() -> None:
    assert again(fit(frame(), [own(OwnState)]), OwnState).transforms[0].fitted.rows == 60
