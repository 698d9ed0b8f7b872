"""Projects of batch pipelines for tests: small, on a schema of their own in the session's PostgreSQL."""

from __future__ import annotations

import io
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import psycopg2
import yaml

from mlplatform.components.batch.component import definitions_of
from mlplatform.domain.batch.profile import Tracking
from mlplatform.io.artifacts import REGISTRY
from mlplatform.io.pipelines.project import Project
from mlplatform.io.plugins.data_connectors.postgres import address_of
from mlplatform.io.plugins.model_registries.mlflow import MLflowRegistry
from mlplatform.io.warehouse import migrate
from mlplatform.settings import Settings

TRAINING, SERVING = "training_churn_v1", "serving_churn_v1"
SCORES = "churn_predictions"
TRAINING_STEPS = ["load_data", "split_data", "train_model", "evaluate", "log_run"]
SERVING_STEPS = ["load_scoring_data", "load_model", "apply_transforms", "predict", "publish"]
Result = dg.JobExecutionResult | dg.ExecuteInProcessResult
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

BLOCKS: dict[str, Any] = {
    "schema_version": 1,
    "project": {"experiment_name": "tests", "problem_type": "binary_classification", "owner": "ds-team"},
    "training": {
        "data_source": {"label_table": "customers"},
        "schema": {
            "target": {"label_column": "churned", "classes": [0, 1], "positive_class": 1},
            "identifiers": {"primary_key": "customer_id"},
        },
        "model_training": {"framework": "sklearn", "config": {"model": "LogisticRegression"}},
        "evaluation": {
            "primary_metric": "roc_auc",
            "additional_metrics": ["accuracy", "f1", "precision", "recall"],
            "generate_plots": False,
        },
    },
}
SERVING_BLOCK: dict[str, Any] = {
    "model_source": {"registry": "mlflow", "run_id": "champion"},
    "data_source": {"scoring_table": "customers_to_score"},
    "output": {"destination": "database", "table": SCORES},
}


class Warehouse:
    """The churn tables in a schema of their own."""

    def __init__(self, settings: Settings, schema: str) -> None:
        self._address = address_of(settings.database_url)
        self.schema = schema

    @property
    def config(self) -> dict[str, Any]:
        """Of the data connector."""
        return {
            **{name: self._address[name] for name in ("host", "user", "password")},
            "port": int(self._address["port"]),
            "database": self._address["dbname"],
            "schema": self.schema,
        }

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Any statement; tables without a schema are those of this one."""
        options = f"-c search_path={self.schema}"
        connected = closing(psycopg2.connect(**self._address, options=options))
        with connected as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def fill(self, table: str, frame: pd.DataFrame, anew: bool = False) -> None:
        """Puts the rows into the table; `anew` makes it of the frame's columns, whatever it was."""
        if anew:
            kinds = {"i": "INT", "f": "FLOAT", "O": "TEXT"}
            columns = ", ".join(f"{name} {kinds[frame[name].dtype.kind]}" for name in frame)
            self.execute(f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} ({columns})")
        options = f"-c search_path={self.schema}"
        connected = closing(psycopg2.connect(**self._address, options=options))
        with connected as connection, connection, connection.cursor() as cursor:
            rows = io.StringIO(frame.to_csv(index=False, header=False))
            cursor.copy_expert(f"COPY {table} ({', '.join(frame.columns)}) FROM STDIN (FORMAT csv)", rows)

    def count(self, table: str = SCORES) -> int:
        return self.execute(f"SELECT count(*) FROM {table}")[0][0]  # noqa: S608

    def scores(self) -> dict[str, list[dict[str, Any]]]:
        """The published rows by serving run, each in the order of its keys."""
        columns = [
            "customer_id",
            "prediction",
            "prediction_probability",
            "execution_date",
            "model_run_id",
            "serving_run_id",
        ]
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.execute(f"SELECT {', '.join(columns)} FROM {SCORES} ORDER BY customer_id"):  # noqa: S608
            found.setdefault(row[5], []).append(dict(zip(columns, row, strict=True)))
        return found


