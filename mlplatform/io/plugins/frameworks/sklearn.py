"""scikit-learn's estimators as a framework, kept in the skops format.

Hyper-parameters stand flat beside `model`, under scikit-learn's names, and are checked against a table, so
that validating a pipeline does not import scikit-learn.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlplatform.domain.batch.pipeline import ProblemType
from mlplatform.io.plugins.frameworks import (
    Fitted,
    FrameworkError,
    InvalidConfig,
    TrainingData,
    TrainingEnvironment,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Task = Literal["classification", "regression"]
SEED = 42
FILE = "estimator.skops"
REMEDY = "pip install 'mlplatform[batch]'"
# What skops itself does not trust of the estimators below: compiled trees and calibrators, without code.
TRUSTED = (
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)
# Rows that tell how much a model without importances of its own leans on a feature.
_PERMUTED_ROWS = 2_000


@dataclass(frozen=True)
class Algorithm:
    """Where scikit-learn has an estimator, and what it needs: features of one scale, calibration."""

    module: str
    task: Task
    scaled: bool = False
    calibrated: bool = False


ALGORITHMS: dict[str, Algorithm] = {
    "RandomForestClassifier": Algorithm("sklearn.ensemble", "classification"),
    "LogisticRegression": Algorithm("sklearn.linear_model", "classification", scaled=True),
    "GradientBoostingClassifier": Algorithm("sklearn.ensemble", "classification"),
    "HistGradientBoostingClassifier": Algorithm("sklearn.ensemble", "classification"),
    "DecisionTreeClassifier": Algorithm("sklearn.tree", "classification"),
    "AdaBoostClassifier": Algorithm("sklearn.ensemble", "classification"),
    "SVC": Algorithm("sklearn.svm", "classification", scaled=True, calibrated=True),
    "RandomForestRegressor": Algorithm("sklearn.ensemble", "regression"),
    "GradientBoostingRegressor": Algorithm("sklearn.ensemble", "regression"),
    "HistGradientBoostingRegressor": Algorithm("sklearn.ensemble", "regression"),
    "LinearRegression": Algorithm("sklearn.linear_model", "regression", scaled=True),
    "Ridge": Algorithm("sklearn.linear_model", "regression", scaled=True),
    "Lasso": Algorithm("sklearn.linear_model", "regression", scaled=True),
}


class SklearnFramework:
    """`model` names the estimator. `random_state` is 42 unless given; the same data gives the same model."""

    name = "sklearn"
    libraries = ("scikit-learn",)
    needs_numbers = True

    def validate(self, config: Mapping[str, Any], problem_type: ProblemType) -> list[str]:
        task: Task = "regression" if problem_type == "regression" else "classification"
        fitting = [name for name, algorithm in ALGORITHMS.items() if algorithm.task == task]
        name = config.get("model")
        if name is None:
            raise InvalidConfig([((), f"model is missing: one of {', '.join(fitting)}")])
        if name not in ALGORITHMS:
            hint = _nearest(str(name), ALGORITHMS)
            raise InvalidConfig([(("model",), f"no model {name!r}{hint}: one of {', '.join(fitting)}")])
        if name not in fitting:
            message = (
                f"{name} is for {ALGORITHMS[name].task}, and problem_type is {problem_type}: take one of"
                f" {', '.join(fitting)}"
            )
            raise InvalidConfig([(("model",), message)])
        known = _parameters()[name]
        problems: list[tuple[tuple[str | int, ...], str]] = []
        for key, value in config.items():
            if key == "model":
                continue
            if key not in known:
                problems.append(((key,), f"{name} has no hyper-parameter {key!r}{_nearest(str(key), known)}"))
            elif not any(_fits(value, kind) for kind in known[key]):
                allowed = ", or ".join(_words(kind) for kind in known[key])
                # YAML takes 1e-3 for text.
                hint = ": write 1.0e-3 for 1e-3" if isinstance(value, str) and _is_number(value) else ""
                problems.append(((key,), f"{key} of {name} must be {allowed}, not {value!r}{hint}"))
        if problems:
            raise InvalidConfig(problems)
        return []

    def fit(self, data: TrainingData, config: Mapping[str, Any], environment: TrainingEnvironment) -> Fitted:
        from threadpoolctl import threadpool_limits

        name = config["model"]
        _check_classes(data)
        estimator = _build(name, config, data)
        environment.log(f"training {name} on {len(data.features):,} rows of {data.features.shape[1]} columns")
        # Elsewhere n_jobs does nothing, or only copies.
        parallel = name.startswith("RandomForest") and config.get("n_jobs") is None
        if parallel:
            estimator.set_params(n_jobs=environment.cpus)
        values = _matrix(data.features)
        try:
            with warnings.catch_warnings(record=True) as caught, threadpool_limits(environment.cpus):
                warnings.simplefilter("always")
                fitted = _scaled(estimator, name).fit(values, data.target)
        except (ValueError, TypeError, MemoryError) as error:
            raise FrameworkError(f"{name} could not be trained: {error}") from error
        for warning in {str(each.message).split("\n")[0] for each in caught}:
            environment.log(f"{name}: {warning}")
        for part in _parts(fitted):
            if "n_jobs" in part.get_params(deep=False):
                # Threads add up a forest's trees in any order, and so do not give the same last digits.
                part.set_params(n_jobs=None)
        result = SklearnEstimator(fitted)
        return Fitted(
            estimator=result,
            metrics=_training_metrics(result, data),
            importances=_importances(fitted, data),
            parameters={"model": name, **_plain(estimator.get_params(deep=False), parallel)},
        )

    def load(self, directory: Path) -> SklearnEstimator:
        import skops.io
        from sklearn.exceptions import InconsistentVersionWarning

        path = directory / FILE
        try:
            with warnings.catch_warnings():
                # The same release up to its patches is what a bundle's reader asks for.
                warnings.simplefilter("ignore", InconsistentVersionWarning)
                return SklearnEstimator(skops.io.load(path, trusted=list(TRUSTED)))
        except Exception as error:
            raise FrameworkError(
                f"{path} cannot be read as a scikit-learn model: {error}; train again"
            ) from error

    def check(self, h2o_url: str | None) -> str:
        try:
            return f"scikit-learn {version('scikit-learn')}, skops {version('skops')}"
        except PackageNotFoundError as error:
            raise FrameworkError(f"{error.name} is not installed: {REMEDY}") from None


class SklearnEstimator:
    """A fitted estimator (a Pipeline where features are scaled first)."""

    def __init__(self, fitted: Any) -> None:
        self._fitted = fitted

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        try:
            return _predict(self._fitted, _matrix(features))
        except ValueError as error:
            raise FrameworkError(f"scikit-learn cannot score these features: {error}") from error

    def save(self, directory: Path) -> None:
        import skops.io

        skops.io.dump(self._fitted, directory / FILE)


def _matrix(features: pd.DataFrame) -> np.ndarray:
    """(n, columns) floats in rows, however the frame holds them."""
    import numpy as np

    return np.ascontiguousarray(features.to_numpy(dtype=float))


def _build(name: str, config: Mapping[str, Any], data: TrainingData) -> Any:
    import importlib

    kind = getattr(importlib.import_module(ALGORITHMS[name].module), name)
    given = {key: value for key, value in config.items() if key != "model"}
    if isinstance(given.get("class_weight"), Mapping):
        given["class_weight"] = _class_weights(given["class_weight"], data.classes)
    if "random_state" in _parameters()[name]:
        given.setdefault("random_state", SEED)
    return kind(**given)


def _check_classes(data: TrainingData) -> None:
    """An estimator has probabilities only of the classes that it has seen."""
    import numpy as np

    seen = set(np.unique(data.target))
    absent = [str(name) for number, name in enumerate(data.classes) if number not in seen]
    if absent:
        raise FrameworkError(
            f"there is no row of class {', '.join(sorted(absent))} to learn from: train on more rows, or take"
            " the class out of schema.target.classes"
        )


def _class_weights(weights: Mapping[Any, float], classes: tuple[int | str, ...]) -> dict[int, float]:
    order = {str(value): number for number, value in enumerate(classes)}
    strange = [key for key in weights if str(key) not in order]
    if strange:
        raise FrameworkError(
            f"class_weight names {', '.join(map(repr, strange))}, and the classes are"
            f" {', '.join(map(repr, classes))}"
        )
    return {order[str(key)]: weight for key, weight in weights.items()}


def _scaled(estimator: Any, name: str) -> Any:
    """The whole that is fitted: calibrated and behind a scaler, if the algorithm needs that."""
    from sklearn import calibration
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if ALGORITHMS[name].calibrated:
        # Platt scaling of cross-validated decisions; one support vector machine is fitted to all rows.
        calibrate: Any = calibration.CalibratedClassifierCV
        estimator = calibrate(estimator, ensemble=False)
    return make_pipeline(StandardScaler(), estimator) if ALGORITHMS[name].scaled else estimator


def _parts(fitted: Any) -> list[Any]:
    """The scaler and the estimator, or the estimator alone."""
    from sklearn.pipeline import Pipeline

    return [step for _, step in fitted.steps] if isinstance(fitted, Pipeline) else [fitted]


def _predict(fitted: Any, values: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.linear_model._base import LinearModel

    *scalers, estimator = _parts(fitted)
    for scaler in scalers:
        values = scaler.transform(values)
    if isinstance(estimator, LogisticRegression | LinearModel):
        return _linear(estimator, values)
    classifies = hasattr(estimator, "predict_proba")
    return estimator.predict_proba(values) if classifies else estimator.predict(values)


def _linear(estimator: Any, values: np.ndarray) -> np.ndarray:
    """Predictions summed up row by row: a matrix product rounds a row otherwise in another company."""
    import numpy as np
    from scipy.special import expit, softmax

    coefficients, intercepts = np.atleast_2d(estimator.coef_), np.atleast_1d(estimator.intercept_)
    scores = np.empty((len(values), len(coefficients)))
    for number, coefficient in enumerate(coefficients):
        intercept = intercepts[number] if len(intercepts) > 1 else intercepts[0]
        scores[:, number] = (values * coefficient).sum(axis=1) + intercept
    if not hasattr(estimator, "predict_proba"):
        return scores[:, 0]
    if scores.shape[1] == 1:
        return np.column_stack([expit(-scores[:, 0]), expit(scores[:, 0])])
    return softmax(scores, axis=1)


def _training_metrics(estimator: SklearnEstimator, data: TrainingData) -> dict[str, float]:
    """How the model does on the rows that it learned: the distance to the test set's tells of overfitting."""
    from mlplatform.domain.batch.metrics import Predictions, evaluate

    names = {
        "binary_classification": ("roc_auc", "log_loss"),
        "multiclass_classification": ("accuracy", "log_loss"),
        "regression": ("rmse", "r2"),
    }[data.problem_type]
    predictions = Predictions(data.problem_type, data.target, estimator.predict(data.features))
    return evaluate(names, predictions)


