"""`mlplatform debug`: what is installed, and what the profile's target can reach."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.cli.projects import load_project, project_options
from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    from mlplatform.domain.batch.problems import Problem
    from mlplatform.io.pipelines.project import Project

REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+).*;.*extra\s*==\s*['\"]([^'\"]+)['\"]")


@click.command()
@project_options
def debug(project_dir: Path, target: str | None, variables: Mapping[str, str]) -> None:
    """Say what is installed, which plugins there are, and whether the target's servers answer.

    Secrets are told as set or not set, never their values. Exit code 0: what the target and the pipelines
    need is there. 1: something is missing.

    \b
    Examples:
      mlplatform debug
      mlplatform debug --target prod
    """
    version = importlib.metadata.version("mlplatform")
    click.echo(f"mlplatform {version}, Python {platform.python_version()} on {platform.platform()}")
    click.secho("\nExtras", bold=True)
    for extra, missing in extras().items():
        told = f"without {', '.join(missing)}: pip install 'mlplatform[{extra}]'" if missing else "installed"
        click.echo(f"  {extra:<18} {told}")
    click.secho("\nPlugins", bold=True)
    for kind, names in _plugins().items():
        click.echo(f"  {kind:<18} {', '.join(names)}")
    click.echo()
    with readable_errors():
        project = load_project(project_dir, target, variables)
        if not (project.root / "profiles.yaml").exists():
            click.echo(f"No project in {project.root}: there is no profiles.yaml.")
            return
        if not all([_pipelines(project), _target(project)]):
            sys.exit(1)


def extras() -> dict[str, list[str]]:
    """The packages of each extra that are not installed."""
    found: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("mlplatform") or []:
        if asked := REQUIREMENT.match(requirement):
            package, extra = asked.groups()
            missing = found.setdefault(extra, [])
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                missing.append(package)
    return dict(sorted(found.items()))


def _plugins() -> dict[str, list[str]]:
    from mlplatform.io.plugins import Kind, names

    return {kind.replace("_", " "): names(kind) for kind in get_args(Kind)}


def _pipelines(project: Project) -> bool:
    problems = project.validate()
    click.secho(f"Project {project.root}", bold=True)
    click.echo(f"  {'pipelines':<18} {', '.join(project.names()) or 'none'}")
    if problems:
        click.secho(f"  {_count(problems)}: see `mlplatform validate`", fg="red")
    return not problems


def _count(problems: list[Problem]) -> str:
    return f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"


def _target(project: Project) -> bool:
    outputs = project.profile.outputs
    chosen = outputs[project.target]
    click.echo(
        f"  {'target':<18} {project.target} (of {', '.join(outputs)}), executor {chosen.executor.type}\n"
    )
    click.secho(f"Target {project.target}", bold=True)
    checks = list(_checks(project))
    # Side by side: a server that is down takes seconds to say so.
    with ThreadPoolExecutor(len(checks)) as pool:
        outcomes = [pool.submit(_outcome, check) for _, _, check in checks]
        for (label, name, _), outcome in zip(checks, outcomes, strict=True):
            passed, seconds, said = outcome.result()
            state = click.style("ok    ", fg="green") if passed else click.style("FAILED", fg="red")
            line = f"  {label:<18} {name:<14} {state} {seconds:5.1f} s  {project.plugins.redact(said)}"
            click.echo(line.rstrip())
    return all(outcome.result()[0] for outcome in outcomes)


def _outcome(check: Callable[[], str | None]) -> tuple[bool, float, str]:
    """Whether the check passed, its seconds, and what it said."""
    began = time.monotonic()
    try:
        passed, said = True, check() or ""
    except Exception as error:
        # Whatever a plugin raises is what this command is there to show.
        kind = "" if isinstance(error, PlatformError) else f"{type(error).__name__}: "
        passed, said = False, f"{kind}{error}"
    return passed, time.monotonic() - began, " ".join(said.split())


def _checks(project: Project) -> Iterator[tuple[str, str, Callable[[], str | None]]]:
    """What is asked, the plugin's name, and the check itself, which raises or says how it went."""
    from mlplatform.io.pipelines.secrets import names_in
    from mlplatform.io.plugins import plugin

    target, plugins = project.profile.outputs[project.target], project.plugins

    def secret(name: str) -> str:
        plugins.secret(name)
        return "set"

    for name in sorted(names_in(target.model_dump(mode="json"))):
        yield "secret", name, partial(secret, name)
    yield "data connector", target.data_connector.type, lambda: plugins.connector.check()
    yield "storage", target.storage.type, lambda: plugins.storage.check()
    registries, frameworks = _named(project)
    for name in registries:
        yield "model registry", name, lambda name=name: plugins.registry(name).check()
    for name in frameworks:
        yield "framework", name, lambda name=name: plugin("frameworks", name)().check(plugins.h2o_url)


def _named(project: Project) -> tuple[list[str], list[str]]:
    """The registries and frameworks that the pipelines name: of those that are wrong, `validate` tells."""
    from mlplatform.domain.batch.problems import InvalidProject

    registries, frameworks = set(), set()
    for name in project.names():
        try:
            pipeline = project.pipeline(name)
        except InvalidProject:
            continue
        registries.add(pipeline.serving.model_source.registry if pipeline.serving else "mlflow")
        frameworks.add(pipeline.training.model_training.framework)
    return sorted(registries), sorted(frameworks)
