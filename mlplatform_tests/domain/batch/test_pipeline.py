from __future__ import annotations

from copy import deepcopy
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from mlplatform.domain.batch.metric_names import METRICS
from mlplatform.domain.batch.pipeline import DataCheck, Pipeline, ProblemType
from mlplatform.domain.batch.profile import Profile
from mlplatform.domain.batch.rules import (
    CHECK_MAY,
    CHECK_NEEDS,
    EXECUTOR_KEYS,
    broken_profile_rules,
    broken_rules,
)

MINIMAL: dict[str, Any] = {
    "project": {"name": "training_churn_v1", "problem_type": "binary_classification"},
    "training": {
        "data_source": {"label_table": "customers"},
        "schema": {
            "target": {"label_column": "churned"},
            "identifiers": {"primary_key": "customer_id"},
        },
    },
}
SERVING = {
    "model_source": {"run_id": "champion"},
    "data_source": {"scoring_table": "to_score"},
    "output": {"destination": "database", "table": "scores"},
}
RELATIVE = {"logic": "relative", "windows": {"test_lookback_units": 1, "train_lookback_units": 3}}
DATES = {
    "train_start_date": "2025-01-01",
    "train_end_date": "2025-06-30",
    "test_start_date": "2025-07-01",
    "test_end_date": "2025-07-31",
}


def changed(**changes: Any) -> dict[str, Any]:
    """The minimal pipeline with values at dotted paths, a dot being written __."""
    result = deepcopy(MINIMAL)
    for path, value in changes.items():
        *above, last = path.split("__")
        block = result
        for part in above:
            block = block.setdefault(part, {})
        block[last] = value
    return result


def broken(**changes: Any) -> list[tuple[str, str]]:
    found = broken_rules(Pipeline.model_validate(changed(**changes)))
    return [(".".join(map(str, finding.path)), finding.message) for finding in found]


def test_what_is_not_said() -> None:
    pipeline = Pipeline.model_validate(MINIMAL)
    assert pipeline.kind == "training"
    assert pipeline.model_name == "churn"
    assert pipeline.training.model_training.framework == "sklearn"
    assert pipeline.training.evaluation.primary_metric == "roc_auc"
    assert pipeline.deployment.mode == "batch"
    assert pipeline.deployment.cadence is None
    assert list(broken_rules(pipeline)) == []


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("training_churn_model_v1", "churn_model"),
        ("serving_churn_model_v12", "churn_model"),
        ("churn", "churn"),
        ("retraining_v2_x", "retraining_v2_x"),
    ],
)
def test_training_and_serving_share_a_models_name(name, model) -> None:
    assert Pipeline.model_validate(changed(project__name=name)).model_name == model
    assert Pipeline.model_validate(changed(project__name=name, project__model_name="m")).model_name == "m"


def test_a_regression_is_judged_by_its_root_mean_squared_error() -> None:
    regression = changed(project__problem_type="regression")
    assert Pipeline.model_validate(regression).training.evaluation.primary_metric == "rmse"
    regression["training"]["evaluation"] = {"generate_plots": False}
    assert Pipeline.model_validate(regression).training.evaluation.primary_metric == "rmse"
    regression["training"]["evaluation"] = {"primary_metric": "mae"}
    assert Pipeline.model_validate(regression).training.evaluation.primary_metric == "mae"
    assert "evaluation" not in MINIMAL["training"]


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 2},
        {"project__name": "1st"},
        {"project__name": "a-b"},
        {"project__problem_type": "clustering"},
        {"project__owner": ""},
        {"deployment__cadence": "yearly"},
        {"training__data_source__label_table": ""},
        {"training__data_source__feature_tables": [{"table": "a", "join_key": []}]},
        {"training__data_source__data_windows": {"logic": "relative", "windows": {}}},
        {"training__data_source__data_windows": {"logic": "absolute", "windows": {"train_gap_units": 1}}},
        {"training__schema__target__classes": [True, False]},
        {"training__schema__target__classes": ["a"]},
        {"training__preprocessing": {"remove_high_missing": {"threshold": 1.5}}},
        {"training__preprocessing": {"custom": [{"transform": "no_class"}]}},
        {"training__data_checks": [{"name": "null_threshold", "threshold": 2}]},
        {"training__data_checks": [{"name": "value_range", "min": float("nan")}]},
        {"training__model_training__resources": {"memory": "4 GB"}},
        {"training__model_training__resources": {"cpu": True}},
        {"serving": {"model_source": {}, "data_source": {"scoring_table": "a"}}},
        {"training__evaluaton": {}},
    ],
)
def test_what_cannot_be_said(changes) -> None:
    with pytest.raises(ValidationError):
        Pipeline.model_validate(changed(**changes))