@contextmanager
def warehouse(settings: Settings, labelled: int = 300, to_score: int = 60) -> Iterator[Warehouse]:
    """A new schema with the seed's tables, filled; gone at the end."""
    made = Warehouse(settings, f"test_{uuid.uuid4().hex[:12]}")
    made.execute(f"CREATE SCHEMA {made.schema}")
    try:
        migrate(settings.database_url, made.schema)
        made.fill("customers", customers(labelled))
        made.fill("customers_to_score", customers(to_score, seed=1).drop(columns="churned"))
        yield made
    finally:
        made.execute(f"DROP SCHEMA {made.schema} CASCADE")


def customers(rows: int, seed: int = 0) -> pd.DataFrame:
    """Customers of whom those with a short tenure and high charges leave, with some exceptions."""
    random = np.random.default_rng(seed)
    tenure = random.integers(0, 72, rows)
    charges = random.uniform(20, 120, rows).round(2)
    risk = (charges - 70) / 15 - (tenure - 36) / 12
    return pd.DataFrame(
        {
            "customer_id": [f"C{seed}-{number:05}" for number in range(rows)],
            "tenure": tenure,
            "monthly_charges": charges,
            "total_charges": (tenure * charges).round(2),
            "churned": (random.uniform(size=rows) < 1 / (1 + np.exp(-risk))).astype(int),
        }
    )


@dataclass(frozen=True)
class BatchProject:
    """A project's folder, and the variables of the processes that run it. Can be sent to a child."""

    root: Path
    variables: Mapping[str, str]

    @property
    def settings(self) -> Settings:
        return Settings(self.variables)

    def load(self) -> Project:
        return Project.load(self.root, self.settings)

    def change(self, name: str, **changes: Any) -> BatchProject:
        """Changes the pipeline; each name is a path with `__` for the dots, None removes what is there."""
        self._edit(self.root / "pipelines" / f"{name}.yaml", (), changes)
        return self

    def change_target(self, **changes: Any) -> BatchProject:
        self._edit(self.root / "profiles.yaml", ("tests", "outputs", "here"), changes)
        return self

    def code(self, module: str, text: str) -> BatchProject:
        """Writes `lib/<module>.py`."""
        path = self.root / "lib" / f"{module}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return self

    def with_variables(self, **variables: str) -> BatchProject:
        return BatchProject(self.root, {**self.variables, **variables})

    def copy(self, root: Path, tables: Warehouse) -> BatchProject:
        """The same pipelines and model on other tables, without artefacts."""
        shutil.copytree(self.root, root, ignore=shutil.ignore_patterns("artifacts"))
        return BatchProject(root, self.variables).change_target(data_connector__config=tables.config)

    def definitions(self) -> dg.Definitions:
        return dg.Definitions.merge(
            definitions_of(self.load(), "tests", []), dg.Definitions(executor=dg.in_process_executor)
        )

    def run(
        self,
        name: str,
        instance: dg.DagsterInstance | None = None,
        again: str | None = None,
        whole: bool = False,
        only: Sequence[dg.AssetKey] | None = None,
    ) -> Result:
        """One run of a job in this process, which does not raise when it fails.

        Args:
            instance: what keeps the run's history; else nothing does, which is faster.
            again: the id of a failed run, to be executed again: from where it failed, or as a `whole`.
            only: the assets to make.
        """
        if instance is None:
            job = self.definitions().resolve_job_def(name)
            return job.execute_in_process(raise_on_error=False, run_config=QUIET)
        options = None
        if again and whole:
            options = dg.ReexecutionOptions(again)
        elif again:
            options = dg.ReexecutionOptions.from_failure(again, instance)
        # Dagster stores the arguments, in which no secret may be; and it keeps the job of equal ones, while
        # the files may have changed.
        key = uuid.uuid4().hex
        _PROJECTS[key] = self
        job = dg.build_reconstructable_job("mlplatform_tests.batch_projects", "_job", (key, name))
        return dg.execute_job(
            job,
            instance,
            run_config=QUIET,
            asset_selection=only,
            reexecution_options=options,
        )

    def registry(self) -> MLflowRegistry:
        """The one of the profile's `mlflow` block."""
        target = yaml.safe_load((self.root / "profiles.yaml").read_text())["tests"]["outputs"]["here"]
        return MLflowRegistry(Tracking(**target.get("mlflow", {})), self.settings, self.root)

    @property
    def model_name(self) -> str:
        return self.load().pipeline(TRAINING).model_name

    def made(self, pipeline: str, run_id: str) -> set[str]:
        """Names of the artefacts that a run has left in the storage's registry."""
        path = self.root / "artifacts" / run_id / pipeline / REGISTRY
        return set(json.loads(path.read_text())) if path.exists() else set()

    def mlflow_runs(self) -> list[Any]:
        """All runs of the experiment of this project, newest first."""
        client = self.registry()._client
        name = str(self.load().pipeline(TRAINING).project.experiment_name)
        experiment = client.get_experiment_by_name(name)
        return list(client.search_runs([experiment.experiment_id])) if experiment else []

    def _edit(self, path: Path, at: tuple[str, ...], changes: Mapping[str, Any]) -> None:
        whole = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            *above, last = [*at, *key.split("__")]
            block = whole
            for part in above:
                block = block.setdefault(part, {})
            if value is None:
                block.pop(last, None)
            else:
                block[last] = value
        path.write_text(yaml.safe_dump(whole, sort_keys=False))


