"""`mlplatform init`: each template is a project that validates, compiles and passes its own tests."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import mlplatform
from mlplatform_tests.cli.projects import SERVING, TRAINING, call, make

EVERYWHERE = {
    "definitions.py",
    ".dockerignore",
    ".gitignore",
    ".schemas/pipeline.schema.json",
    ".schemas/profiles.schema.json",
    ".woodpecker.yml",
    "Dockerfile",
    "README.md",
    "profiles.yaml",
    "wheels/.gitkeep",
}


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_project_has_both_pipelines_of_the_seed_and_what_surrounds_them(tmp_path, monkeypatch):
    root = make(tmp_path, monkeypatch)
    assert files(root) == EVERYWHERE | {
        f"pipelines/{TRAINING}.yaml",
        f"pipelines/{SERVING}.yaml",
        f"tests/{TRAINING}.test.yaml",
        "lib/charges.py",
        "lib/test_charges.py",
        "sample_data/customers.csv",
        "sample_data/customers_to_score.csv",
    }
    assert list(yaml.safe_load((root / "profiles.yaml").read_text())) == ["demo-project"]
    assert "# demo-project" in (root / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "pipelines"),
    [
        ([], [SERVING, TRAINING]),
        (
            ["--template", "typical-ds-pipeline", "--customers", "60", "--features", "10"],
            ["serving_churn_features_v1", "training_churn_features_v1"],
        ),
    ],
    ids=["basic", "typical-ds-pipeline"],
)
@pytest.mark.parametrize("target", ["dev", "prod"])
def test_a_new_project_is_valid_compiles_and_passes_its_tests(
    tmp_path, monkeypatch, options, pipelines, target
):
    root = make(tmp_path, monkeypatch, *options)
    validated = call("validate", "--target", target)
    assert validated.exit_code == 0, validated.output
    for name in pipelines:
        assert f"Pipeline '{name}' is valid.\n" in validated.stdout
    assert call("compile", "all", "--target", target).exit_code == 0
    assert {path.parent.name for path in root.glob("target/*/manifest.json")} == set(pipelines)
    assert call("test", "--target", target).exit_code == 0
    dags = call("generate-dags", "--target", target, "--output", "dags")
    assert dags.exit_code == 0, dags.output


def test_an_empty_project_has_nothing_to_validate(tmp_path, monkeypatch):
    root = make(tmp_path, monkeypatch, "--template", "empty")
    assert files(root) == EVERYWHERE | {"pipelines/.gitkeep", "sample_data/.gitkeep"}
    result = call("validate")
    assert (result.exit_code, result.output) == (0, "No pipelines to validate.\n")
    assert call("compile").output == "No pipelines to compile.\n"


def test_the_sample_is_every_telco_customer_once(tmp_path, monkeypatch):
    root = make(tmp_path, monkeypatch)
    source = rows(Path(mlplatform.__file__).parent / "defs" / "churn" / "data" / "telco_churn.csv")
    known = rows(root / "sample_data" / "customers.csv")
    new = rows(root / "sample_data" / "customers_to_score.csv")
    assert len(source) == 7043
    assert sorted(row["customer_id"] for row in known + new) == sorted(row["customer_id"] for row in source)
    assert 0.17 < len(new) / len(source) < 0.23
    assert "churned" in known[0]
    assert "churned" not in new[0]
    charges = {row["customer_id"]: row["total_charges"] for row in known + new}
    assert [charges[row["customer_id"]] for row in source] == [row["total_charges"] or "0" for row in source]


def test_made_up_tables_fit_together(tmp_path, monkeypatch):
    options = ["--template", "typical-ds-pipeline", "--customers", "200", "--features", "60"]
    root = make(tmp_path, monkeypatch, *options)
    labels, a, b, new = (
        rows(root / "sample_data" / f"{name}.csv")
        for name in ("labels", "features_a", "features_b", "customers_to_score")
    )

    def keys(table: list[dict[str, str]]) -> list[tuple[str, str]]:
        return [(row["customer_id"], row["snapshot_date"]) for row in table]

    assert len(labels) == 200 * 6
    assert len(new) == 200
    assert keys(labels) + keys(new) == keys(a) == keys(b)
    assert len(set(keys(a))) == len(a)
    assert sum(row["is_churn"] == "1" for row in labels) == 240
    features = [name for name in b[0] if name.startswith("feature_")]
    assert len(features) == 60
    assert any(len({row[name] for row in b} - {""}) == 1 for name in features)
    missing = sum(row[name] == "" for row in b for name in features) / (len(b) * 60)
    assert 0.14 < missing < 0.16
    assert sum(row["discount"] == "" for row in a) / len(a) > 0.9
    again = make_again(tmp_path, monkeypatch, options)
    assert (again / "sample_data" / "features_b.csv").read_bytes() == (
        root / "sample_data" / "features_b.csv"
    ).read_bytes()


def make_again(folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> Path:
    (folder / "again").mkdir()
    return make(folder / "again", monkeypatch, *options)


def test_the_tests_of_lib_pass(tmp_path, monkeypatch):
    root = make(tmp_path, monkeypatch)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "lib"]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_transform_of_lib_can_be_named_as_the_comment_shows(tmp_path, monkeypatch):
    root = make(tmp_path, monkeypatch)
    path = root / "pipelines" / f"{TRAINING}.yaml"
    text = path.read_text()
    commented = re.search(r"(  # preprocessing:\n(?:  #.*\n)+)", text)
    assert commented
    path.write_text(text.replace(commented[1], commented[1].replace("  # ", "  ")))
    assert yaml.safe_load(path.read_text())["training"]["preprocessing"]["custom"]
    result = call("validate", TRAINING)
    assert result.exit_code == 0, result.output


def test_each_yaml_names_its_schema_and_keeps_to_it(tmp_path, monkeypatch):
    root = make(tmp_path, monkeypatch)
    for path in [root / "profiles.yaml", *root.glob("pipelines/*.yaml")]:
        first = path.read_text().splitlines()[0]
        named = first.removeprefix("# yaml-language-server: $schema=")
        assert named != first
        schema = json.loads((path.parent / named).read_text())
        assert schema["$schema"].startswith("http://json-schema.org/")


def test_ci_fails_where_a_command_fails_and_builds_the_image_after_the_manifests(tmp_path, monkeypatch):
    steps = yaml.safe_load((make(tmp_path, monkeypatch) / ".woodpecker.yml").read_text())["steps"]
    order = list(steps)
    assert set(order) == {"validate", "build-image", "compile", "generate-dags", "deploy-dags"}
    assert order.index("compile") < order.index("build-image")
    assert order.index("generate-dags") < order.index("deploy-dags")
    # No loop and no `||`: the exit code of each command is that of the step.
    commands = [command for step in steps.values() for command in step.get("commands", [])]
    assert commands
    for command in commands:
        assert not re.search(r"\|\||;|&&|\bfor\b|\n", command), command


def test_the_image_has_no_compiler_no_root_and_this_version(tmp_path, monkeypatch):
    text = (make(tmp_path, monkeypatch) / "Dockerfile").read_text()
    assert "apt-get" not in text
    assert text.index("USER runner") < text.index("ENTRYPOINT")
    project = tomllib.loads((Path(mlplatform.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    asked = re.search(r'"mlplatform\[([a-z0-9,]+)\]==([^"]+)"', text)
    assert asked
    assert set(asked[1].split(",")) <= set(project["optional-dependencies"])
    assert asked[2] == project["version"]


def test_nothing_is_overwritten(tmp_path, monkeypatch):
    root = make(tmp_path, monkeypatch, "--template", "empty")
    (root / "profiles.yaml").write_text("mine")
    (root / "Dockerfile").unlink()
    result = call("init", str(root))
    assert result.exit_code == 1
    assert "nothing was written" in result.output
    assert "already" in result.output
    assert (root / "profiles.yaml").read_text() == "mine"
    assert not (root / "Dockerfile").exists()


def test_a_folder_with_other_files_can_become_a_project(tmp_path, monkeypatch):
    (tmp_path / "cloned").mkdir()
    monkeypatch.chdir(tmp_path / "cloned")
    Path("LICENSE").write_text("ours")
    result = call("init", ".", "--template", "empty")
    assert result.exit_code == 0, result.output
    assert "  cd " not in result.output
    assert list(yaml.safe_load(Path("profiles.yaml").read_text())) == ["cloned"]
    assert Path("LICENSE").read_text() == "ours"


def test_what_to_do_next_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = call("init", "demo-project").output.splitlines()
    assert "  cd demo-project" in lines
    assert f"  mlplatform run --select {TRAINING}" in lines


@pytest.mark.parametrize("name", ["a b", "-x", "ünï"])
def test_a_name_that_no_profile_can_have_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    result = call("init", "--", name)
    assert result.exit_code == 2
    assert "letters, digits" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    result = call("init", "file/demo")
    assert result.exit_code == 1
    assert "cannot be written" in result.output
