"""The steps of a training pipeline."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlplatform.domain.batch.metrics as metric
from mlplatform.domain.batch.feature_selection import select
from mlplatform.domain.batch.features import FeatureError
from mlplatform.domain.batch.labels import LabelError, classes_of, numbers
from mlplatform.domain.batch.pipeline import Resources
from mlplatform.domain.batch.promotion import Promotion, contest
from mlplatform.domain.batch.quantities import quantity
from mlplatform.domain.batch.splitting import held_back_rows
from mlplatform.domain.batch.stability import reference_histograms
from mlplatform.domain.batch.transforms import Preparation, TransformError
from mlplatform.domain.batch.windows import windowed_rows
from mlplatform.io.artifacts import Document, Frame, Given, PackedModel, Rows
from mlplatform.io.model_bundle import (
    BundleRefused,
    Model,
    SignatureRefused,
    feature_columns,
    fit_model,
    load_model,
    own_transforms,
    told_columns,
)
from mlplatform.io.plugins.frameworks import TrainingEnvironment
from mlplatform.io.plugins.model_registries import Plot, Registered, TrackedRun
from mlplatform.steps.context import StepContext, StepFailed
from mlplatform.steps.models import fetched, opened
from mlplatform.steps.plots import evaluation_plots
from mlplatform.steps.tables import (
    FeatureJoins,
    check_labels,
    check_rows,
    keys_of,
    project_code,
    read_table,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

EXAMPLE_ROWS = 5


def load_data(context: StepContext) -> dict[str, Given]:
    """Labels with their features, checked."""
    training = context.pipeline.training
    table = read_table(context, training.data_source.label_table)
    joins = FeatureJoins(context, training.data_source.feature_tables)
    table, refused = check_rows(context, training.data_checks, joins.join(table))
    check_labels(context, table, repeated=joins.fanned_out)
    # A database gives its rows in any order, and the same rows shall give the same model.
    table = table.sort_by([(name, "ascending") for name in keys_of(training) if name in table.column_names])
    outputs: dict[str, Given] = {"raw_data": Rows.of(table)}
    if "refused_rows" in context.manifest.steps["load_data"].outputs:
        outputs["refused_rows"] = Rows.of(refused)
    return outputs


def split_data(context: StepContext, raw_data: Frame) -> dict[str, Given]:
    """By the pipeline's windows, else a fifth of the rows for testing."""
    training, table = context.pipeline.training, raw_data.to_table()
    windows, schema = training.data_source.data_windows, training.schema_
    if windows:
        rows = windowed_rows(table, str(schema.identifiers.partition_key), windows)
        context.log(f"training on {rows.train_window}, testing on {rows.test_window}")
        train, test = rows.train, rows.test
    else:
        regression = context.pipeline.project.problem_type == "regression"
        target = None if regression else schema.target.label_column
        test = _held_back(table, schema.identifiers.primary_key, target)
        train = ~test
    return {"train_set": Rows.of(table.filter(train)), "test_set": Rows.of(table.filter(test))}


def _held_back(table: pa.Table, key: str, target: str | None) -> np.ndarray:
    """(n,) booleans of the test set, in which a key is with all of its rows or with none."""
    import numpy as np

    keys = table.column(key).to_pandas()
    first = np.flatnonzero(~keys.duplicated().to_numpy())
    chosen = held_back_rows(table.take(first), key, target)
    return keys.isin(keys.iloc[first[chosen]]).to_numpy()


def feature_selection(context: StepContext, train_set: Frame) -> dict[str, Given]:
    """The features that the methods of the pipeline leave, of those after preprocessing."""
    training = context.pipeline.training
    frame: pd.DataFrame = train_set.to_pandas()
    problem, label = context.pipeline.project.problem_type, training.schema_.target.label_column
    labels: Any = frame[label]
    target = numbers(labels, classes_of(labels, training.schema_.target, problem))
    candidates: Any = frame[feature_columns(list(frame.columns), training)]
    transforms = own_transforms(training, project_code(context))
    preparation = Preparation.fit(candidates, target, training.preprocessing, transforms)
    features = preparation.features(candidates)
    methods = training.feature_selection.methods if training.feature_selection else []
    selection = select(features, preparation.outputs, target[features.index.to_numpy()], problem, methods)
    for line in told_columns("goes:", selection.reasons):
        context.log(line)
    context.report.tell("selected_features", selected=len(selection.columns), dropped=len(selection.reasons))
    return {"selected_features": selection.as_dict()}


