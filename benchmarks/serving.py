"""Customers scored from table to table in PostgreSQL: our steps, the seed's way, a MOJO between two COPYs.

Each way runs in a process of its own, whose peak memory counts (with that of its H2O server). The clock
starts when models and servers are ready.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import psycopg2
import pyarrow as pa
import pyarrow.csv as pa_csv

from benchmarks.measure import Row, Session, say
from benchmarks.scoring import (
    CHUNK,
    FEATURES,
    LABEL,
    MODELS,
    TELCO,
    peak_bytes,
    scored,
    start_h2o,
    write_customers,
)
from benchmarks.scoring import run as run_scoring
from mlplatform.domain.batch.transforms import Preparation
from mlplatform.io.artifacts import Artifacts
from mlplatform.io.h2o.java import java_home
from mlplatform.io.model_bundle import Model, load_model
from mlplatform.io.pipelines.project import Project
from mlplatform.io.pipelines.target_plugins import TargetPlugins
from mlplatform.io.plugins.frameworks.h2o_automl import H2OAutoMLFramework
from mlplatform.io.signing import Signer
from mlplatform.io.warehouse import migrate
from mlplatform.settings import Settings
from mlplatform.steps.context import StepContext
from mlplatform.steps.execute import run_step

CUSTOMERS, FEWER_CUSTOMERS = 1_000_000, 100_000
# Of the seed's way, by kind of model; and of a MOJO between two bare COPYs.
GOALS = {"GBM": 1 / 5, "StackedEnsemble": 1 / 3}
BARE_GOAL = 1.5
FLAT_GOAL = 1.2
# In turn: the database has moods (autovacuum, the page cache).
ROUNDS = 3
PIPELINE = "serving_churn_model_v1"
PROFILES = """
bench:
  target: bench
  outputs:
    bench:
      storage: {type: local}
      data_connector: {type: postgres}
      mlflow: {tracking_uri: "sqlite:///unused.db"}
"""
COLUMNS = ["customer_id", "prediction", "prediction_probability"]


def measure(session: Session) -> Iterator[Row]:
    count = CUSTOMERS if session.full else FEWER_CUSTOMERS
    folder = session.directory / "serving"
    folder.mkdir()
    write_customers(folder / "customers.parquet", count)
    fill(session, folder / "customers.parquet")
    say("training the models (H2O AutoML)")
    run_scoring("train", folder)
    for model, name in MODELS.items():
        rounds = [{way: run(session, way, folder, model) for way in WAYS} for _ in range(ROUNDS)]
        ways = {way: median_of([each[way] for each in rounds]) for way in WAYS}
        for way, result in ways.items():
            rate, memory = count / result["seconds"], result["bytes"] / 1024**2
            say(f"{name}, {way}: {rate:,.0f} rows/s, {memory:,.0f} MB")
        ours = ways["ours"]
        what = f"{count:,} customers from table to table by a {name} model"
        yield Row(
            f"{what}, against H2OFrame and to_sql",
            ours["seconds"],
            ways["seed"]["seconds"],
            goal=GOALS[model],
        )
        yield Row(
            f"{what}, against MOJO between COPYs", ours["seconds"], ways["bare"]["seconds"], goal=BARE_GOAL
        )
        yield Row(f"{what}: peak memory", ours["bytes"], ways["seed"]["bytes"], "bytes")
    if not session.full:
        # A tenth would be less than a chunk.
        return
    write_customers(folder / "customers.parquet", count // 10)
    fill(session, folder / "customers.parquet")
    fewer = run(session, "ours", folder, "GBM")
    said = f"peak memory of our steps: {count:,} customers against {count // 10:,}"
    first = run_bytes(folder, "GBM", count)
    yield Row(said, first, fewer["bytes"], "bytes", goal=FLAT_GOAL)


def fill(session: Session, customers: Path) -> None:
    """The scoring table with these customers only."""
    migrate(session.settings.database_url)
    text = io.BytesIO()
    pa_csv.write_csv(pa.Table.from_pandas(pd.read_parquet(customers), preserve_index=False), text)
    text.seek(0)
    url = session.settings.database_url
    with closing(connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("TRUNCATE customers_to_score, churn_predictions")
        cursor.copy_expert("COPY customers_to_score FROM STDIN (FORMAT csv, HEADER)", text)
    with closing(connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("VACUUM ANALYZE customers_to_score")


def connect(url: str):
    return psycopg2.connect(url.replace("+psycopg2", ""))


def by_steps(folder: Path, model: str, settings: Settings) -> Callable[[], None]:
    """Ours: the steps of a serving pipeline, its artefacts on disk."""
    project_folder = folder / "project"
    (project_folder / "pipelines").mkdir(parents=True, exist_ok=True)
    (project_folder / "profiles.yaml").write_text(PROFILES)
    pipeline = TELCO.parents[1] / "pipelines" / f"{PIPELINE}.yaml"
    (project_folder / "pipelines" / pipeline.name).write_text(pipeline.read_text())
    manifest = Project.load(project_folder, settings).compile(PIPELINE)
    plugins = TargetPlugins(manifest.target, settings, project_folder)
    known = pd.read_csv(TELCO).fillna({"total_charges": 0.0})
    bundle = Model(
        framework="h2o_automl",
        problem_type="binary_classification",
        label_column=LABEL,
        classes=(0, 1),
        positive=1,
        preparation=Preparation.fit(known[FEATURES], known[LABEL].to_numpy()),
        estimator=H2OAutoMLFramework().load(folder / model),
        versions={name: version(name) for name in ("mlplatform", *H2OAutoMLFramework.libraries)},
    )
    artifacts = Artifacts(plugins.storage, [f"run-{os.getpid()}"])
    signer = Signer.from_settings(settings)
    with tempfile.TemporaryDirectory() as empty:
        place = Path(empty) / "bundle"
        bundle.save(place, signer)
        digest = load_model(place, signer, scoring=False).digest
        artifacts.save("load_model", "model", place)
    artifacts.save("load_model", "model_metadata", {"run_id": "benchmark", "digest": digest})

    def serve() -> None:
        for step in ("load_scoring_data", "apply_transforms", "predict", "publish"):
            with StepContext(manifest, plugins, f"run-{os.getpid()}", lambda _: None) as context:
                run_step(context, step, artifacts)

    return serve


def by_seed(folder: Path, model: str, settings: Settings) -> Callable[[], None]:
    """The seed's: the table as a frame, up to H2O, down again, and row by row into the database."""
    import h2o
    import sqlalchemy

    start_h2o()
    predictor = h2o.load_model(str(next((folder / model).glob("*.h2o"))))

    def serve() -> None:
        engine = sqlalchemy.create_engine(settings.database_url)
        customers = pd.read_sql("SELECT * FROM customers_to_score", engine)
        scores = predictor.predict(h2o.H2OFrame(customers[FEATURES])).as_data_frame()["p1"].to_numpy()
        scored(customers["customer_id"], scores).assign(serving_run_id="seed").to_sql(
            "churn_predictions", engine, if_exists="append", index=False
        )
        engine.dispose()

    return serve


