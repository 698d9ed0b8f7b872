from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlplatform.domain.batch.pipeline import ProblemType
from mlplatform.io.plugins.frameworks import FrameworkError, InvalidConfig, TrainingData, TrainingEnvironment
from mlplatform.io.plugins.frameworks.sklearn import ALGORITHMS, FILE, TRUSTED, SklearnFramework
from mlplatform_tests.io.plugins import sklearn_parameters
from mlplatform_tests.io.plugins.frameworks_checks import CHECKS, Subject, target_of

FEW: dict[str, dict[str, Any]] = {
    "RandomForestClassifier": {"n_estimators": 10},
    "RandomForestRegressor": {"n_estimators": 10},
    "GradientBoostingClassifier": {"n_estimators": 20},
    "GradientBoostingRegressor": {"n_estimators": 20},
    "HistGradientBoostingClassifier": {"max_iter": 20},
    "HistGradientBoostingRegressor": {"max_iter": 20},
    "DecisionTreeClassifier": {"max_depth": 4},
    "AdaBoostClassifier": {"n_estimators": 20},
    "Lasso": {"alpha": 0.1},
}


def configs_of(name: str) -> dict[ProblemType, dict[str, Any]]:
    config = {"model": name, **FEW.get(name, {})}
    if ALGORITHMS[name].task == "regression":
        return {"regression": config}
    return {"binary_classification": config, "multiclass_classification": config}


