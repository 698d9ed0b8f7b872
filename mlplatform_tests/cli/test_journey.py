"""From `init` to a file of scores, as a user does it: the template with windows, joins and selection."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from mlplatform.io.artifacts import Artifacts, Stored
from mlplatform.io.plugins import plugin
from mlplatform.settings import Settings
from mlplatform_tests.cli.projects import call, make, replace

# MLflow's own use of what SQLAlchemy 2.1 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

TRAINING, SERVING = "training_churn_features_v1", "serving_churn_features_v1"
CUSTOMERS = 60
TO_DATABASE = "    destination: database\n    table: churn_predictions\n"
HEADER = [
    "customer_id",
    "prediction",
    "prediction_probability",
    "execution_date",
    "model_run_id",
    "serving_run_id",
]


@dataclass(frozen=True)
class Journey:
    root: Path
    said: str

    def results(self, pipeline: str) -> dict[str, Any]:
        return json.loads((self.root / "target" / pipeline / "run_results.json").read_text())

    def artefact(self, name: str, pipeline: str = TRAINING) -> Stored:
        storage = plugin("storages", "local")({"base_path": "local_artifacts"}, Settings({}), self.root)
        return Artifacts(storage, [self.results(pipeline)["run_id"]]).load(name)

    def rows(self, path: str) -> list[dict[str, str]]:
        with open(self.root / path, newline="") as file:
            return list(csv.DictReader(file))

    @cached_property
    def customers(self) -> list[str]:
        return [row["customer_id"] for row in self.rows("sample_data/customers_to_score.csv")]


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    """A project that has trained a model and scored with it, with windows that tell months apart."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("journey")
        options = ("--template", "typical-ds-pipeline", "--customers", str(CUSTOMERS), "--features", "10")
        root = make(folder, monkeypatch, *options)
        training = root / "pipelines" / f"{TRAINING}.yaml"
        for before, after in (
            ("test_lookback_units: 1", "test_lookback_units: 2"),
            ("train_lookback_units: 4", "train_lookback_units: 3"),
            ("generate_plots: true", "generate_plots: false\n    temporal_analysis: true"),
            ("k: 20", "k: 5"),
            # Learns in a moment.
            ("HistGradientBoostingClassifier\n      max_iter: 100", "LogisticRegression"),
        ):
            replace(training, before, after)
        said = ""
        for arguments in (["validate"], ["run", "--select", TRAINING], ["run", "--select", SERVING]):
            ended = call(*arguments)
            assert ended.exit_code == 0, ended.output
            said += ended.output
    return Journey(root, said)


@pytest.fixture
def copy(journey: Journey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project again, to be changed, as the working directory; without its scores."""
    root = tmp_path / "demo-project"
    shutil.copytree(journey.root, root, ignore=shutil.ignore_patterns("predictions.csv"))
    monkeypatch.chdir(root)
    return root


# The file of scores


def test_a_table_of_the_file_connector_is_a_file_of_scores_beside_the_pipelines(journey: Journey):
    rows = journey.rows("predictions.csv")
    assert [row["customer_id"] for row in rows] == journey.customers
    assert list(rows[0]) == HEADER
    assert {row["prediction"] for row in rows} <= {"0", "1"}
    assert len({row["prediction_probability"] for row in rows}) > CUSTOMERS / 2
    assert all(0 <= float(row["prediction_probability"]) <= 1 for row in rows)
    model, output = journey.artefact("run_id"), journey.artefact("output", SERVING)
    assert {row["model_run_id"] for row in rows} == {model["run_id"]}
    serving_run_id = journey.results(SERVING)["dagster_run_id"]
    assert {row["serving_run_id"] for row in rows} == {serving_run_id}
    place = str(journey.root / "predictions.csv")
    assert (output["place"], output["rows"]) == (place, CUSTOMERS)
    assert f"{CUSTOMERS} rows written to {place}" in journey.said
    # Nor is there another.
    assert not list(journey.root.rglob("churn_predictions*"))


def test_each_run_has_a_folder_of_artefacts(journey: Journey):
    folders = {path.name for path in (journey.root / "local_artifacts").glob("run_*")}
    assert {journey.results(name)["run_id"] for name in (TRAINING, SERVING)} <= folders


@pytest.mark.parametrize(
    ("output", "file"),
    [
        ("    destination: local_file\n", "predictions.csv"),
        ("    destination: local_file\n    path: out/scores.csv\n", "out/scores.csv"),
    ],
    ids=["without a path", "with a path"],
)
def test_a_file_is_written_where_the_pipeline_says(journey: Journey, copy: Path, output: str, file: str):
    path = copy / "pipelines" / f"{SERVING}.yaml"
    replace(path, TO_DATABASE, output)
    replace(path, "include_probabilities: true", "include_probabilities: false")
    ended = call("run", "--select", SERVING)
    assert ended.exit_code == 0, ended.output
    written = {path.relative_to(copy).as_posix() for path in copy.rglob("*.csv")}
    assert {name for name in written if not name.startswith("sample_data/")} == {file}
    rows = Journey(copy, ended.output).rows(file)
    assert [row["customer_id"] for row in rows] == journey.customers
    assert list(rows[0]) == [name for name in HEADER if name != "prediction_probability"]


# What the training made of the pipeline's blocks


def test_the_rows_are_split_by_the_windows_of_the_pipeline(journey: Journey):
    """Two newest months for testing, the one before left out, three before it for training."""
    months = {}
    for name in ("raw_data", "train_set", "test_set"):
        frame = journey.artefact(name).to_pandas()
        counts = frame["snapshot_date"].astype(str).str[:7].value_counts()
        months[name] = dict(sorted(counts.to_dict().items()))
    every = [f"2025-{month:02}" for month in range(7, 13)]
    assert months == {
        "raw_data": dict.fromkeys(every, CUSTOMERS),
        "train_set": dict.fromkeys(every[:3], CUSTOMERS),
        "test_set": dict.fromkeys(every[4:], CUSTOMERS),
    }
    assert "training on 2025-07-01 to 2025-09-30, testing on 2025-11-01 to 2025-12-31" in journey.said


def test_the_model_learns_from_the_selected_features_alone(journey: Journey):
    selected = journey.artefact("selected_features")["columns"]
    assert len(selected) == 5
    assert sorted(journey.artefact("model_metadata", SERVING)["features"]) == sorted(selected)
    with journey.artefact("model").unpacked() as bundle:
        card = json.loads((bundle / "model.json").read_text())
    assert set(card["importances"]) <= set(selected)


def test_the_metrics_of_each_month_are_told_where_they_are_asked_for(journey: Journey, copy: Path):
    evaluated = journey.artefact("eval_metrics")
    by_month = evaluated["by_partition"]
    assert [each["partition"][:10] for each in by_month] == ["2025-11-01", "2025-12-01"]
    assert [each["rows"] for each in by_month] == [CUSTOMERS, CUSTOMERS]
    accuracy = [each["accuracy"] for each in by_month]
    assert sum(accuracy) / 2 == pytest.approx(evaluated["metrics"]["accuracy"])
    assert {"roc_auc", "f1", "precision", "recall"} <= by_month[0].keys()
    replace(copy / "pipelines" / f"{TRAINING}.yaml", "temporal_analysis: true", "temporal_analysis: false")
    ended = call("run", "--select", TRAINING)
    assert ended.exit_code == 0, ended.output
    assert Journey(copy, ended.output).artefact("eval_metrics") == {
        **evaluated,
        "by_partition": [],
        **dict.fromkeys(("champion", "promotion", "model_digest"), ANY),
    }
