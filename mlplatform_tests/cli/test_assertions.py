"""`mlplatform test`: assertions of a project about its compiled pipelines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlplatform.domain.batch.quantities import quantity
from mlplatform_tests.cli.projects import SERVING, TRAINING, call, make, replace


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    return make(tmp_path, monkeypatch)


def write(root: Path, assertion: str, name: str = TRAINING) -> Path:
    path = root / "tests" / f"{name}.test.yaml"
    path.write_text(f"pipeline: {name}\nassertions:\n  - {{{assertion}}}\n")
    return path


def ask_for(root: Path, resources: str) -> None:
    path = root / "pipelines" / f"{TRAINING}.yaml"
    replace(
        path, "    framework: h2o_automl\n", f"    framework: h2o_automl\n    resources: {{{resources}}}\n"
    )


@pytest.mark.parametrize(
    ("name", "assertion"),
    [
        (TRAINING, "type: step_exists, step: log_run"),
        (TRAINING, "type: step_absent, step: feature_selection"),
        (TRAINING, "type: step_order, before: load_data, after: log_run"),
        (SERVING, "type: step_order, before: load_model, after: publish"),
        (TRAINING, "type: step_count, min: 5, max: 5"),
        (TRAINING, "type: step_count"),
        (TRAINING, "type: resource_limit, step: train_model, memory_max: 8Gi, cpu_max: 2"),
        (TRAINING, "type: resource_limit, step: train_model, memory_max: 4096Mi, cpu_max: 1500m"),
    ],
)
def test_what_holds_passes(root, name, assertion):
    ask_for(root, "memory: 4Gi, cpu: 1.5")
    write(root, assertion, name)
    result = call("test", name)
    assert result.exit_code == 0, result.output
    assert f"tests/{name}.test.yaml: passed (1 of 1)\n" in result.stdout


@pytest.mark.parametrize(
    ("name", "assertion", "said"),
    [
        (
            TRAINING,
            "type: step_exists, step: train_modl",
            "has no step train_modl; did you mean train_model?",
        ),
        (TRAINING, "type: step_absent, step: evaluate", "has a step evaluate"),
        (
            TRAINING,
            "type: step_order, before: log_run, after: evaluate",
            "evaluate does not wait for log_run",
        ),
        # One line above the other in the graph, but neither waits.
        (SERVING, "type: step_order, before: load_scoring_data, after: load_model", "does not wait for"),
        (TRAINING, "type: step_order, before: publish, after: evaluate", "has no step publish"),
        (TRAINING, "type: step_count, min: 6", "has 5 steps, fewer than 6"),
        (TRAINING, "type: step_count, max: 4", "has 5 steps, more than 4"),
        (
            TRAINING,
            "type: resource_limit, step: train_model, memory_max: 3Gi",
            "asks for memory 4Gi, more than 3Gi",
        ),
        (
            TRAINING,
            "type: resource_limit, step: train_model, memory_max: 4G",
            "asks for memory 4Gi, more than 4G",
        ),
        (TRAINING, "type: resource_limit, step: train_model, cpu_max: 1", "asks for cpu 1500m, more than 1"),
        (TRAINING, "type: resource_limit, step: evaluate, cpu_max: 1", "evaluate asks for no cpu"),
    ],
)
def test_what_does_not_hold_fails_with_its_line(root, name, assertion, said):
    ask_for(root, "memory: 4Gi, cpu: 1500m")
    write(root, assertion, name)
    result = call("test", name)
    assert result.exit_code == 1
    assert f"tests/{name}.test.yaml: FAILED (0 of 1)\n" in result.stdout
    [line] = result.stderr.splitlines()
    assert line.startswith(f"tests/{name}.test.yaml:3: assertions[0]: ")
    assert said in line


@pytest.mark.parametrize(
    ("assertion", "said"),
    [
        ("type: step_exsts, step: evaluate", "there is no assertion 'step_exsts'; did you mean step_exists?"),
        ("step: evaluate", "type: is missing"),
        ("type: step_exists", "step: is missing"),
        ("type: step_exists, stp: evaluate", "stp: no such key; did you mean step?"),
        ("type: step_count, min: few", "min: "),
        ("type: resource_limit, step: train_model, memory_max: 4Gb", "memory_max: '4Gb' does not match"),
    ],
)
def test_an_assertion_that_cannot_be_read_fails_with_its_line(root, assertion, said):
    path = write(root, assertion)
    result = call("test")
    assert result.exit_code == 1
    assert f"{path.relative_to(root)}:3: " in result.stderr
    assert said in result.stderr


def test_a_pipeline_that_does_not_compile_fails_its_test(root):
    replace(root / "pipelines" / f"{TRAINING}.yaml", "problem_type: binary", "problem_type: bin")
    result = call("test")
    assert result.exit_code == 1
    assert f"pipelines/{TRAINING}.yaml:" in result.stderr


def test_a_file_that_is_named_for_another_pipeline_is_refused(root):
    path = write(root, "type: step_exists, step: evaluate")
    path.rename(path.with_name("training.test.yaml"))
    result = call("test")
    assert result.exit_code == 1
    assert f"tests/training.test.yaml:1: pipeline: is '{TRAINING}'" in result.stderr
    assert f"rename it to {TRAINING}.test.yaml" in result.stderr


def test_a_file_without_assertions_is_no_success(root):
    path = root / "tests" / f"{TRAINING}.test.yaml"
    path.write_text(f"pipeline: {TRAINING}\nassertions: []\n")
    assert call("test").exit_code == 1


def test_a_test_that_is_not_there_is_answered_with_those_that_are(root):
    result = call("test", SERVING)
    assert result.exit_code == 1
    assert f"there is no tests/{SERVING}.test.yaml: there are assertions of {TRAINING}" in result.stderr


def test_without_assertions_there_is_nothing_to_fail(root):
    (root / "tests" / f"{TRAINING}.test.yaml").unlink()
    result = call("test")
    assert result.exit_code == 0
    assert result.stdout == "No assertions: there is no tests/*.test.yaml.\n"


def test_the_tests_of_lib_are_left_to_pytest(root):
    assert "run `pytest lib`" in call("test").stdout


def test_nothing_is_written(root):
    call("test")
    assert not (root / "target").exists()


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", 1),
        ("500m", 0.5),
        ("1.5", 1.5),
        ("2k", 2000),
        ("1Ki", 1024),
        ("1.5Gi", 1.5 * 2**30),
        ("3E", 3e18),
    ],
)
def test_quantities_of_kubernetes(text, amount):
    assert quantity(text) == amount


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1gi", "-1", "1e3"])
def test_what_is_no_quantity(text):
    with pytest.raises(ValueError, match="is not an amount"):
        quantity(text)


def test_the_guide_s_example_holds(root):
    guide = Path(__file__).parents[2] / "docs" / "batch-pipelines.md"
    [example] = re.findall(r"```yaml\n(pipeline: .*?)```", guide.read_text(), re.DOTALL)
    ask_for(root, "memory: 8Gi")
    (root / "tests" / f"{TRAINING}.test.yaml").write_text(example)
    result = call("test")
    assert result.exit_code == 0, result.output
    assert "passed (5 of 5)" in result.stdout