@pytest.mark.parametrize(("said", "read"), [(2, "2"), (0.5, "0.5"), ("500m", "500m"), ("4Gi", "4Gi")])
def test_quantities(said, read) -> None:
    pipeline = Pipeline.model_validate(changed(training__model_training__resources={"cpu": said}))
    assert pipeline.training.model_training.resources is not None
    assert pipeline.training.model_training.resources.cpu == read


TARGET = "training__schema__target"
KEYS = "training__schema__identifiers"
TABLES = "training__data_source__feature_tables"
WINDOWS = "training__data_source__data_windows"
CHECKS = "training__data_checks"


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({f"{TARGET}__classes": [0, 1, 2]}, "schema.target.classes", "has 2 classes, not 3"),
        ({f"{TARGET}__classes": ["a", "a"]}, "schema.target.classes", "names a class twice"),
        (
            {f"{TARGET}__classes": [0, 1], f"{TARGET}__positive_class": 2},
            "schema.target.positive_class",
            "2 is not one of the classes 0, 1",
        ),
        (
            {"project__problem_type": "regression", f"{TARGET}__classes": [0, 1]},
            "schema.target.classes",
            "a regression has no classes",
        ),
        (
            {"project__problem_type": "regression", f"{TARGET}__positive_class": 1},
            "schema.target.positive_class",
            "a regression has no classes",
        ),
        (
            {
                "project__problem_type": "multiclass_classification",
                f"{TARGET}__positive_class": 1,
                "training__evaluation__primary_metric": "f1_macro",
            },
            "schema.target.positive_class",
            "is for binary_classification only",
        ),
        ({f"{KEYS}__primary_key": "churned"}, "schema.identifiers.primary_key", "is the label column"),
        ({f"{KEYS}__partition_key": "churned"}, "schema.identifiers.partition_key", "is the label column"),
        ({f"{KEYS}__partition_key": "customer_id"}, "schema.identifiers.partition_key", "is the primary key"),
        (
            {"training__schema__ignored_columns": ["a", "churned"]},
            "schema.ignored_columns.1",
            "is the label column",
        ),
        ({TABLES: [{"table": "a"}, {"table": "a"}]}, "data_source.feature_tables.1.table", "joined twice"),
        (
            {TABLES: [{"table": "a", "join_key": ["k", "k"]}]},
            "data_source.feature_tables.0.join_key",
            "names a column twice",
        ),
        ({WINDOWS: RELATIVE}, "data_source.data_windows", "windows need a partition key"),
        ({"training__evaluation__primary_metric": "rmse"}, "evaluation.primary_metric", "is no metric of"),
        (
            {"training__evaluation__additional_metrics": ["f1", "acuracy"]},
            "evaluation.additional_metrics.1",
            "'acuracy' is no metric of binary_classification",
        ),
        ({"training__feature_selection": {"enabled": True}}, "feature_selection.methods", "is empty"),
        ({CHECKS: [{"name": "null_threshold"}]}, "data_checks.0.columns", "null_threshold needs it"),
        ({CHECKS: [{"name": "value_range", "min": 0}]}, "data_checks.0.columns", "value_range needs it"),
        (
            {CHECKS: [{"name": "value_range", "columns": ["a"]}]},
            "data_checks.0",
            "value_range needs min, max or both",
        ),
        (
            {CHECKS: [{"name": "value_range", "columns": ["a"], "min": 2, "max": 1}]},
            "data_checks.0.min",
            "2 is more than max 1",
        ),
        (
            {CHECKS: [{"name": "unique_key", "columns": ["a"], "min": 1}]},
            "data_checks.0.min",
            "unique_key does not use it",
        ),
        (
            {CHECKS: [{"name": "expected_columns", "columns": ["a"], "threshold": 0.5}]},
            "data_checks.0.threshold",
            "expected_columns does not use it",
        ),
        (
            {"training__feature_selection": {"methods": [{"name": "correlation", "k": 5}]}},
            "feature_selection.methods.0.k",
            "correlation does not use it",
        ),
        ({CHECKS: [{"name": "type_check", "columns": ["a"]}]}, "data_checks.0.type", "type_check needs it"),
        ({CHECKS: [{"name": "custom"}]}, "data_checks.0.function", "custom needs it"),
        (
            {CHECKS: [{"name": "expected_columns", "columns": ["a"], "on_failure": "skip_row"}]},
            "data_checks.0.on_failure",
            "no row lacks a column that others have",
        ),
    ],
)
def test_rules_of_training(changes, path, message) -> None:
    ((found, said),) = broken(**changes)
    assert found == f"training.{path}"
    assert message in said


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"serving__model_source__run_id": "<run_id_from_mlflow>"}, "model_source.run_id", "a placeholder"),
        ({"serving__model_source__fallback_run_id": "<x>"}, "model_source.fallback_run_id", "a placeholder"),
        (
            {"serving__model_source__fallback_run_id": "champion"},
            "model_source.fallback_run_id",
            "the same as",
        ),
        ({"serving__output__table": None}, "output.table", "destination: database needs it"),
        ({"serving__data_checks": [{"name": "custom"}]}, "data_checks.0.function", "custom needs it"),
        (
            {"serving__data_source__feature_tables": [{"table": "a"}, {"table": "a"}]},
            "data_source.feature_tables.1.table",
            "joined twice",
        ),
    ],
)
def test_rules_of_serving(changes, path, message) -> None:
    ((found, said),) = broken(serving=deepcopy(SERVING), **changes)
    assert found == f"serving.{path}"
    assert message in said


