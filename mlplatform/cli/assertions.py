"""`mlplatform test`: what a project asserts of its compiled pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlplatform.cli.errors import ProblemsFound, readable_errors
from mlplatform.cli.pipelines import require_project
from mlplatform.cli.projects import load_project, project_options

if TYPE_CHECKING:
    from mlplatform.domain.batch.assertions import Assertion
    from mlplatform.domain.batch.problems import Problem
    from mlplatform.io.pipelines.files import Node
    from mlplatform.io.pipelines.project import Project

TESTS, SUFFIX = "tests", ".test.yaml"


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@project_options
def test(names: tuple[str, ...], project_dir: Path, target: str | None, variables: Mapping[str, str]) -> None:
    """Compile pipelines and hold them to tests/<pipeline>.test.yaml; nothing is run or connected to.

    Such a file names its pipeline and lists assertions of the types step_exists, step_absent (step),
    step_order (before, after), step_count (min, max) and resource_limit (step, cpu_max, memory_max).
    Tests of the code in lib/ are pytest's. Exit code 0: all hold. 1: one does not.

    \b
    Examples:
      mlplatform test
      mlplatform test training_churn_model_v1 --target prod
      pytest lib
    """
    with readable_errors():
        project = load_project(project_dir, target, variables)
        problems, held = [], 0
        paths = _paths(project, names)
        for path in paths:
            wrong, count = _run(project, path)
            problems += wrong
            held += count
            outcome = "FAILED" if wrong else "passed"
            click.echo(f"{path.relative_to(project.root)}: {outcome} ({count} of {count + len(wrong)})")
        if any((project.root / "lib").glob("*.py")) and paths:
            click.echo("Tests of lib/ are pytest's: run `pytest lib`.")
        if problems:
            raise ProblemsFound(problems)
        if not paths:
            require_project(project)
            click.echo(f"No assertions: there is no {TESTS}/*{SUFFIX}.")


def _paths(project: Project, names: tuple[str, ...]) -> list[Path]:
    folder = project.root / TESTS
    if not names:
        return sorted(folder.glob(f"*{SUFFIX}"))
    paths = [folder / f"{name}{SUFFIX}" for name in names]
    for path in paths:
        if not path.is_file():
            there = ", ".join(p.name.removesuffix(SUFFIX) for p in sorted(folder.glob(f"*{SUFFIX}")))
            raise click.ClickException(
                f"there is no {TESTS}/{path.name}: there are assertions of {there or 'no pipeline'}"
            )
    return paths


def _run(project: Project, path: Path) -> tuple[list[Problem], int]:
    """What is wrong with a file or does not hold, and how many assertions hold."""
    from mlplatform.domain.batch.assertions import AssertionFile
    from mlplatform.domain.batch.problems import InvalidProject
    from mlplatform.io.pipelines.files import read
    from mlplatform.io.pipelines.structure import read_as

    try:
        node = read(project.root, path)
        outcome = read_as(AssertionFile, node)
        if outcome.problems or outcome.model is None:
            return outcome.problems, 0
        name = outcome.model.pipeline
        if path.name != f"{name}{SUFFIX}":
            place = node.nearest(("pipeline",))[0].place
            message = f"is {name!r}, but the file is {path.name}"
            return [place.problem("pipeline", message, f"rename it to {name}{SUFFIX}")], 0
        manifest = project.compile(name)
    except InvalidProject as error:
        return error.problems, 0
    problems, held = [], 0
    for index in range(len(outcome.model.assertions)):
        below = node.nearest(("assertions", index))[0]
        assertion, wrong = _assertion(below)
        problems += wrong
        if assertion is not None:
            reason = assertion.failure(manifest)
            if reason:
                problems.append(below.place.problem(f"assertions[{index}]", f"{assertion.type}: {reason}"))
            held += reason is None
    return problems, held


def _assertion(node: Node) -> tuple[Assertion | None, list[Problem]]:
    from mlplatform.domain.batch.assertions import ASSERTIONS
    from mlplatform.domain.batch.problems import did_you_mean
    from mlplatform.io.pipelines.structure import read_as

    kind = node.child("type")
    if kind is None:
        return None, [node.place.problem("type", "is missing", f"there are {', '.join(ASSERTIONS)}")]
    if kind.value not in ASSERTIONS:
        hint = did_you_mean(kind.value, ASSERTIONS) or f"there are {', '.join(ASSERTIONS)}"
        return None, [kind.place.problem("type", f"there is no assertion {kind.value!r}", hint)]
    outcome = read_as(ASSERTIONS[kind.value], node)
    return (None, outcome.problems) if outcome.problems else (outcome.model, [])
