"""Labels as class numbers, and scores as labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlplatform.domain.batch.pipeline import ProblemType, Target
from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    import pandas as pd

Class = int | str
THRESHOLD = 0.5
MAX_CLASSES = 1_000


class LabelError(PlatformError):
    """The label column cannot be learned; the message says why and the remedy."""


def class_of(value: Any) -> Class:
    """One value of a label column as YAML would have it: 1.0 and True are 1."""
    if isinstance(value, str):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return int(number) if number.is_integer() else str(value)


def classes_of(label: pd.Series, target: Target, problem_type: ProblemType) -> tuple[Class, ...]:
    """The classes in the order of their numbers: as declared, else sorted; none for regression.

    Raises:
        LabelError: the column holds one class only, or none of a declared one, or there are not two for a
            binary problem.
    """
    if problem_type == "regression":
        return ()
    found = {class_of(value) for value in label.dropna().unique()}
    classes = tuple(target.classes or sorted(found, key=lambda value: (isinstance(value, str), value)))
    name = target.label_column
    if len(classes) > MAX_CLASSES:
        raise LabelError(f"column {name} has {len(classes):,} classes: is the problem_type regression?")
    if problem_type == "binary_classification" and len(classes) != 2:
        raise LabelError(
            f"column {name} has {len(classes)} classes ({_some(classes)}), and binary_classification needs"
            " two: set problem_type: multiclass_classification, or name two classes in schema.target.classes"
        )
    if len(found & set(_comparable(classes))) < 2:
        only = f"one class only ({_some(found)})" if found else "no label at all"
        raise LabelError(f"column {name} has {only}: training needs rows of two; check the data's windows")
    absent = [value for value in classes if class_of(value) not in found]
    if absent:
        raise LabelError(
            f"column {name} has no row of class {_some(absent)}, so that it cannot be learned: take it out of"
            " schema.target.classes, or train on more rows"
        )
    return classes


def positive_number(classes: Sequence[Class], target: Target) -> int:
    """Number of the class whose probability a binary model reports: the declared one, else the last.

    Raises:
        LabelError: it is none of the classes.
    """
    if target.positive_class is None:
        return len(classes) - 1
    comparable = _comparable(classes)
    if class_of(target.positive_class) not in comparable:
        raise LabelError(f"positive_class {target.positive_class!r} is none of the classes {_some(classes)}")
    return comparable.index(class_of(target.positive_class))


def numbers(label: pd.Series, classes: Sequence[Class]) -> np.ndarray:
    """(n,) class numbers, or the values as floats if `classes` is empty.

    Raises:
        LabelError: a label is missing, or is none of the classes, or not a finite number.
    """
    import pandas as pd

    missing = int(label.isna().sum())
    if missing:
        raise LabelError(
            f"column {label.name} is empty in {missing:,} of {len(label):,} rows: only labelled rows can be"
            " learned; add a data check null_threshold with on_failure: skip_row"
        )
    if not classes:
        column: Any = pd.to_numeric(label, errors="coerce")
        values = column.to_numpy(dtype=float)
        bad = ~np.isfinite(values)
        if bad.any():
            raise LabelError(
                f"column {label.name} holds {_some(set(label.to_numpy()[bad]))}, which are no finite numbers,"
                " and regression needs numbers"
            )
        return values
    order = {value: number for number, value in enumerate(_comparable(classes))}
    codes, distinct = pd.factorize(label)
    known = np.array([order.get(class_of(value), -1) for value in distinct], dtype=np.int64)
    if (known < 0).any():
        strange = [value for value, number in zip(distinct, known, strict=True) if number < 0]
        raise LabelError(
            f"column {label.name} holds {_some(strange)}, not among the classes {_some(classes)}: add them to"
            " schema.target.classes or remove the rows"
        )
    return known[codes]


def labels(
    scores: np.ndarray, classes: Sequence[Class], positive: int, threshold: float = THRESHOLD
) -> np.ndarray:
    """(n,) what the (n, k) probabilities say: the positive class from `threshold` on where there are two
    classes, else the likeliest; the scores themselves for regression.
    """
    if not classes:
        return scores
    if len(classes) == 2:
        chosen = np.where(scores[:, positive] >= threshold, positive, 1 - positive)
    else:
        chosen = np.argmax(scores, axis=1)
    whole = all(isinstance(value, int) for value in classes)
    return np.array(classes, dtype=np.int64 if whole else object)[chosen]


def _comparable(classes: Sequence[Class]) -> list[Class]:
    return [class_of(value) for value in classes]


def _some(values: Any) -> str:
    listed = sorted(map(repr, values))
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