def by_copies(folder: Path, model: str, settings: Settings) -> Callable[[], None]:
    """What is possible: one COPY out, the MOJO chunk by chunk, one COPY in."""
    estimator = H2OAutoMLFramework().load(folder / model)

    def serve() -> None:
        with (
            closing(connect(settings.database_url)) as connection,
            connection,
            connection.cursor() as cursor,
            tempfile.TemporaryFile() as rows,
            tempfile.TemporaryFile() as results,
        ):
            cursor.copy_expert("COPY customers_to_score TO STDOUT (FORMAT csv, HEADER)", rows)
            rows.seek(0)
            for batch in pa_csv.open_csv(rows, pa_csv.ReadOptions(block_size=CHUNK * 40)):
                chunk = batch.to_pandas()
                made = scored(chunk["customer_id"], estimator.predict(chunk[FEATURES])[:, 1])
                table = pa.Table.from_pandas(made.assign(serving_run_id="bare"), preserve_index=False)
                pa_csv.write_csv(table, results, pa_csv.WriteOptions(include_header=False))
            results.seek(0)
            names = ", ".join([*COLUMNS, "serving_run_id"])
            cursor.copy_expert(f"COPY churn_predictions ({names}) FROM STDIN (FORMAT csv)", results)

    return serve


WAYS = {"ours": by_steps, "seed": by_seed, "bare": by_copies}


def run(session: Session, way: str, folder: Path, model: str) -> dict[str, float]:
    """One way in a process of its own, into an emptied table."""
    url = session.settings.database_url
    with closing(connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("TRUNCATE churn_predictions")
        # Nobody pays for what another has left to be written.
        cursor.execute("CHECKPOINT")
    command = [sys.executable, "-m", "benchmarks.serving", way, str(folder), model]
    environment = {**session.environment, "H2O_JAVA_HOME": str(java_home())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{way}: {done.stderr}")
    result = json.loads((folder / f"{way}.json").read_text())
    (folder / f"{way}-{model}-{int(result['rows'])}.json").write_text(json.dumps(result))
    return result


def median_of(results: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in results) for name in results[0]}


def run_bytes(folder: Path, model: str, rows: int) -> float:
    return json.loads((folder / f"ours-{model}-{rows}.json").read_text())["bytes"]


def main() -> None:
    way, folder, model = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    settings = Settings.load()
    serve = WAYS[way](folder, model, settings)
    began = time.perf_counter()
    serve()
    result = {"seconds": time.perf_counter() - began, "bytes": peak_bytes()}
    with closing(connect(settings.database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM churn_predictions")
        result["rows"] = (cursor.fetchone() or (0,))[0]
    (folder / f"{way}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
