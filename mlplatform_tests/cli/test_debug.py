"""`mlplatform debug`: what is installed, and what a target reaches or does not."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import pytest

from mlplatform.cli.debug import extras
from mlplatform_tests.cli.projects import TRAINING, call, make, replace

SKLEARN = "    framework: sklearn\n    config:\n      model: LogisticRegression\n"
LOCAL_FILES = """        type: local_file
        config:
          data_path: ./sample_data
"""
# Nothing listens on port 9.
DATABASE = """        type: postgres
        config: {host: 127.0.0.1, port: 9, database: none, user: none, password: "{{ secret('SET') }}"}
"""
# SQLAlchemy 2.1 deprecates what MLflow 3.17 uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A project whose pipelines are scikit-learn's, and whose store of MLflow is there: it takes seconds."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        root = make(tmp_path_factory.mktemp("made"), monkeypatch)
        path = root / "pipelines" / f"{TRAINING}.yaml"
        text = path.read_text()
        start, end = text.index("    framework:"), text.index("  evaluation:")
        path.write_text(text[:start] + SKLEARN + "\n" + text[end:])
        (root / "pipelines" / "serving_churn_model_v1.yaml").unlink()
        call("debug")
    return root


@pytest.fixture
def root(made, tmp_path, monkeypatch) -> Path:
    root = tmp_path / "demo-project"
    shutil.copytree(made, root)
    monkeypatch.chdir(root)
    return root


def lines(output: str) -> dict[str, str]:
    """What is said of each check, by `kind name`."""
    told = output.partition("\nTarget ")[2].splitlines()[1:]
    return {" ".join(line[2:36].split()): line for line in told}


def test_a_project_that_has_all_it_needs_is_a_success(root):
    result = call("debug")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"mlplatform {importlib.metadata.version('mlplatform')}, Python 3.11.")
    for extra in ("batch", "h2o", "mlflow"):
        assert f"\n  {extra:<18} installed\n" in result.output
    assert "\n  data connectors    local_file, postgres\n" in result.output
    assert "\n  frameworks         h2o_automl, sklearn\n" in result.output
    assert f"\n  pipelines          {TRAINING}\n" in result.output
    assert "\n  target             dev (of dev, prod), executor local\n" in result.output
    told = lines(result.stdout)
    assert set(told) == {
        "data connector local_file",
        "storage local",
        "model registry mlflow",
        "framework sklearn",
    }
    for line in told.values():
        assert line[36:42].strip() == "ok", line
        assert " s" in line


def test_what_cannot_be_reached_is_told_with_its_reason_and_no_secret(root, monkeypatch):
    replace(root / "profiles.yaml", LOCAL_FILES, DATABASE)
    monkeypatch.setenv("SET", "canary-4711")
    monkeypatch.delenv("NOT_SET", raising=False)
    result = call("debug")
    assert result.exit_code == 1
    assert "canary-4711" not in result.output
    told = lines(result.stdout)
    assert "FAILED" in told["data connector postgres"]
    assert "127.0.0.1:9" in told["data connector postgres"]
    assert "ok" in told["secret SET"]
    assert told["secret SET"].endswith("  set")
    assert "ok" in told["storage local"]


def test_a_secret_that_is_not_set_is_told_beside_what_needs_it(root, monkeypatch):
    replace(root / "profiles.yaml", LOCAL_FILES, DATABASE.replace("'SET'", "'NOT_SET'"))
    monkeypatch.delenv("NOT_SET", raising=False)
    result = call("debug")
    assert result.exit_code == 1
    told = lines(result.stdout)
    for name in ("secret NOT_SET", "data connector postgres"):
        assert "FAILED" in told[name]
        assert "'NOT_SET' is not set" in told[name]


def test_a_secret_that_a_plugin_puts_into_its_error_is_not_shown(root, monkeypatch):
    from mlplatform.io.plugins.storages.local import LocalStorage

    replace(root / "profiles.yaml", "./local_artifacts", "\"{{ secret('FOLDER') }}\"")
    monkeypatch.setenv("FOLDER", "canary-4711")

    def check(self: LocalStorage) -> None:
        raise RuntimeError("cannot write\n  canary-4711")

    monkeypatch.setattr(LocalStorage, "check", check)
    result = call("debug")
    assert result.exit_code == 1
    assert "FAILED" in lines(result.stdout)["storage local"]
    assert "RuntimeError: cannot write ***" in result.output
    assert "canary-4711" not in result.output


def test_problems_of_the_pipelines_fail_it_and_the_rest_is_checked_all_the_same(root):
    replace(root / "pipelines" / f"{TRAINING}.yaml", "cadence: monthly", "cadence: montly")
    result = call("debug")
    assert result.exit_code == 1
    assert "1 problem: see `mlplatform validate`" in result.output
    assert "ok" in lines(result.stdout)["storage local"]


def test_a_wrong_profile_is_told_with_its_line(root):
    replace(root / "profiles.yaml", "type: local_file", "type: local_fil")
    result = call("debug")
    assert result.exit_code == 1
    assert "profiles.yaml:" in result.stderr
    assert "did you mean local_file?" in result.stderr


def test_without_a_project_only_the_installation_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("debug")
    assert result.exit_code == 0
    assert "Plugins" in result.output
    assert "there is no profiles.yaml" in result.output


def test_an_extra_that_is_not_installed_is_told_with_its_remedy(monkeypatch, tmp_path):
    requirements = [
        "click>=8.1",
        'no-such-package-4711>=1; extra == "h2o"',
        'click>=8.1; extra == "h2o"',
        "pytest>=1; extra == 'dev'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: requirements)
    assert extras() == {"dev": [], "h2o": ["no-such-package-4711"]}
    monkeypatch.chdir(tmp_path)
    assert "without no-such-package-4711: pip install 'mlplatform[h2o]'" in call("debug").output
