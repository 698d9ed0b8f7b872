"""Where `step execute` finds the manifest that it runs from."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlplatform.cli.main import main
from mlplatform_tests.cli.projects import TRAINING


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PG_PASSWORD", "set")
    assert invoke("init", "demo-project").exit_code == 0
    monkeypatch.chdir(tmp_path / "demo-project")
    return tmp_path / "demo-project"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def load_data(*options: str) -> Result:
    return invoke(
        "step", "execute", "--pipeline", TRAINING, "--step", "load_data", "--run-id", "run_1", *options
    )


def test_without_a_manifest_it_says_how_to_make_one(project: Path):
    result = load_data()
    assert result.exit_code == 1
    assert f"target/{TRAINING}/manifest.json: there is no such manifest" in result.output
    assert f"mlplatform compile {TRAINING} --target dev" in result.output


def test_a_step_needs_the_manifest_and_not_the_pipeline(project: Path):
    assert invoke("compile", TRAINING).exit_code == 0
    (project / "pipelines" / f"{TRAINING}.yaml").unlink()
    result = load_data()
    assert result.exit_code == 0, result.output
    assert (project / "local_artifacts/run_1/load_data/raw_data").is_file()


def test_an_uploaded_manifest_is_found_in_the_storage(project: Path):
    uploaded = invoke("compile", TRAINING, "--upload")
    assert f"local_artifacts/manifests/dev/{TRAINING}.json" in uploaded.output
    (project / f"target/{TRAINING}/manifest.json").unlink()
    assert load_data().exit_code == 0


def test_a_manifest_for_another_target_is_refused(project: Path):
    assert invoke("compile", TRAINING).exit_code == 0
    result = load_data("--target", "prod")
    assert result.exit_code == 1
    assert "is compiled for the target dev, not prod" in result.output


def test_a_torn_manifest_is_refused(project: Path):
    assert invoke("compile", TRAINING).exit_code == 0
    path = project / f"target/{TRAINING}/manifest.json"
    path.write_text(path.read_text()[:500])
    result = load_data()
    assert result.exit_code == 1
    assert "is no manifest of this version" in result.output