@pytest.fixture(scope="module", params=ALGORITHMS)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(SklearnFramework(), configs_of(request.param), tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("check", CHECKS)
def test_it_does_what_every_framework_does(check: str, subject: Subject) -> None:
    CHECKS[check](subject)


def problems_of(config: dict[str, Any], problem_type: ProblemType = "binary_classification") -> list[Any]:
    with pytest.raises(InvalidConfig) as refused:
        SklearnFramework().validate(config, problem_type)
    return list(refused.value.problems)


def test_the_table_of_hyper_parameters_is_that_of_the_installed_release() -> None:
    table = sklearn_parameters.parameters_of_installed()
    assert sklearn_parameters.TABLE.read_text() == sklearn_parameters.as_text(table), (
        "run python -m mlplatform_tests.io.plugins.sklearn_parameters"
    )


def test_a_missing_model_is_told_with_those_for_the_problem() -> None:
    ((path, message),) = problems_of({})
    assert path == ()
    assert "LogisticRegression" in message
    assert "Ridge" not in message


def test_an_unknown_model_is_told_with_the_nearest() -> None:
    ((path, message),) = problems_of({"model": "RandomForrestClassifier"})
    assert path == ("model",)
    assert "did you mean RandomForestClassifier?" in message


@pytest.mark.parametrize(
    ("model", "problem_type"),
    [("Ridge", "binary_classification"), ("Ridge", "multiclass_classification"), ("SVC", "regression")],
)
def test_a_model_must_fit_the_problem(model: str, problem_type: ProblemType) -> None:
    ((path, message),) = problems_of({"model": model}, problem_type)
    assert path == ("model",)
    assert problem_type in message


@pytest.mark.parametrize(
    ("model", "key", "value", "message"),
    [
        ("RandomForestClassifier", "n_estimators", 0, "an integer at least 1"),
        ("RandomForestClassifier", "n_estimators", "many", "an integer at least 1"),
        ("RandomForestClassifier", "n_estimators", True, "an integer at least 1"),
        ("RandomForestClassifier", "max_depth", 2.5, "null"),
        ("RandomForestClassifier", "max_features", "sqr", "one of log2, sqrt"),
        ("RandomForestClassifier", "min_samples_leaf", 1.0, "above 0.0 and below 1.0"),
        ("LogisticRegression", "C", 0, "a number above 0"),
        ("LogisticRegression", "C", "1e-3", "write 1.0e-3"),
        ("LogisticRegression", "class_weight", [1, 2], "a mapping"),
        ("LogisticRegression", "fit_intercept", "yes", "true or false"),
        ("SVC", "kernel", "precomputed", "one of linear, poly"),
    ],
)
def test_a_value_out_of_range_is_told(model: str, key: str, value: object, message: str) -> None:
    ((path, told),) = problems_of({"model": model, key: value})
    assert path == (key,)
    assert message in told
    assert repr(value) in told


@pytest.mark.parametrize(
    "config",
    [
        {"model": "RandomForestClassifier", "max_depth": None, "max_features": 0.5, "random_state": 0},
        {"model": "RandomForestClassifier", "min_samples_leaf": 3, "class_weight": "balanced_subsample"},
        {"model": "LogisticRegression", "C": 1, "class_weight": {0: 1, 1: 5}, "solver": "saga"},
        {"model": "SVC", "gamma": "scale", "C": 2.5},
    ],
)
def test_valid_values_are_taken(config: dict[str, Any]) -> None:
    assert SklearnFramework().validate(config, "binary_classification") == []


def test_validating_imports_nothing_heavy() -> None:
    code = """
import sys
from mlplatform.io.plugins.frameworks.sklearn import SklearnFramework
SklearnFramework().validate({"model": "SVC", "C": 2}, "binary_classification")
print(sorted({"sklearn", "numpy", "pandas", "scipy", "skops", "dagster"} & set(sys.modules)))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.fixture
def environment(tmp_path: Path) -> TrainingEnvironment:
    return TrainingEnvironment(lambda _: None, tmp_path)


@pytest.fixture
def data(subject_of_one: Subject) -> TrainingData:
    return subject_of_one.trained("binary_classification").data


@pytest.fixture(scope="module")
def subject_of_one(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    configs: dict[ProblemType, dict[str, Any]] = {"binary_classification": {"model": "LogisticRegression"}}
    return Subject(SklearnFramework(), configs, tmp_path_factory.mktemp("one"))


def test_the_numbers_are_scikit_learns_own(data: TrainingData, subject_of_one: Subject) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(random_state=42))
    wanted = pipeline.fit(data.features.to_numpy(), data.target).predict_proba(data.features.to_numpy())
    assert np.allclose(subject_of_one.trained("binary_classification").scores, wanted, rtol=0, atol=1e-12)


def test_the_numbers_of_three_classes_too(tmp_path: Path) -> None:
    subject = Subject(
        SklearnFramework(), {"multiclass_classification": {"model": "LogisticRegression"}}, tmp_path
    )
    trained = subject.trained("multiclass_classification")
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(random_state=42))
    values = trained.features.to_numpy()
    wanted = pipeline.fit(values, trained.data.target).predict_proba(values)
    assert np.allclose(trained.scores, wanted, rtol=0, atol=1e-12)


def test_the_number_of_processors_changes_nothing(data: TrainingData, tmp_path: Path) -> None:
    scores = []
    for cpus in (1, 2):
        config = {"model": "RandomForestClassifier", "n_estimators": 20}
        environment = TrainingEnvironment(lambda _: None, tmp_path, cpus=cpus)
        scores.append(
            SklearnFramework().fit(data, config, environment).estimator.predict(data.features).tobytes()
        )
    assert scores[0] == scores[1]


def test_another_seed_is_another_model(data: TrainingData, environment: TrainingEnvironment) -> None:
    scores = [
        SklearnFramework()
        .fit(data, {"model": "RandomForestClassifier", "n_estimators": 5, **seed}, environment)
        .estimator.predict(data.features)
        for seed in ({}, {"random_state": 42}, {"random_state": 1})
    ]
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_weights_are_given_by_the_classes_names(data: TrainingData, environment: TrainingEnvironment) -> None:
    framework = SklearnFramework()
    means = []
    for weight in (1, 20):
        config = {"model": "LogisticRegression", "class_weight": {"stays": 1, "leaves": weight}}
        fitted = framework.fit(data, config, environment)
        means.append(fitted.estimator.predict(data.features)[:, 1].mean())
    assert means[1] > means[0] + 0.05
    with pytest.raises(
        FrameworkError, match="class_weight names 'left', and the classes are 'stays', 'leaves'"
    ):
        framework.fit(data, {"model": "LogisticRegression", "class_weight": {"left": 2}}, environment)


def test_warnings_of_training_are_logged(data: TrainingData, tmp_path: Path) -> None:
    lines: list[str] = []
    config = {"model": "LogisticRegression", "max_iter": 1}
    SklearnFramework().fit(data, config, TrainingEnvironment(lines.append, tmp_path))
    assert any("failed to converge" in line for line in lines)


def test_hyper_parameters_that_exclude_each_other_are_a_clear_error(
    data: TrainingData, environment: TrainingEnvironment
) -> None:
    config = {"model": "LogisticRegression", "solver": "lbfgs", "l1_ratio": 1.0}
    with pytest.raises(FrameworkError, match=r"LogisticRegression could not be trained: .*lbfgs"):
        SklearnFramework().fit(data, config, environment)


def test_a_rare_class_cannot_be_calibrated(data: TrainingData, environment: TrainingEnvironment) -> None:
    rare = dataclasses.replace(data, target=(np.arange(len(data.target)) < 1).astype(np.int64))
    with pytest.raises(FrameworkError, match="SVC could not be trained"):
        SklearnFramework().fit(rare, {"model": "SVC"}, environment)


def test_only_listed_types_are_loaded(tmp_path: Path, data: TrainingData) -> None:
    """Each of the list is needed by some model, and what is not on it is refused."""
    assert len(set(TRUSTED)) == len(TRUSTED)
    skops.io.dump(subprocess.run, tmp_path / FILE)
    with pytest.raises(FrameworkError, match=r"cannot be read .* train again"):
        SklearnFramework().load(tmp_path)


def test_each_trusted_type_is_needed(subject: Subject) -> None:
    needed = set()
    for problem_type in subject.problem_types:
        _, directory = subject.reloaded(problem_type)
        needed |= set(skops.io.get_untrusted_types(file=directory / FILE))
    assert needed <= set(TRUSTED)


def test_the_model_of_a_constant_target_has_no_importances(environment: TrainingEnvironment) -> None:
    from mlplatform_tests.io.plugins.frameworks_checks import table

    features = table()[["signal", "count"]].astype(float)
    target = target_of(table(), "regression")
    config = {"model": "Lasso", "alpha": 1e6}
    fitted = SklearnFramework().fit(TrainingData(features, target, "regression"), config, environment)
    assert fitted.importances == {"signal": 0.0, "count": 0.0}
    json.dumps(dict(fitted.parameters))