def _importances(fitted: Any, data: TrainingData) -> dict[str, float]:
    """The estimator's own; else sizes of its coefficients; else what is lost when a column is shuffled."""
    import numpy as np
    from sklearn.inspection import permutation_importance

    estimator: Any = _parts(fitted)[-1]
    if hasattr(estimator, "feature_importances_"):
        values = estimator.feature_importances_
    elif hasattr(estimator, "coef_"):
        # Comparable, because the features were scaled.
        values = np.abs(np.atleast_2d(estimator.coef_)).mean(axis=0)
    else:
        rows = np.random.default_rng(SEED).permutation(len(data.features))[:_PERMUTED_ROWS]
        classifies = hasattr(estimator, "predict_proba")
        lost: Any = permutation_importance(
            fitted,
            _matrix(data.features)[rows],
            data.target[rows],
            scoring="neg_log_loss" if classifies else "r2",
            n_repeats=3,
            random_state=SEED,
        )
        values = lost.importances_mean
    # Rounding, and shuffling that happened to help, leave a little below 0.
    values = np.maximum(values, 0)
    total = values.sum()
    shares = values / total if total > 0 else values
    return {name: float(share) for name, share in zip(data.features.columns, shares, strict=True)}


def _plain(parameters: Mapping[str, Any], parallel: bool) -> dict[str, Any]:
    hidden = {"n_jobs"} if parallel else set()
    return {
        key: value if isinstance(value, bool | int | float | str | None) else str(value)
        for key, value in parameters.items()
        if key not in hidden
    }


