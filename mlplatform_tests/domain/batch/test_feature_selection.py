from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform.domain.batch.feature_selection import (
    Selection,
    SelectionError,
    missing_packages,
    select,
)
from mlplatform.domain.batch.features import describe
from mlplatform.domain.batch.pipeline import ProblemType, SelectionMethod

ROWS = 500
with_lightgbm = pytest.mark.skipif(
    importlib.util.find_spec("lightgbm") is None, reason="lightgbm is not installed"
)


def frame() -> pd.DataFrame:
    """`strong`, its copy and `weak` say something of the target, `plan` too; the rest is noise."""
    random = np.random.default_rng(0)
    strong = random.normal(size=ROWS)
    return pd.DataFrame(
        {
            "noise": random.normal(size=ROWS),
            "copy": strong + 0.25 * random.normal(size=ROWS),
            "strong": strong,
            "weak": np.where(random.random(ROWS) < 0.2, np.nan, strong + 2 * random.normal(size=ROWS)),
            "plan": np.where(strong + random.normal(size=ROWS) > 0, "monthly", "yearly"),
            "color": random.choice(["red", "blue", None], ROWS),
            "constant": 0.1,
            "same": "text",
        }
    )


def target(problem_type: ProblemType) -> np.ndarray:
    value = frame()["strong"].to_numpy() + 0.2 * np.random.default_rng(1).normal(size=ROWS)
    if problem_type == "regression":
        return value
    return np.digitize(value, [0] if problem_type == "binary_classification" else [-0.5, 0.5])


def chosen(*methods: dict[str, Any], problem_type: ProblemType = "binary_classification") -> Selection:
    given = frame()
    listed = [SelectionMethod.model_validate(method) for method in methods]
    return select(given, describe(given), target(problem_type), problem_type, listed)


PROBLEMS: list[ProblemType] = ["binary_classification", "multiclass_classification", "regression"]


def test_variance_takes_out_what_is_constant() -> None:
    selection = chosen({"name": "variance_threshold"})
    assert set(frame()) - set(selection.columns) == {"constant", "same"}
    assert selection.reasons["constant"].startswith("variance_threshold ")
    assert chosen({"name": "variance_threshold", "threshold": 1.5}).columns == ("weak", "plan", "color")


@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_of_two_columns_alike_the_more_telling_stays(problem_type: ProblemType) -> None:
    selection = chosen({"name": "correlation", "threshold": 0.95}, problem_type=problem_type)
    assert set(frame()) - set(selection.columns) == {"copy"}
    assert selection.reasons["copy"].startswith("correlation with strong is 0.9")


@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_mutual_information_ranks_numbers_and_categories(problem_type: ProblemType) -> None:
    selection = chosen({"name": "mutual_info", "k": 4}, problem_type=problem_type)
    assert {"strong", "copy"} < set(selection.columns)
    scores = selection.scores["mutual_info"]
    assert scores["strong"] > scores["plan"] > scores["color"]
    assert len(selection.columns) <= 4
    assert "not among the best 4" in " ".join(selection.reasons.values())


def test_a_threshold_of_mutual_information() -> None:
    selection = chosen({"name": "mutual_info", "threshold": 0.3})
    assert set(selection.columns) == {"strong", "copy"}
    assert selection.reasons["constant"] == "mutual_info 0 is not above 0.3"


def test_methods_follow_each_other_and_the_order_of_columns_stays() -> None:
    methods = ({"name": "variance_threshold"}, {"name": "correlation"}, {"name": "mutual_info", "k": 2})
    selection = chosen(*methods)
    assert selection.columns == ("strong", "plan")
    assert set(selection.scores["mutual_info"]) == {"noise", "strong", "weak", "plan", "color"}
    assert set(selection.columns) | set(selection.reasons) == set(frame())
    assert chosen(*methods) == selection


def test_without_methods_all_stay() -> None:
    assert chosen().columns == tuple(frame())


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(
        SelectionError, match=r"leaves no feature \(color: mutual_info .*use lower thresholds"
    ):
        chosen({"name": "mutual_info", "threshold": 99})


def test_a_package_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "lightgbm" else find(name, *rest)
    )
    method = SelectionMethod(name="lgbm_importance")
    assert missing_packages([method]) == ["lightgbm"]
    assert missing_packages([SelectionMethod(name="mutual_info")]) == []
    with pytest.raises(SelectionError, match="needs lightgbm: pip install lightgbm, or take mutual_info"):
        chosen({"name": "lgbm_importance"})


@with_lightgbm
@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_lightgbm_keeps_what_has_most_of_the_gain(problem_type: ProblemType) -> None:
    selection = chosen({"name": "lgbm_importance", "threshold": 0.8}, problem_type=problem_type)
    assert "strong" in selection.columns
    assert not {"constant", "same"} & set(selection.columns)
    assert sum(selection.scores["lgbm_importance"].values()) == pytest.approx(1)
    assert chosen({"name": "lgbm_importance", "k": 1}, problem_type=problem_type).columns == ("strong",)
