from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from mlplatform.domain.batch.labels import LabelError, classes_of, labels, numbers, positive_number
from mlplatform.domain.batch.pipeline import Target


def series(*values: object, dtype: str | None = None) -> pd.Series:
    return pd.Series(list(values), dtype=dtype, name="churned")


def target(**fields: object) -> Target:
    return Target.model_validate({"label_column": "churned", **fields})


@pytest.mark.parametrize(
    "label",
    [
        series(0, 1, 1),
        series(0.0, 1.0, 1.0),
        series(False, True, True),
        series(0, 1, 1, dtype="Int64"),
        series(Decimal(0), Decimal(1), Decimal(1)),
        series(0, 1, 1, dtype="category"),
    ],
)
def test_a_declared_class_is_found_in_whatever_type_a_database_has(label: pd.Series) -> None:
    classes = classes_of(label, target(classes=[0, 1]), "binary_classification")
    assert classes == (0, 1)
    assert numbers(label, classes).tolist() == [0, 1, 1]


def test_the_declared_order_is_the_order_of_the_numbers() -> None:
    label = series("no", "yes", "no")
    classes = classes_of(label, target(classes=["yes", "no"]), "binary_classification")
    assert numbers(label, classes).tolist() == [1, 0, 1]


def test_classes_that_are_not_declared_are_sorted() -> None:
    assert classes_of(series("b", "a", "c"), target(), "multiclass_classification") == ("a", "b", "c")
    assert classes_of(series(10, 9, 10), target(), "binary_classification") == (9, 10)
    assert classes_of(series(True, False), target(), "binary_classification") == (0, 1)


def test_regression_has_no_classes() -> None:
    assert classes_of(series(1.5, 2.5), target(), "regression") == ()
    assert numbers(series(1, "2.5"), ()).tolist() == [1.0, 2.5]


@pytest.mark.parametrize(
    ("label", "fields", "problem_type", "message"),
    [
        (series(1, 1), {"classes": [0, 1]}, "binary_classification", r"one class only \(1\)"),
        (series(1, 1), {}, "binary_classification", "has 1 classes"),
        (series(0, 1, 2), {}, "binary_classification", "set problem_type: multiclass_classification"),
        (series(None, None), {"classes": [0, 1]}, "binary_classification", "no label at all"),
        (series(0, 1), {"classes": [0, 1, 2]}, "multiclass_classification", "no row of class 2"),
        (series(*range(1_001)), {}, "multiclass_classification", "is the problem_type regression"),
    ],
)
def test_labels_that_cannot_be_learned(
    label: pd.Series, fields: dict[str, object], problem_type: str, message: str
) -> None:
    with pytest.raises(LabelError, match=f"column churned .*{message}"):
        classes_of(label, target(**fields), problem_type)  # type: ignore[arg-type]


def test_a_label_that_is_no_class_is_told() -> None:
    with pytest.raises(LabelError, match=r"column churned holds 'maybe', not among the classes 'no', 'yes'"):
        numbers(series("no", "maybe", "yes"), ("no", "yes"))


def test_missing_labels_are_counted() -> None:
    with pytest.raises(LabelError, match="empty in 2 of 3 rows"):
        numbers(series(1, None, np.nan), (0, 1))


@pytest.mark.parametrize("value", ["a lot", np.inf])
def test_regression_needs_finite_numbers(value: object) -> None:
    with pytest.raises(LabelError, match="no finite numbers"):
        numbers(series(1.0, value), ())


def test_the_positive_class_is_the_declared_or_the_last() -> None:
    assert positive_number(("no", "yes"), target()) == 1
    assert positive_number(("yes", "no"), target(positive_class="yes")) == 0
    assert positive_number((0, 1), target(positive_class=1)) == 1
    with pytest.raises(LabelError, match="positive_class 'maybe' is none of the classes"):
        positive_number(("no", "yes"), target(positive_class="maybe"))


def test_scores_speak_for_classes() -> None:
    scores = np.array([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
    assert labels(scores, (0, 1), positive=1).tolist() == [0, 1, 1]
    assert labels(scores, (0, 1), positive=1).dtype == np.int64
    assert labels(scores, ("yes", "no"), positive=0).tolist() == ["yes", "yes", "no"]
    assert labels(scores, (0, 1), positive=1, threshold=0.6).tolist() == [0, 0, 1]
    assert labels(np.eye(3), ("a", "b", "c"), positive=0).tolist() == ["a", "b", "c"]
    assert labels(np.array([1.5]), (), positive=0).tolist() == [1.5]
