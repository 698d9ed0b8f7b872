"""The steps of a serving pipeline: chunk by chunk, so that memory does not grow with the table."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlplatform.domain.batch.data_checks import SkippedRows
from mlplatform.domain.batch.frames import no_such_column
from mlplatform.domain.batch.pipeline import Serving
from mlplatform.domain.batch.stability import Stability
from mlplatform.errors import PlatformError
from mlplatform.io.artifacts import Document, Frame, Given, PackedModel, Rows
from mlplatform.io.model_bundle import Model
from mlplatform.io.plugins.data_connectors.local_file import write_csv
from mlplatform.io.plugins.model_registries import Registered
from mlplatform.steps.context import StepContext, StepFailed
from mlplatform.steps.models import fetched, opened
from mlplatform.steps.tables import FOUND, REASON, FeatureJoins, RowChecks, UniqueKeys, without_features

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# Columns of the scoring table that are published beside the scores travel under this prefix.
KEPT = "source:"
PREDICTIONS_FILE = "predictions.csv"
PUBLISHED = (
    "prediction",
    "prediction_probability",
    "execution_date",
    "model_run_id",
    "serving_run_id",
)
# In the schema's metadata: which model made the rows.
MODEL_DIGEST = b"mlplatform.model_digest"
MOST_REASONS = 1_000


def load_scoring_data(context: StepContext) -> dict[str, Given]:
    """The table to score, as it is, with its feature tables joined."""
    import pyarrow as pa

    serving = _serving(context)
    table = serving.data_source.scoring_table
    connector = context.plugins.connector
    joins = FeatureJoins(context, serving.data_source.feature_tables, keep_all=True)
    schema = joins.schema(connector.schema(table))

    def chunks() -> Iterator[pa.RecordBatch]:
        keys = UniqueKeys(context, _key(context))
        for batch in connector.read(table):
            chunk = joins.join(pa.Table.from_batches([batch]))
            keys.add(chunk)
            yield from chunk.to_batches()
        keys.report()

    return {"scoring_data": Rows(schema, chunks())}


def load_model(context: StepContext) -> dict[str, Given]:
    """The model that the pipeline names, or its fallback."""
    source, registry = _serving(context).model_source, context.registry
    name = context.pipeline.model_name
    try:
        registered = registry.resolve(name, source.run_id)
        return _loaded(context, registered, asked=True, why="")
    except PlatformError as error:
        if source.fallback_run_id is None:
            raise
        context.log(f"warning: {source.run_id} cannot be loaded, so {source.fallback_run_id} scores: {error}")
        registered = registry.resolve(name, source.fallback_run_id)
        return _loaded(context, registered, asked=False, why=str(error))


def apply_transforms(
    context: StepContext, scoring_data: Frame, model: PackedModel | Document
) -> dict[str, Given]:
    """Rows as the estimator takes them; those that cannot be scored go to quarantine with their reason."""
    import pyarrow as pa

    key = _key(context)
    kept = _kept_columns(context, scoring_data.schema)
    with opened(context, model, scoring=False) as loaded:
        _check_columns(context, loaded, scoring_data)
    schema = pa.schema(
        [scoring_data.schema.field(key)]
        + [scoring_data.schema.field(name).with_name(KEPT + name) for name in kept]
        + [pa.field(name, kind) for name, kind in _feature_types(loaded).items()],
        metadata={MODEL_DIGEST: loaded.digest},
    )
    columns = [field for field in scoring_data.schema if not field.name.startswith(FOUND)]
    schema_of_refused = pa.schema([*columns, pa.field(REASON, pa.string())])
    # On disk, since all rows of a large table may be refused.
    quarantined = context.folder() / "refused.arrow"

    def chunks() -> Iterator[pa.RecordBatch]:
        used = {feature.name for feature in loaded.inputs}
        drift = Stability({name: each for name, each in loaded.reference.items() if name in used})
        checks = RowChecks(context, _serving(context).data_checks)
        reasons, unseen = Counter(), Counter()
        with pa.ipc.new_file(quarantined, schema_of_refused) as refused:
            for batch in scoring_data.batches():
                frame = batch.to_pandas()
                prepared = loaded.prepare(frame)
                drift.add(batch)
                unseen.update(prepared.unseen)
                reason = _reasons(frame, key, prepared.refused, checks.add(batch), without_features(batch))
                if len(reason):
                    _count(reasons, reason)
                    rows = batch.select([field.name for field in columns]).take(
                        pa.array(reason.index.to_numpy())
                    )
                    with_reason = [*rows.columns, pa.array(reason.to_numpy(), pa.string())]
                    refused.write_batch(pa.RecordBatch.from_arrays(with_reason, schema=schema_of_refused))
                features = prepared.features[~prepared.features.index.isin(reason.index)]
                rows = batch.take(pa.array(features.index.to_numpy()))
                carried = [rows.column(name) for name in (key, *kept)]
                made = [
                    pa.array(features[name], schema.field(name).type, from_pandas=True) for name in features
                ]
                yield pa.RecordBatch.from_arrays([*carried, *made], schema=schema)
        checks.report()
        _report_refused(context, scoring_data.count, reasons)
        _report_drift(context, drift, unseen)

    def quarantine() -> Iterator[pa.RecordBatch]:
        # Read after the chunks, which fill it.
        with pa.OSFile(str(quarantined)) as file, pa.ipc.open_file(file) as stored:
            for number in range(stored.num_record_batches):
                yield stored.get_batch(number)

    return {
        "transformed_data": Rows(schema, chunks()),
        "refused_rows": Rows(schema_of_refused, quarantine()),
    }


def predict(context: StepContext, model: PackedModel | Document, transformed_data: Frame) -> dict[str, Given]:
    """One row for each: its key, the class, and for a classifier the probability."""
    import pyarrow as pa

    with opened(context, model) as loaded:
        features = list(_feature_types(loaded))
    _check_model(transformed_data, loaded.digest)
    types: dict[str, pa.DataType] = {"prediction": pa.float64()}
    if len(loaded.classes):
        whole = all(isinstance(each, int) for each in loaded.classes)
        types = {"prediction": pa.int64() if whole else pa.string(), "prediction_probability": pa.float64()}
    carried = [field for field in transformed_data.schema if field.name not in features]
    schema = pa.schema(
        carried + [pa.field(name, kind) for name, kind in types.items()],
        metadata={MODEL_DIGEST: loaded.digest},
    )

    def chunks() -> Iterator[pa.RecordBatch]:
        counts, rows, lowest, highest = Counter(), 0, float("inf"), float("-inf")
        for batch in transformed_data.batches():
            scores = loaded.score(batch.select(features).to_pandas())
            predictions = loaded.labels(scores)
            made = [pa.array(predictions, types["prediction"])]
            shown = scores
            if len(loaded.classes):
                shown = loaded.probabilities(scores)
                made.append(pa.array(shown, pa.float64()))
                counts.update(predictions.tolist())
            rows += len(scores)
            lowest, highest = min(lowest, shown.min()), max(highest, shown.max())
            yield pa.RecordBatch.from_arrays(
                [*(batch.column(field.name) for field in carried), *made], schema=schema
            )
        # The model raises before it gives what is no probability.
        context.report.check(
            "scores",
            rows == transformed_data.count,
            f"{rows:,} of {transformed_data.count:,} rows are scored"
            + (f", from {lowest:.4g} to {highest:.4g}." if rows else "."),
            {f"class {name}": count for name, count in sorted(counts.items(), key=str)},
        )

    return {"predictions": Rows(schema, chunks())}


def publish(context: StepContext, predictions: Frame, model_metadata: Document) -> dict[str, Given]:
    """Writes the scores of this run, all or none; written again, they replace themselves."""
    _check_model(predictions, model_metadata["digest"])
    output, key = _serving(context).output, _key(context)
    rows = _published(context, predictions, str(model_metadata["run_id"]))
    if output.destination == "database" and context.manifest.target.data_connector.type != "local_file":
        place = str(output.table)
        written = context.plugins.connector.publish(place, rows, [key], "serving_run_id", context.run_id)
    else:
        path = context.plugins.root / (output.path or PREDICTIONS_FILE)
        written, place = write_csv(path, rows, header=[key, *PUBLISHED]), str(path)
    context.report.check(
        "rows",
        written == predictions.count,
        f"{written:,} rows are in {place}, {predictions.count:,} were scored.",
        {"rows": written},
    )
    context.log(f"{written:,} rows written to {place} as serving run {context.run_id}")
    document = {
        "place": place,
        "rows": written,
        "serving_run_id": context.run_id,
        "model_run_id": model_metadata["run_id"],
    }
    context.report.tell("output", **document, **{"dagster/row_count": written})
    return {"output": document}


def _published(context: StepContext, predictions: Frame, model_run_id: str) -> Iterator[pa.RecordBatch]:
    """The columns of the published table, in its order."""
    import pyarrow as pa

    output, key = _serving(context).output, _key(context)
    # Without a zone and in UTC, as the column is.
    now = pa.scalar(datetime.now(UTC).replace(tzinfo=None), pa.timestamp("us"))
    for batch in predictions.batches():
        columns: dict[str, Any] = {key: batch.column(key)}
        columns |= {
            name.removeprefix(KEPT): batch.column(name)
            for name in batch.schema.names
            if name.startswith(KEPT)
        }
        columns["prediction"] = batch.column("prediction")
        if output.include_probabilities and "prediction_probability" in batch.schema.names:
            columns["prediction_probability"] = batch.column("prediction_probability")
        for name, value in (
            ("execution_date", now),
            ("model_run_id", pa.scalar(model_run_id)),
            ("serving_run_id", pa.scalar(context.run_id)),
        ):
            columns[name] = pa.repeat(value, batch.num_rows)
        yield pa.RecordBatch.from_pydict(columns)


def _loaded(context: StepContext, registered: Registered, asked: bool, why: str) -> dict[str, Given]:
    source = _serving(context).model_source
    with fetched(context, registered) as (model, bundle):
        if source.artifact_snapshot:
            kept = context.folder() / "model"
            shutil.copytree(bundle, kept)
        else:
            kept = {"run_id": registered.run_id, "version": registered.version}
    metadata = {
        "run_id": registered.run_id,
        "version": registered.version,
        "model_name": context.pipeline.model_name,
        "framework": model.framework,
        "features": [feature.name for feature in model.inputs],
        "trained_at": model.created_at,
        "provenance": dict(model.provenance),
        "digest": model.digest,
    }
    context.log(
        f"model: version {registered.version} of {context.pipeline.model_name}, run {registered.run_id}"
    )
    context.report.check(
        "asked_for",
        asked,
        "It is the model that the pipeline names."
        if asked
        else f"The fallback {source.fallback_run_id} scores instead of {source.run_id}: {why}",
    )
    url = {"url": registered.url} if registered.url else {}
    context.report.tell(
        "model_metadata",
        run_id=registered.run_id,
        version=registered.version,
        framework=model.framework,
        **url,
    )
    return {"model": kept, "model_metadata": metadata}


def _check_model(frame: Frame, digest: str) -> None:
    """Raises StepFailed if the frame was made by another model: a run that makes only some of its assets
    takes the others from their newest materialisations.
    """
    made_by = (frame.schema.metadata or {}).get(MODEL_DIGEST, b"").decode()
    if made_by != digest:
        raise StepFailed(
            f"these rows were made by another model ({made_by or 'unknown'}) than the one that was loaded "
            f"({digest}): run the pipeline from load_model on"
        )


def _kept_columns(context: StepContext, schema: pa.Schema) -> list[str]:
    """The columns that are published beside the scores. Raises StepFailed if one is not there."""
    serving = _serving(context)
    named = [name for name in serving.output.columns or () if name not in PUBLISHED]
    for name in named:
        if name not in schema.names:
            raise StepFailed(
                f"serving.output.columns: {no_such_column(name, schema.names)} in table "
                f"{serving.data_source.scoring_table}"
            )
    return [name for name in named if name != _key(context)]


def _check_columns(context: StepContext, model: Model, data: Frame) -> None:
    """Raises StepFailed if columns are gone since training."""
    have = data.schema.names
    gone = [feature.name for feature in model.inputs if feature.name not in have]
    if gone:
        table = _serving(context).data_source.scoring_table
        raise StepFailed(
            f"table {table} has no column {', '.join(gone)}, which the model was trained with (it has "
            f"{', '.join(have)}): put it back, or train a model without it"
        )
    context.report.check("columns", True, f"All {len(model.inputs)} columns are there.")


def _feature_types(model: Model) -> dict[str, pa.DataType]:
    """The columns that the estimator takes: numbers, and texts for categories that it takes as they are."""
    import pyarrow as pa

    preparation = model.preparation
    if preparation.encoding:
        return dict.fromkeys(preparation.encoding.sources, pa.float64())
    return {
        feature.name: pa.string() if feature.kind == "category" else pa.float64()
        for feature in preparation.outputs
    }


def _reasons(
    frame: pd.DataFrame,
    key: str,
    refused: pd.Series,
    skipped: SkippedRows,
    without: Iterable[tuple[int, str]],
) -> pd.Series:
    """Why rows cannot be scored, by their number; a row without a key is one of them."""
    import pandas as pd

    reasons = refused.to_dict()
    for row in skipped.mask.nonzero()[0].tolist():
        reasons[row] = "; ".join(filter(None, [reasons.get(row), skipped.reasons[row]]))
    missing = ((row, f"{key} is missing") for row in frame.index[frame[key].isna()])
    for row, reason in (*missing, *without):
        reasons[row] = "; ".join(filter(None, [reasons.get(row), reason]))
    return pd.Series(reasons, dtype=object).sort_index()


def _count(reasons: Counter[str], found: pd.Series) -> None:
    """Reasons name values, of which there may be as many as rows: those after the first few are one."""
    for reason, count in found.value_counts().items():
        known = reason in reasons or len(reasons) < MOST_REASONS
        reasons[str(reason) if known else "of other reasons"] += count


def _report_refused(context: StepContext, rows: int, reasons: Counter[str]) -> None:
    refused = sum(reasons.values())
    found = "; ".join(f"{count:,} because {reason}" for reason, count in reasons.most_common(5))
    context.report.check(
        "refused",
        refused == 0,
        f"{refused:,} of {rows:,} rows cannot be scored: {found}." if refused else f"All {rows:,} can be.",
        {"refused_rows": refused},
        # A few bad rows are for the quarantine; a table of nothing else is a broken one.
        warning=refused < rows,
    )


def _report_drift(context: StepContext, drift: Stability, unseen: Counter[str]) -> None:
    found = drift.result()
    moved = {name: each for name, each in found.items() if each.level == "significant"}
    said = [f"{name} has moved (PSI {each.psi:.3f})" for name, each in moved.items()]
    said += [f"{name} has {count:,} values that training has not seen" for name, count in unseen.items()]
    context.report.check(
        "drift",
        not moved,
        "; ".join(said) + "." if said else "No feature has moved.",
        {f"psi {name}": round(each.psi, 4) for name, each in found.items()},
    )


def _serving(context: StepContext) -> Serving:
    serving = context.pipeline.serving
    if serving is None:
        raise StepFailed(f"{context.pipeline.name} is no serving pipeline: it has no block serving")
    return serving


def _key(context: StepContext) -> str:
    return context.pipeline.training.schema_.identifiers.primary_key
