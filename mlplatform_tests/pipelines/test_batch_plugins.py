"""Plugins of another distribution: found by their entry points, and used like the platform's own."""

from __future__ import annotations

import sys
from pathlib import Path

import dagster as dg
import pytest

from mlplatform.io.plugins import UnknownPlugin, names, plugin
from mlplatform_tests.batch_projects import SERVING, TRAINING, BatchProject, Warehouse, outcomes, reasons
from mlplatform_tests.cli.projects import call

# MLflow's own use of what SQLAlchemy 2.1 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

MODULE = '''
import json
from dataclasses import dataclass

import numpy as np

from mlplatform.io.plugins.frameworks import Fitted, InvalidConfig
from mlplatform.io.plugins.secrets_providers import SecretMissing


@dataclass
class Share:
    """The same for everyone: how many of the training set are positive."""

    share: float

    def predict(self, features):
        return np.tile([1 - self.share, self.share], (len(features), 1))

    def save(self, directory):
        (directory / "share.json").write_text(json.dumps(self.share))


class Shares:
    name = "shares"
    libraries = ()
    needs_numbers = False

    def validate(self, config, problem_type):
        if unknown := config.keys() - {"seconds"}:
            raise InvalidConfig([((key,), "no such setting of shares") for key in sorted(unknown)])
        return ["seconds are a limit of time"] if "seconds" in config else []

    def fit(self, data, config, environment):
        environment.log(f"shares of {len(data.target)} rows")
        return Fitted(Share(float(data.target.mean())), reproducible="seconds" not in config)

    def load(self, directory):
        return Share(json.loads((directory / "share.json").read_text()))

    def check(self, h2o_url):
        return "shares 1.0"


class Files:
    """Each secret is a file, as a volume of Kubernetes has them."""

    config_keys = ("folder",)

    def __init__(self, config, settings, root):
        self._folder = root / config["folder"]

    def get(self, name):
        try:
            return (self._folder / name).read_text()
        except FileNotFoundError:
            raise SecretMissing(f"secret {name!r} is no file of {self._folder}") from None
'''
ENTRY_POINTS = """
[mlplatform.frameworks]
shares = their_plugins:Shares

[mlplatform.secrets_providers]
files = their_plugins:Files

[mlplatform.storages]
gone = their_plugins:Gone
torn = their_storage:NotInstalled
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pip installs a wheel, in a folder on Python's path."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "their_plugins.py").write_text(MODULE)
    about = folder / "their_plugins-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugins\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "their_plugins", raising=False)


@pytest.fixture
def project(batch_project: BatchProject, tables: Warehouse) -> BatchProject:
    """Trains by the framework of the distribution, with a password from its secrets provider."""
    folder = batch_project.root / "secrets"
    folder.mkdir()
    (folder / "PG_PASSWORD").write_text(tables.config["password"])
    batch_project.change_target(
        data_connector__config__password="{{ secret('PG_PASSWORD') }}",
        secrets={"provider": "files", "config": {"folder": "secrets"}},
    )
    return batch_project.change(
        TRAINING, training__model_training={"framework": "shares", "config": {"seconds": 3}}
    )


def test_a_plugin_is_found_by_its_name_among_the_platforms_own():
    assert names("frameworks") == ["h2o_automl", "shares", "sklearn"]
    assert plugin("frameworks", "shares").__module__ == "their_plugins"
    assert names("secrets_providers") == ["env", "files"]
    with pytest.raises(UnknownPlugin, match=r"h2o_automl, shares, sklearn; did you mean shares\?"):
        plugin("frameworks", "share")
    # Each under its own kind.
    with pytest.raises(UnknownPlugin, match="'files'"):
        plugin("storages", "files")


def test_a_pipeline_is_trained_and_served_by_a_framework_that_its_yaml_names(project, tables):
    """Its warning that another run may give another model is that of the training."""
    trained = project.run(TRAINING)
    assert trained.success, reasons(trained)
    check = outcomes(trained)["reproducible"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert "A time limit" in check.description
    [run] = project.mlflow_runs()
    assert run.data.params["framework"] == "shares"
    served = project.run(SERVING)
    assert served.success, reasons(served)
    [rows] = tables.scores().values()
    assert len(rows) == 60
    [share] = {row["prediction_probability"] for row in rows}
    positive, count = tables.execute("SELECT sum(churned), count(*) FROM customers")[0]
    assert share == pytest.approx(positive / count, abs=0.02)


def test_a_secret_that_the_provider_does_not_have_is_told_in_its_words(project):
    (project.root / "secrets" / "PG_PASSWORD").unlink()
    result = project.run(SERVING)
    assert f"secret 'PG_PASSWORD' is no file of {project.root / 'secrets'}" in reasons(result)


def test_validate_asks_the_plugins_and_warns_in_their_words(project):
    validate = ("validate", TRAINING, "--project-dir", str(project.root))
    right = call(*validate)
    assert right.exit_code == 0, right.output
    assert "seconds are a limit of time" in right.output
    project.change(TRAINING, training__model_training__config={"minutes": 3})
    project.change_target(secrets__config={"foldr": "secrets"})
    wrong = call(*validate)
    assert wrong.exit_code == 1
    for part in (
        "no such setting of shares",
        "training.model_training.config.minutes",
        "did you mean folder?",
    ):
        assert part in wrong.output


def test_debug_lists_the_plugins_and_asks_those_that_are_used(project):
    told = call("debug", "--project-dir", str(project.root)).output
    assert "\n  frameworks         h2o_automl, shares, sklearn\n" in told
    assert "\n  secrets providers  env, files\n" in told
    assert "framework          shares         ok" in told
    assert "shares 1.0" in told
    assert "secret             PG_PASSWORD    ok" in told


@pytest.mark.parametrize(
    ("kind", "why"), [("torn", "No module named 'their_storage'"), ("gone", "has no attribute 'Gone'")]
)
def test_a_plugin_that_cannot_be_loaded_is_told_with_its_line(project, kind, why):
    project.change_target(storage={"type": kind})
    ended = call("validate", TRAINING, "--project-dir", str(project.root))
    assert ended.exit_code == 1
    assert "profiles.yaml:" in ended.output
    assert f"{kind} cannot be loaded: " in ended.output
    assert why in ended.output
    assert "install what it needs" in ended.output
