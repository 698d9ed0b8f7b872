"""The options by which commands find the project of batch pipelines that they are about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlplatform.settings import Settings

if TYPE_CHECKING:
    from mlplatform.io.pipelines.project import Project


def project_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --project-dir, --target and --vars; the command gets project_dir, target and variables."""
    for option in (
        click.option(
            "--vars",
            "variables",
            multiple=True,
            metavar="NAME=VALUE",
            callback=_pairs,
            help="Value of {{ var('NAME') }}; may be given again.",
        ),
        click.option("--target", help="A target of profiles.yaml; else the one that the profile names."),
        click.option(
            "--project-dir",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            default=".",
            help="The project's folder; else this one.",
        ),
    ):
        command = option(command)
    return command


def load_project(project_dir: Path, target: str | None, variables: Mapping[str, str]) -> Project:
    from mlplatform.io.pipelines.project import Project

    return Project.load(project_dir.resolve(), Settings.load(), variables=variables, target=target)


def _pairs(_: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for name, equals, _value in pairs:
        if not (name and equals):
            raise click.BadParameter(f"{name!r} is not NAME=VALUE", param=option)
    return {name: value for name, _equals, value in pairs}