def train_model(
    context: StepContext, train_set: Frame, selected_features: Document | None = None
) -> dict[str, Given]:
    """The framework's best model with its fitted transforms, as a signed bundle."""
    pipeline, table = context.pipeline, train_set.to_table()
    frame = table.to_pandas()
    with tempfile.TemporaryDirectory() as workdir:
        environment = TrainingEnvironment(
            log=context.log,
            workdir=Path(workdir),
            h2o_url=context.plugins.h2o_url,
            **_limits(pipeline.training.model_training.resources),
        )
        model = fit_model(
            frame,
            pipeline.training,
            pipeline.project.problem_type,
            environment,
            project_code(context),
            selected_features["columns"] if selected_features else None,
            reference=reference_histograms(table, feature_columns(table.column_names, pipeline.training)),
            provenance={
                "pipeline": pipeline.name,
                "run": context.run_id,
                "data_digest": digest_of(table),
                "platform_version": context.manifest.metadata.mlplatform_version,
            },
        )
    # Outlives this function: the artefact is made of it when it is saved.
    bundle = context.folder()
    model.save(bundle, context.signer)
    context.report.check(
        "reproducible",
        model.reproducible,
        "The same data gives the same model again."
        if model.reproducible
        else "A time limit ended the training, or may have: on another machine another model may win.",
    )
    importances = {name: round(value, 4) for name, value in list(model.importances.items())[:20]}
    context.report.tell("model", rows=model.rows, features=len(model.inputs), importances=importances)
    context.report.tell("train_metrics", **model.metrics)
    return {"model": bundle, "train_metrics": dict(model.metrics)}


def evaluate(context: StepContext, model: PackedModel, test_set: Frame) -> dict[str, Given]:
    """Metrics on the test set, the champion's on the same rows, and what follows of the two."""
    evaluation, frame = context.pipeline.training.evaluation, test_set.to_pandas()
    names = list(dict.fromkeys([evaluation.primary_metric, *evaluation.additional_metrics]))
    with opened(context, model) as challenger:
        predictions, rows = predictions_of(challenger, frame)
        measured = metric.intervals(names, predictions)
        digest = challenger.digest
        champion, outcome = _contest(context, challenger, frame.loc[rows], predictions)
        drawn = (
            evaluation_plots(predictions, challenger.classes, challenger.importances)
            if evaluation.generate_plots
            else []
        )
    context.log(outcome.reason)
    key = context.pipeline.training.schema_.identifiers.partition_key
    by_time = (
        metric.by_partition(names, predictions, frame.loc[rows, key].astype(str).to_numpy())
        if evaluation.temporal_analysis and key
        else []
    )
    context.report.tell(
        "eval_metrics", rows=len(rows), **{name: each.value for name, each in measured.items()}
    )
    context.report.plots["eval_plots"] = drawn
    document = {
        "rows": len(rows),
        "metrics": {name: each.value for name, each in measured.items()},
        "intervals": {name: [each.lower, each.upper] for name, each in measured.items()},
        "by_partition": by_time,
        "champion": {"run_id": champion.run_id, "version": champion.version} if champion else None,
        "promotion": outcome.as_dict(),
        "model_digest": digest,
    }
    return {"eval_metrics": document, "eval_plots": {plot.name: plot.svg for plot in drawn}}


def log_run(
    context: StepContext,
    model: PackedModel,
    train_set: Frame,
    train_metrics: Document,
    eval_metrics: Document,
    eval_plots: Document,
) -> dict[str, Given]:
    """Tracks the run, registers the model, and makes it the champion if it may be."""
    pipeline, registry = context.pipeline, context.registry
    with model.unpacked() as bundle:
        loaded = load_model(bundle, context.signer, scoring=False)
        if eval_metrics["model_digest"] != loaded.digest:
            raise StepFailed("the metrics are of another model than this one: run the step evaluate again")
        sample = train_set.to_table().slice(0, EXAMPLE_ROWS).to_pandas()
        example = sample[[feature.name for feature in loaded.inputs]]
        registered = registry.log(
            TrackedRun(
                # A run that is executed again from its training on has another model to tell of.
                key=f"{context.run_id}/{pipeline.name}/{loaded.digest}",
                experiment=context.manifest.experiment_name,
                model_name=pipeline.model_name,
                parameters=_parameters(context, loaded),
                metrics={
                    **eval_metrics["metrics"],
                    **{f"train_{name}": value for name, value in train_metrics.items()},
                    **{f"{name}_lower": bounds[0] for name, bounds in eval_metrics["intervals"].items()},
                    **{f"{name}_upper": bounds[1] for name, bounds in eval_metrics["intervals"].items()},
                },
                tags=_tags(context),
                plots=[Plot(name, svg) for name, svg in eval_plots.items()],
                tables=loaded.tables,
                model=bundle,
                example=example,
                prediction=loaded.predictions(example.iloc[:0]),
                dataset=pipeline.training.data_source.label_table,
                dataset_digest=loaded.provenance["data_digest"],
                requirements=loaded.requirements,
            )
        )
    promoted = _promote(context, registered.version, eval_metrics)
    document = {
        "run_id": registered.run_id,
        "model_name": pipeline.model_name,
        "version": registered.version,
        "promoted": promoted,
        "url": registered.url,
    }
    context.log(f"MLflow run {registered.run_id}, version {registered.version} of {pipeline.model_name}")
    context.report.tell(
        "run_id",
        **{name: value for name, value in document.items() if value != ""},
        **eval_metrics["metrics"],
    )
    return {"run_id": document}


