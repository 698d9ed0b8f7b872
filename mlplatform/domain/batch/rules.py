"""What a pipeline's or a profile's form cannot say: rules between its blocks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from mlplatform.domain.batch.metric_names import METRICS
from mlplatform.domain.batch.pipeline import (
    CHAMPION,
    DataCheck,
    DataWindows,
    FeatureTable,
    Pipeline,
    ProblemType,
    Serving,
    Target,
    Windows,
)
from mlplatform.domain.batch.problems import PathOf, did_you_mean
from mlplatform.domain.batch.profile import Profile

# What each data check needs, and may say besides name, columns and on_failure.
CHECK_NEEDS: dict[str, tuple[str, ...]] = {
    "null_threshold": ("columns",),
    "value_range": ("columns",),
    "expected_columns": ("columns",),
    "unique_key": ("columns",),
    "type_check": ("columns", "type"),
    "custom": ("function",),
}
CHECK_MAY: dict[str, tuple[str, ...]] = {
    "null_threshold": ("threshold",),
    "value_range": ("min", "max", "threshold"),
    "expected_columns": (),
    "unique_key": ("threshold",),
    "type_check": ("threshold",),
    "custom": ("threshold",),
}
CHECK_FIELDS = {"threshold", "min", "max", "type", "function"}
# The selection methods that can keep the best so many.
RANKING = ("mutual_info", "lgbm_importance")
KUBERNETES = {
    "namespace",
    "service_account",
    "image",
    "environment",
    "env_from_secrets",
    "env_from_configmaps",
}
EXECUTOR_KEYS: dict[str, set[str]] = {
    "local": {"environment"},
    "docker": {"image", "environment"},
    "kubernetes": KUBERNETES,
}


class Finding(NamedTuple):
    """A rule that is broken at a path of the file."""

    path: PathOf
    message: str
    suggestion: str = ""


def broken_rules(pipeline: Pipeline) -> Iterator[Finding]:
    """All rules that a pipeline breaks."""
    training = pipeline.training
    yield from _target(training.schema_.target, pipeline.project.problem_type)
    yield from _columns(pipeline)
    yield from _feature_tables(training.data_source.feature_tables, ("training", "data_source"))
    if training.data_source.data_windows:
        yield from _windows(training.data_source.data_windows, pipeline)
    yield from _metrics(pipeline)
    selection = training.feature_selection
    if selection and selection.enabled and not selection.methods:
        yield Finding(("training", "feature_selection", "methods"), "is empty", "name one, or disable it")
    for index, method in enumerate(selection.methods if selection else []):
        if method.k is not None and method.name not in RANKING:
            path = ("training", "feature_selection", "methods", index, "k")
            remedy = f"remove it, or use {' or '.join(RANKING)}"
            yield Finding(path, f"{method.name} does not use it", remedy)
    yield from _checks(training.data_checks, ("training",))
    if pipeline.serving:
        yield from _serving(pipeline.serving)


def broken_profile_rules(profile: Profile) -> Iterator[Finding]:
    """All rules that a profile breaks, but for names of plugins."""
    if profile.target not in profile.outputs:
        names = ", ".join(profile.outputs)
        near = did_you_mean(profile.target, profile.outputs)
        yield Finding(("target",), f"{profile.target!r} is not one of the outputs {names}", near)
    for name, target in profile.outputs.items():
        allowed = EXECUTOR_KEYS[target.executor.type]
        for key in target.executor.config.keys() - allowed:
            near = did_you_mean(key, allowed) or f"there are {', '.join(sorted(allowed))}"
            path = ("outputs", name, "executor", "config", key)
            yield Finding(path, f"an executor of type {target.executor.type} has no such key", near)


def _target(target: Target, problem_type: ProblemType) -> Iterator[Finding]:
    at = ("training", "schema", "target")
    classes, positive = target.classes, target.positive_class
    if problem_type == "regression":
        for key, value in (("classes", classes), ("positive_class", positive)):
            if value is not None:
                yield Finding((*at, key), "a regression has no classes", "remove it")
        return
    if classes is not None and len(set(classes)) < len(classes):
        yield Finding((*at, "classes"), "names a class twice")
    elif classes is not None and problem_type == "binary_classification" and len(classes) != 2:
        remedy = "set problem_type: multiclass_classification"
        yield Finding((*at, "classes"), f"binary_classification has 2 classes, not {len(classes)}", remedy)
    if positive is None:
        return
    if problem_type == "multiclass_classification":
        yield Finding((*at, "positive_class"), "is for binary_classification only", "remove it")
    elif classes is not None and positive not in classes:
        same = [each for each in classes if str(each) == str(positive)]
        near = did_you_mean(positive, classes)
        if same:
            near = f"write {same[0]} without quotes" if isinstance(same[0], int) else f'write "{same[0]}"'
        shown = ", ".join(map(repr, classes))
        yield Finding((*at, "positive_class"), f"{positive!r} is not one of the classes {shown}", near)


def _columns(pipeline: Pipeline) -> Iterator[Finding]:
    at = ("training", "schema")
    schema = pipeline.training.schema_
    label, keys = schema.target.label_column, schema.identifiers
    for name, column in (("primary_key", keys.primary_key), ("partition_key", keys.partition_key)):
        if column == label:
            yield Finding((*at, "identifiers", name), f"{column} is the label column")
    if keys.partition_key == keys.primary_key:
        yield Finding((*at, "identifiers", "partition_key"), f"{keys.partition_key} is the primary key")
    for index, column in enumerate(schema.ignored_columns):
        if column == label:
            yield Finding((*at, "ignored_columns", index), f"{column} is the label column", "remove it")


def _feature_tables(tables: list[FeatureTable], at: PathOf) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, table in enumerate(tables):
        path = (*at, "feature_tables", index)
        if table.table in seen:
            yield Finding((*path, "table"), f"{table.table} is joined twice")
        seen.add(table.table)
        if len(set(table.join_key)) < len(table.join_key):
            yield Finding((*path, "join_key"), "names a column twice")


def _windows(data_windows: DataWindows, pipeline: Pipeline) -> Iterator[Finding]:
    at = ("training", "data_source", "data_windows")
    if pipeline.training.schema_.identifiers.partition_key is None:
        remedy = "set training.schema.identifiers.partition_key to the column of dates"
        yield Finding(at, "windows need a partition key", remedy)
    windows = data_windows.windows
    dates = {name for name in Windows.model_fields if name.endswith("_date")}
    foreign = dates if data_windows.logic == "relative" else Windows.model_fields.keys() - dates
    other = "absolute" if data_windows.logic == "relative" else "relative"
    for name in sorted(foreign & windows.model_fields_set):
        yield Finding((*at, "windows", name), f"is for logic: {other}", f"remove it, or set logic: {other}")
    if data_windows.logic == "relative":
        return
    order = ("train_start_date", "train_end_date", "test_start_date", "test_end_date")
    for earlier, later in pairwise(order):
        first, second = getattr(windows, earlier), getattr(windows, later)
        # Ends are included: a day in both sets would leak.
        if second < first or (second == first and later == "test_start_date"):
            yield Finding((*at, "windows", later), f"{second} is not after {earlier} {first}")


def _metrics(pipeline: Pipeline) -> Iterator[Finding]:
    at = ("training", "evaluation")
    evaluation, problem_type = pipeline.training.evaluation, pipeline.project.problem_type
    valid = METRICS[problem_type]
    named = [((*at, "primary_metric"), evaluation.primary_metric)]
    named += [((*at, "additional_metrics", i), name) for i, name in enumerate(evaluation.additional_metrics)]
    for path, name in named:
        if name not in valid:
            near = did_you_mean(name, valid) or f"there are {', '.join(valid)}"
            yield Finding(path, f"{name!r} is no metric of {problem_type}", near)


def _checks(checks: list[DataCheck], at: PathOf) -> Iterator[Finding]:
    for index, check in enumerate(checks):
        path = (*at, "data_checks", index)
        needs = CHECK_NEEDS[check.name]
        for name in needs:
            if not getattr(check, name):
                yield Finding((*path, name), f"is missing: {check.name} needs it", f"add {name}: …")
        foreign = CHECK_FIELDS - set(needs) - set(CHECK_MAY[check.name])
        for name in sorted(foreign & check.model_fields_set):
            yield Finding((*path, name), f"{check.name} does not use it", "remove it")
        if check.name == "value_range":
            if check.min is None and check.max is None:
                yield Finding(path, "value_range needs min, max or both", "add min: … or max: …")
            elif check.min is not None and check.max is not None and check.min > check.max:
                yield Finding((*path, "min"), f"{check.min:g} is more than max {check.max:g}")
        if check.name == "expected_columns" and check.on_failure == "skip_row":
            remedy = "use fail or warn"
            yield Finding((*path, "on_failure"), "no row lacks a column that others have", remedy)


def _serving(serving: Serving) -> Iterator[Finding]:
    source, output = serving.model_source, serving.output
    for name, run_id in (("run_id", source.run_id), ("fallback_run_id", source.fallback_run_id)):
        if run_id is not None and run_id.startswith("<"):
            remedy = f"put the run id that MLflow shows, or {CHAMPION}"
            yield Finding(("serving", "model_source", name), f"{run_id} is still a placeholder", remedy)
    if source.fallback_run_id == source.run_id:
        remedy = "name another run, or remove it"
        yield Finding(("serving", "model_source", "fallback_run_id"), "is the same as run_id", remedy)
    if output.destination == "database" and output.table is None:
        remedy = "add table: …, or set destination: local_file"
        yield Finding(("serving", "output", "table"), "is missing: destination: database needs it", remedy)
    yield from _feature_tables(serving.data_source.feature_tables, ("serving", "data_source"))
    yield from _checks(serving.data_checks, ("serving",))