@pytest.mark.parametrize(
    ("data_windows", "found"),
    [
        (RELATIVE, []),
        ({"logic": "absolute", "windows": DATES}, []),
        (
            {"logic": "relative", "windows": {**RELATIVE["windows"], "test_end_date": "2025-01-01"}},
            [("windows.test_end_date", "is for logic: absolute")],
        ),
        (
            {"logic": "absolute", "windows": {**DATES, "train_gap_units": 1}},
            [("windows.train_gap_units", "is for logic: relative")],
        ),
        (
            {"logic": "absolute", "windows": {**DATES, "test_start_date": "2025-06-30"}},
            [("windows.test_start_date", "2025-06-30 is not after train_end_date 2025-06-30")],
        ),
        (
            {"logic": "absolute", "windows": {**DATES, "train_end_date": "2024-06-30"}},
            [("windows.train_end_date", "2024-06-30 is not after train_start_date 2025-01-01")],
        ),
        ({"logic": "absolute", "windows": {**DATES, "test_end_date": DATES["test_start_date"]}}, []),
    ],
)
def test_rules_of_windows(data_windows, found) -> None:
    at = "training.data_source.data_windows."
    expected = [(at + path, message) for path, message in found]
    assert broken(**{KEYS + "__partition_key": "day", WINDOWS: data_windows}) == expected


def test_a_class_of_another_type_is_recognized() -> None:
    pipeline = Pipeline.model_validate(
        changed(**{f"{TARGET}__classes": [0, 1], f"{TARGET}__positive_class": "1"})
    )
    (finding,) = broken_rules(pipeline)
    assert finding.suggestion == "write 1 without quotes"


def test_each_problem_type_has_metrics_and_each_check_its_needs() -> None:
    assert set(METRICS) == set(get_args(ProblemType))
    assert set(CHECK_MAY) == set(CHECK_NEEDS) == set(get_args(DataCheck.model_fields["name"].annotation))
    for problem_type, names in METRICS.items():
        assert len(set(names)) == len(names)
        project = {"project__problem_type": problem_type, "training__evaluation__primary_metric": names[0]}
        assert broken(**project, training__evaluation__additional_metrics=list(names)) == []


def test_rules_of_a_profile() -> None:
    local = {"storage": {"type": "local"}, "data_connector": {"type": "local_file"}}
    executor = {
        "type": "kubernetes",
        "config": {"namespce": "a", **dict.fromkeys(EXECUTOR_KEYS["kubernetes"])},
    }
    profile = Profile.model_validate(
        {"target": "prd", "outputs": {"dev": local, "prod": {**local, "executor": executor}}}
    )
    assert [(finding.path, finding.suggestion) for finding in broken_profile_rules(profile)] == [
        (("target",), "did you mean prod?"),
        (("outputs", "prod", "executor", "config", "namespce"), "did you mean namespace?"),
    ]
