"""`mlplatform validate`, `compile` and `dag` on projects that `mlplatform init` made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlplatform.cli import pipelines
from mlplatform.domain.batch.manifest import Manifest
from mlplatform_tests.cli.projects import SERVING, TRAINING, call, make, replace

HEAVY = ("dagster", "h2o", "jpype", "mlflow", "numpy", "pandas", "pyarrow", "requests", "skops", "sklearn")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    return make(tmp_path, monkeypatch)


def pipeline(root: Path, name: str = TRAINING) -> Path:
    return root / "pipelines" / f"{name}.yaml"


def line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def test_a_valid_pipeline_is_told_as_the_seed_shows_it(root):
    result = call("validate", TRAINING)
    assert result.exit_code == 0
    assert result.stdout == f"Pipeline '{TRAINING}' is valid.\n"


def test_all_pipelines_are_validated_unless_some_are_named(root):
    result = call("validate")
    assert result.stdout == f"Pipeline '{SERVING}' is valid.\nPipeline '{TRAINING}' is valid.\n"


def test_every_problem_of_every_file_is_told_with_its_line(root):
    replace(pipeline(root), "primary_metric:", "primary_metrik:")
    replace(pipeline(root), "max_models: 10", "max_models: many")
    replace(pipeline(root, SERVING), "run_id: champion", 'run_id: "<run_id_from_mlflow>"')
    replace(root / "profiles.yaml", "type: local_file", "type: local_fil")
    result = call("validate")
    assert result.exit_code == 1
    assert result.stdout == ""
    for path, text, said in [
        (pipeline(root), "primary_metrik", "did you mean primary_metric?"),
        (pipeline(root), "max_models", "max_models"),
        (pipeline(root, SERVING), "<run_id_from_mlflow>", "champion"),
        (root / "profiles.yaml", "local_fil", "did you mean local_file?"),
    ]:
        place = f"{path.relative_to(root)}:{line_of(path, text)}: "
        [line] = [line for line in result.stderr.splitlines() if line.startswith(place)]
        assert said in line


def test_the_valid_ones_are_told_beside_the_problems_of_others(root):
    replace(pipeline(root, SERVING), "cadence: daily", "cadence: dayly")
    result = call("validate")
    assert result.exit_code == 1
    assert result.stdout == f"Pipeline '{TRAINING}' is valid.\n"
    assert "did you mean daily?" in result.stderr


def test_a_warning_does_not_fail(root):
    result = call("validate", TRAINING)
    assert result.exit_code == 0
    assert f"pipelines/{TRAINING}.yaml:" in result.stderr
    assert "warning: " in result.stderr
    assert "not reproducible" in result.stderr


def test_places_are_in_colour_on_a_terminal(root):
    from click.testing import CliRunner

    from mlplatform.cli.main import main

    replace(pipeline(root), "cadence: monthly", "cadence: montly")
    colored = CliRunner().invoke(main, ["validate", TRAINING], color=True)
    place = f"pipelines/{TRAINING}.yaml:{line_of(pipeline(root), 'montly')}"
    assert f"\x1b[31m\x1b[1m{place}\x1b[0m: deployment.cadence" in colored.stderr


def test_an_unknown_pipeline_is_answered_with_those_there_are(root):
    result = call("validate", "training_churn_model")
    assert result.exit_code == 1
    assert f"did you mean {TRAINING}?" in result.stderr


@pytest.mark.parametrize("command", [["validate"], ["compile"], ["test"]], ids=" ".join)
def test_a_folder_that_is_no_project_is_no_success(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    result = call(*command)
    assert result.exit_code == 1
    assert "neither profiles.yaml nor pipelines/" in result.stderr
    assert "mlplatform init" in result.stderr


@pytest.mark.parametrize("command", [["validate"], ["compile"], ["dag", TRAINING], ["test"]], ids=" ".join)
def test_a_project_can_be_named(root, monkeypatch, command):
    monkeypatch.chdir("/")
    result = call(*command, "--project-dir", str(root))
    assert result.exit_code == 0, result.output
    assert TRAINING in result.output


def test_variables_come_from_the_command_line(root):
    replace(pipeline(root), "owner: ds-team", "owner: \"{{ var('owner') }}\"")
    without = call("validate", TRAINING)
    assert without.exit_code == 1
    assert f"pipelines/{TRAINING}.yaml:{line_of(pipeline(root), 'var(')}" in without.stderr
    assert call("compile", TRAINING, "--vars", "owner=ann").exit_code == 0
    assert manifest(root).pipeline.project.owner == "ann"


def manifest(root: Path, name: str = TRAINING) -> Manifest:
    return Manifest.model_validate_json((root / "target" / name / "manifest.json").read_bytes())


def test_a_manifest_is_saved_where_the_seed_says(root):
    result = call("compile", TRAINING, "--target", "dev")
    assert result.exit_code == 0
    assert result.stdout == f"Manifest saved to target/{TRAINING}/manifest.json\n"
    assert list(manifest(root).steps) == ["load_data", "split_data", "train_model", "evaluate", "log_run"]
    assert manifest(root).metadata.target == "dev"


@pytest.mark.parametrize("names", [[], ["all"], [TRAINING, SERVING]], ids=["none", "all", "both"])
def test_all_pipelines_are_compiled(root, names):
    assert call("compile", *names).exit_code == 0
    assert {path.parent.name for path in root.glob("target/*/manifest.json")} == {TRAINING, SERVING}


def test_no_secret_is_in_a_manifest(root, monkeypatch):
    for name in ("S3_ACCESS_KEY", "S3_SECRET_KEY", "PG_PASSWORD"):
        monkeypatch.setenv(name, "canary-4711")
    result = call("compile", "all", "--target", "prod")
    assert result.exit_code == 0
    for path in root.glob("target/*/manifest.json"):
        text = path.read_text()
        assert "canary-4711" not in text
        assert json.loads(text)["profile_config"]["outputs"]["prod"]["storage"]["config"]["secret_key"] == (
            "{{ secret('S3_SECRET_KEY') }}"
        )


def test_a_wrong_pipeline_leaves_its_manifest_and_compiles_the_others(root):
    call("compile", TRAINING)
    before = (root / "target" / TRAINING / "manifest.json").read_bytes()
    replace(pipeline(root), "label_column: churned", "label_colum: churned")
    result = call("compile", "all")
    assert result.exit_code == 1
    assert "did you mean label_column?" in result.stderr
    assert (root / "target" / TRAINING / "manifest.json").read_bytes() == before
    assert manifest(root, SERVING).name == SERVING


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "manifest.json"
    pipelines.write_whole(path, "one")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(Exception, match="cannot be written: No space left on device"):
        pipelines.write_whole(path, "two")
    assert path.read_text() == "one"


def test_a_target_folder_that_cannot_be_written_is_named(root):
    (root / "target").write_text("a file")
    result = call("compile", TRAINING)
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_an_unknown_target_is_answered_with_those_there_are(root):
    result = call("compile", TRAINING, "--target", "prd")
    assert result.exit_code == 1
    assert "there are dev, prod" in result.stderr


def test_the_dag_is_shown_in_batches(root):
    result = call("dag", SERVING)
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["1", "load_scoring_data", "->", "scoring_data"],
        ["load_model", "->", "model,", "model_metadata"],
        ["2", "apply_transforms", "scoring_data,", "model", "->", "transformed_data,", "refused_rows"],
        ["3", "predict", "model,", "transformed_data", "->", "predictions"],
        ["4", "publish", "predictions,", "model_metadata", "->", "output"],
    ]
    assert result.stdout.startswith(f"{SERVING} (5 steps, target dev, daily)\n")


def test_the_dag_is_shown_as_a_flowchart(root):
    lines = call("dag", TRAINING, "--mermaid").stdout.splitlines()
    assert lines[0] == "flowchart LR"
    assert '    split_data -- "train_set" --> train_model' in lines
    assert '    train_model -- "model" --> evaluate' in lines
    assert len([line for line in lines if "-->" in line]) == sum(
        len(parents) for parents in compiled(TRAINING).dag.parent_map.values()
    )


def compiled(name: str) -> Manifest:
    call("compile", name)
    return manifest(Path.cwd(), name)


@pytest.mark.parametrize(
    "command", [["validate"], ["compile", "all"], ["test"], ["dag", TRAINING]], ids=" ".join
)
def test_nothing_heavy_is_imported(root, command):
    code = (
        "import json, sys\n"
        "from mlplatform.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    loaded = set(json.loads(ended.stdout.splitlines()[-1]))
    assert loaded & set(HEAVY) == set()
    assert "mlplatform.cli.demo" not in loaded