_PROJECTS: dict[str, BatchProject] = {}


def _job(key: str, name: str) -> dg.JobDefinition:
    return _PROJECTS[key].definitions().resolve_job_def(name)


def make(
    root: Path,
    variables: Mapping[str, str],
    tables: Warehouse,
    mlflow: str | None,
    storage: Mapping[str, Any] | None = None,
) -> BatchProject:
    """A project with a training and a serving pipeline, a model name and an experiment of its own.

    Args:
        mlflow: MLflow's address; None means the server that the variables name.
        storage: the profile's `storage`; else a folder of the project.
    """
    unique = uuid.uuid4().hex[:8]
    named = {"experiment_name": f"tests_{unique}", "model_name": f"churn_{unique}"}
    for name, more in ((TRAINING, {}), (SERVING, {"serving": SERVING_BLOCK})):
        project = {**BLOCKS["project"], "name": name, **named}
        path = root / "pipelines" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump({**BLOCKS, "project": project, **more}, sort_keys=False))
    target = {
        "storage": dict(storage or {"type": "local", "config": {"base_path": "artifacts"}}),
        "data_connector": {"type": "postgres", "config": tables.config},
        "mlflow": {"tracking_uri": mlflow} if mlflow else {},
    }
    profile = {"tests": {"target": "here", "outputs": {"here": target}}}
    (root / "profiles.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    return BatchProject(root, dict(variables))


def reasons(result: Result) -> str:
    """What the failed steps of a run said, as a person reads it."""
    from mlplatform.cli.job_runs import reason

    return "\n".join(
        f"{event.step_key}: {reason(event)}" for event in result.all_events if event.is_step_failure
    )


def steps_run(result: Result) -> list[str]:
    return [
        str(event.step_key).partition("__")[2]
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.STEP_START
    ]


def failed_steps(result: Result) -> list[str]:
    return [str(event.step_key).partition("__")[2] for event in result.all_events if event.is_step_failure]


def outcomes(result: Result) -> dict[str, dg.AssetCheckEvaluation]:
    """Every check of a run by its name."""
    events = [
        event.asset_check_evaluation_data
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ]
    return {event.check_name: event for event in events}
