"""Where `step execute` finds the manifest that it runs from."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlplatform.cli.main import main
from mlplatform.io.artifacts import REGISTRY
from mlplatform_tests import batch_projects
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


def test_a_pod_that_has_nothing_but_the_profile_finds_its_manifest_on_s3(
    stack, tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What the step has made is there too, where the next pod looks for it."""
    for name, value in {**stack.variables, "MLPLATFORM_S3_PREFIX": tables.schema}.items():
        monkeypatch.setenv(name, value)
    made = batch_projects.make(
        tmp_path / "built", stack.variables, tables, "sqlite:///unused.db", storage={"type": "s3"}
    )
    name = batch_projects.TRAINING
    bare = tmp_path / "pod"
    bare.mkdir()
    shutil.copy(made.root / "profiles.yaml", bare)
    step = ("step", "execute", "--pipeline", name, "--run-id", "run_1", "--project-dir", str(bare))
    missing = invoke(*step, "--step", "load_data")
    assert missing.exit_code == 1
    assert "there is no such manifest, nor s3://" in missing.output
    assert f"mlplatform compile {name} --target here`, with --upload for the storage" in missing.output

    uploaded = invoke("compile", name, "--upload", "--project-dir", str(made.root))
    key = f"{tables.schema}/artifacts/manifests/here/{name}.json"
    assert re.search(f"Manifest uploaded to s3://[^/ ]+/{key}\n", uploaded.output), uploaded.output
    for each in ("load_data", "split_data"):
        ended = invoke(*step, "--step", each)
        assert ended.exit_code == 0, ended.output
    assert re.search(
        f"train_set: s3://[^/ ]+/{tables.schema}/artifacts/run_1/split_data/train_set ", ended.output
    )
    storage = made.with_variables(MLPLATFORM_S3_PREFIX=tables.schema).load().plugins.storage
    with storage.open(storage.uri(f"run_1/{REGISTRY}")) as file:
        registry = json.load(file)
    assert registry == {
        artefact: storage.uri(f"run_1/{each}/{artefact}")
        for each, artefact in (
            ("load_data", "raw_data"),
            ("split_data", "test_set"),
            ("split_data", "train_set"),
        )
    }
    assert [path.name for path in bare.iterdir()] == ["profiles.yaml"]


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
