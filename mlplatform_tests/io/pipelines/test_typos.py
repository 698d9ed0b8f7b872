"""A typo in every key, at every level, of every file; and nonsense in place of every value."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.domain.batch.problems import InvalidProject, dotted
from mlplatform_tests.io.pipelines.folders import (
    EVERYTHING,
    MINIMAL,
    SEED,
    Scalar,
    load,
    project_of,
    scalars,
    seed_with_run_id,
)

FILES = sorted(
    path.relative_to(root.parent).as_posix() for root in (SEED, EVERYTHING) for path in root.rglob("*.yaml")
)
# Blocks whose keys are anybody's: a transform's arguments, variables of the environment; profiles by name.
FREE = {"cap", "TZ", "demo-project", "everything", "dev", "prod", "there"}
TYPOS = {
    "dropped": lambda word: word[:-2] + word[-1],
    "doubled": lambda word: word + word[-1],
    "swapped": lambda word: word[0] + word[2] + word[1] + word[3:],
    "capital": lambda word: word[0].upper() + word[1:],
}


@pytest.fixture(scope="module")
def projects(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("projects")
    seed_with_run_id(folder / "seed")
    shutil.copytree(EVERYTHING, folder / "everything")
    return folder


def is_a_plugins_own(path: tuple) -> bool:
    """Keys that the plugin checks when it is made, and the one without which a framework is at a loss."""
    by_plugin = "config" in path[:-1] and bool({"storage", "data_connector", "secrets"} & set(path))
    return by_plugin or path[-2:] == ("config", "model")


def affected(file: str) -> list[str]:
    """The pipelines to look at when a file changed: itself, or the one that is made of it."""
    if file == "profiles.yaml":
        return []
    return ["serving_everything"] if "_base" in file or "parts" in file else [Path(file).stem]


@pytest.mark.parametrize("file", FILES)
def test_the_files_are_right_as_they_are(projects, file) -> None:
    assert load(projects / file.split("/")[0]).validate() == []


@pytest.mark.parametrize("kind", TYPOS)
@pytest.mark.parametrize("file", FILES)
def test_a_typo_in_any_key_is_found_and_mended(projects, file, kind) -> None:
    path = projects / file
    project, _, name = file.partition("/")
    original = path.read_text()
    tried = 0
    for key in scalars(original):
        if not key.is_key or key.text in FREE or is_a_plugins_own(key.path) or len(key.text) < 3:
            continue
        wrong = TYPOS[kind](key.text)
        if wrong == key.text:
            continue
        path.write_text(original[: key.start] + wrong + original[key.end :])
        try:
            problems = load(projects / project).validate(affected(name))
        finally:
            path.write_text(original)
        expected = dotted((*key.path[:-1], wrong))
        # Included files are told by where they are included.
        found = [each for each in problems if each.path.endswith(expected) and each.line == key.line]
        assert [each.file for each in found] == [name], (key, problems)
        # A plugin's own message has its suggestion in it.
        assert f"did you mean {key.text}?" in str(found[0]), found
        tried += 1
    assert tried >= 4


@pytest.mark.parametrize(
    "nonsense", ["{a: b}", "[[1]]", "nonsense of a kind", "-7", "true", "", "!!binary aaa"]
)
@pytest.mark.parametrize("file", FILES)
def test_nonsense_for_any_value_is_told_with_its_line_or_means_something(projects, file, nonsense) -> None:
    path = projects / file
    project, _, name = file.partition("/")
    original = path.read_text()
    wrong_lines = 0
    for value in scalars(original):
        if value.is_key or is_a_plugins_own(value.path):
            continue
        path.write_text(original[: value.start] + nonsense + original[value.end :])
        try:
            problems = load(projects / project).validate(affected(name))
        finally:
            path.write_text(original)
        assert all((each.line and each.path) or "is no YAML" in each.message for each in problems), problems
        wrong_lines += any(each.line == value.line and each.file == name for each in problems)
    assert wrong_lines >= 2 or nonsense in ("nonsense of a kind", "", "true", "-7")


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.sampled_from("abc:-[]{}#&*!|>'\"%@`\n\t ,?{{}}0.1~<\u00e9\x00"), max_size=60))
def test_no_text_breaks_the_reader(tmp_path, text) -> None:
    project = project_of(tmp_path, text)
    with pytest.raises(InvalidProject) as told:
        project.pipeline("small")
    assert all(each.file == "pipelines/small.yaml" for each in told.value.problems)


LINES = MINIMAL.strip().splitlines()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(LINES) - 1), st.integers(0, 70), st.sampled_from("\t:{}[],'\"&*-! #{{\x07"))
def test_no_character_anywhere_breaks_the_reader(tmp_path, line, column, character) -> None:
    lines = list(LINES)
    lines[line] = lines[line][:column] + character + lines[line][column:]
    for problem in project_of(tmp_path, "\n".join(lines)).validate():
        assert problem.file == "pipelines/small.yaml"
        assert problem.message


def test_scalars_are_where_they_are_said_to_be() -> None:
    found = list(scalars("a:\n  b: [1, 'x']\n"))
    assert found[0] == Scalar(("a",), "a", 1, 0, 1, True)
    assert found[-1] == Scalar(("a", "b", 1), "x", 2, 12, 15, False)