@cache
def _parameters() -> dict[str, dict[str, list[Any]]]:
    """Hyper-parameters and the kinds of value that they take, by model; made from scikit-learn's own
    declarations by `mlplatform_tests/io/plugins/sklearn_parameters.py`.
    """
    return json.loads(Path(__file__).with_name("sklearn_parameters.json").read_text())


# A kind of value is "null", "boolean", "list", "mapping", {"options": […]}, or numbers between two bounds:
# {"integer", "number" or "fraction" (a number that is no integer): [least, most], "open": ["left", "right"]}.
_SIMPLE: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "null": ("null", lambda value: value is None),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "list": ("a list", lambda value: isinstance(value, list)),
    "mapping": ("a mapping", lambda value: isinstance(value, Mapping)),
}
_NUMBERS: dict[str, tuple[str, tuple[type, ...]]] = {
    "integer": ("an integer", (int,)),
    "number": ("a number", (int, float)),
    "fraction": ("a number with a decimal point", (float,)),
}


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, str):
        return _SIMPLE[kind][1](value)
    if "options" in kind:
        return isinstance(value, str) and value in kind["options"]
    (name,) = kind.keys() & _NUMBERS.keys()
    if isinstance(value, bool) or not isinstance(value, _NUMBERS[name][1]):
        return False
    (least, most), ends = kind[name], kind["open"]
    above = least is None or (value > least if "left" in ends else value >= least)
    below = most is None or (value < most if "right" in ends else value <= most)
    return above and below


def _words(kind: Any) -> str:
    if isinstance(kind, str):
        return _SIMPLE[kind][0]
    if "options" in kind:
        return "one of " + ", ".join(kind["options"])
    (name,) = kind.keys() & _NUMBERS.keys()
    (least, most), ends = kind[name], kind["open"]
    bounds = []
    if least is not None:
        bounds.append(f"{'above' if 'left' in ends else 'at least'} {least}")
    if most is not None:
        bounds.append(f"{'below' if 'right' in ends else 'at most'} {most}")
    return " ".join([_NUMBERS[name][0], " and ".join(bounds)]).strip()


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _nearest(name: str, names: Any) -> str:
    near = get_close_matches(name, list(names), 1)
    return f"; did you mean {near[0]}?" if near else ""
