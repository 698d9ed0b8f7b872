"""`mlplatform debug`: what is installed, and what the profile's target can reach."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.cli.projects import load_project, project_options

if TYPE_CHECKING:
    from mlplatform.domain.batch.problems import Problem
    from mlplatform.io.pipelines.project import Project
    from mlplatform.io.plugins.secrets_providers import SecretsProvider

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
    reachable = Reachable(project)
    checks = list(reachable.checks())
    # Side by side: a server that is down takes seconds to say so.
    with ThreadPoolExecutor(len(checks)) as pool:
        outcomes = [pool.submit(_outcome, check) for _, _, check in checks]
        for (label, name, _), outcome in zip(checks, outcomes, strict=True):
            passed, seconds, said = outcome.result()
            state = click.style("ok    ", fg="green") if passed else click.style("FAILED", fg="red")
            line = f"  {label:<18} {name:<14} {state} {seconds:5.1f} s  {reachable.redacted(said)}"
            click.echo(line.rstrip())
    return all(outcome.result()[0] for outcome in outcomes)


def _outcome(check: Callable[[], str | None]) -> tuple[bool, float, str]:
    """Whether the check passed, its seconds, and what it said."""
    began = time.monotonic()
    try:
        passed, said = True, check() or ""
    except Exception as error:
        # Whatever a plugin raises is what this command is there to show.
        kind = "" if _is_told(error) else f"{type(error).__name__}: "
        passed, said = False, f"{kind}{error}"
    return passed, time.monotonic() - began, " ".join(said.split())


def _is_told(error: Exception) -> bool:
    """Whether the error names what is wrong and the remedy by itself."""
    from mlplatform.io.plugins import UnknownPlugin
    from mlplatform.io.plugins.data_connectors import DataError
    from mlplatform.io.plugins.frameworks import FrameworkError
    from mlplatform.io.plugins.model_registries import RegistryError
    from mlplatform.io.plugins.secrets_providers import SecretMissing
    from mlplatform.io.plugins.storages import StorageError
    from mlplatform.settings import ConfigurationError

    told = (UnknownPlugin, DataError, FrameworkError, RegistryError, SecretMissing, StorageError)
    return isinstance(error, (*told, ConfigurationError))


@dataclass
class Reachable:
    """The target's plugins, made when their check asks."""

    project: Project
    _revealed: set[str] = field(default_factory=set, repr=False)

    def checks(self) -> Iterator[tuple[str, str, Callable[[], str | None]]]:
        """What is asked, the plugin's name, and the check itself, which raises or says how it went."""
        from mlplatform.io.pipelines.secrets import names_in

        target = self.project.profile.outputs[self.project.target]
        for name in sorted(names_in(target.model_dump(mode="json"))):
            yield "secret", name, lambda name=name: self._secret(name)
        connector, storage = target.data_connector, target.storage
        yield (
            "data connector",
            connector.type,
            lambda: self._plugin("data_connectors", connector.type, connector.config).check(),
        )
        yield (
            "storage",
            storage.type,
            lambda: self._plugin("storages", storage.type, storage.config).check(),
        )
        for name in self._named("registry"):
            yield "model registry", name, lambda name=name: self._registry(name).check()
        for name in self._named("framework"):
            yield "framework", name, lambda name=name: self._framework(name, target.h2o.url)

    def redacted(self, text: str) -> str:
        from mlplatform.io.pipelines.secrets import redact

        return redact(text, self._revealed)

    def _named(self, kind: str) -> list[str]:
        """Plugins that the pipelines name: of those that are wrong, `validate` tells."""
        from mlplatform.domain.batch.problems import InvalidProject

        found = set()
        for name in self.project.names():
            try:
                pipeline = self.project.pipeline(name)
            except InvalidProject:
                continue
            if kind == "framework":
                found.add(pipeline.training.model_training.framework)
            else:
                found.add(pipeline.serving.model_source.registry if pipeline.serving else "mlflow")
        return sorted(found)

    def _secret(self, name: str) -> str:
        self._get(name)
        return "set"

    def _plugin(self, kind: Any, name: str, config: Mapping[str, Any]) -> Any:
        from mlplatform.io.plugins import plugin

        return plugin(kind, name)(self._reveal(dict(config)), self.project.settings, self.project.root)

    def _registry(self, name: str) -> Any:
        from mlplatform.io.plugins import plugin

        tracking = self.project.profile.outputs[self.project.target].mlflow
        revealed = type(tracking).model_validate(self._reveal(tracking.model_dump()))
        return plugin("model_registries", name)(revealed, self.project.settings, self.project.root)

    def _framework(self, name: str, h2o_url: str | None) -> str:
        from mlplatform.io.plugins import plugin

        return plugin("frameworks", name)().check(self._reveal(h2o_url))

    def _reveal(self, config: Any) -> Any:
        from mlplatform.io.pipelines.secrets import reveal

        return reveal(config, self._get)

    def _get(self, name: str) -> str:
        value = self._provider.get(name)
        self._revealed.add(value)
        return value

    @property
    def _provider(self) -> SecretsProvider:
        from mlplatform.io.plugins import plugin

        chosen = self.project.profile.outputs[self.project.target].secrets
        return plugin("secrets_providers", chosen.provider)(
            chosen.config, self.project.settings, self.project.root
        )