def predictions_of(model: Model, frame: pd.DataFrame) -> tuple[metric.Predictions, pd.Index]:
    """What a model says of labelled rows, beside the labels; and the rows that it could score."""
    prepared = model.prepare(frame)
    rows = prepared.features.index
    return (
        metric.Predictions(
            problem_type=model.problem_type,
            target=numbers(frame.loc[rows, model.label_column], model.classes),
            scores=model.score(prepared.features),
            positive=model.positive,
            threshold=model.threshold,
        ),
        rows,
    )


def _limits(resources: Resources | None) -> dict[str, int]:
    """What training may use: what the pipeline asks of Kubernetes, else the CPUs of this process."""
    limits = {"cpus": len(os.sched_getaffinity(0))}
    if resources and resources.cpu:
        limits["cpus"] = max(1, round(quantity(resources.cpu)))
    if resources and resources.memory:
        limits["memory_bytes"] = int(quantity(resources.memory))
    return limits


def _contest(
    context: StepContext, challenger: Model, frame: pd.DataFrame, predictions: metric.Predictions
) -> tuple[Registered | None, Promotion]:
    """The champion, if there is one, and whether the challenger may take its place.

    Raises RegistryError or StorageError where the champion cannot be had now: nobody wins for that.
    """
    import numpy as np

    primary = context.pipeline.training.evaluation.primary_metric
    champion = context.registry.champion(context.pipeline.model_name)
    if champion is None:
        return None, contest(primary, predictions, None)
    try:
        with fetched(context, champion) as (loaded, _):
            if (loaded.classes, loaded.positive) != (challenger.classes, challenger.positive):
                raise BundleRefused(
                    f"its classes are {loaded.classes}, and now they are {challenger.classes}"
                )
            theirs, scored = predictions_of(loaded, frame)
    except SignatureRefused:
        # Where it serves, it can be read: without its key, this is not the place to judge it.
        raise
    except (BundleRefused, FeatureError, LabelError, TransformError) as error:
        # It can serve this data no more.
        alone = contest(primary, predictions, None)
        reason = f"champion version {champion.version} can score this data no more: {error}"
        return champion, replace(alone, reason=reason)
    return champion, contest(primary, predictions.only(np.isin(frame.index, scored)), theirs)


def _promote(context: StepContext, version: str, eval_metrics: Document) -> bool:
    """Promotes the version if it won against the champion that still is the champion."""
    registry, name = context.registry, context.pipeline.model_name
    promotion = eval_metrics["promotion"]
    serving, compared = registry.champion(name), eval_metrics["champion"]
    promoted, reason = promotion["promoted"], promotion["reason"]
    if serving and serving.version == version:
        promoted, reason = True, "it is the champion already"
    elif promoted:
        if (serving.version if serving else None) != (compared["version"] if compared else None):
            now = f"version {serving.version}" if serving else "no version"
            raise StepFailed(
                f"{now} of {name} is the champion since {context.pipeline.name} was evaluated: run the step "
                "evaluate again"
            )
        registry.promote(name, version)
    if not promoted:
        reason += f"; it stays registered as version {version} with the alias challenger"
    context.report.check("beats_champion", promoted, reason[0].upper() + reason[1:])
    return promoted


def _parameters(context: StepContext, model: Model) -> dict[str, Any]:
    """What the pipeline says, flat, with what the framework chose."""
    training = context.pipeline.training
    return {
        "framework": training.model_training.framework,
        "problem_type": context.pipeline.project.problem_type,
        **{f"config.{name}": value for name, value in training.model_training.config.items()},
        **{f"model.{name}": value for name, value in model.parameters.items()},
        "features": json.dumps([feature.name for feature in model.inputs]),
        "rows": model.rows,
    }


def _tags(context: StepContext) -> Mapping[str, str]:
    project = context.pipeline.project
    tags = {
        "pipeline_name": project.name,
        "run": context.run_id,
        "target": context.manifest.metadata.target,
        "owner": project.owner or "",
        **{f"tag.{tag}": "true" for tag in project.tags},
    }
    return {name: value for name, value in tags.items() if value}


def digest_of(table: pa.Table) -> str:
    """SHA-256 of the values, types and names, in their order."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()
