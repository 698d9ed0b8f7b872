"""What the command line says of itself."""

from __future__ import annotations

import importlib
import importlib.metadata
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mlplatform.cli.main import main


def test_help_lists_every_command_with_what_it_does():
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name, command in main.commands.items():
        assert f"\n  {name} " in result.output
        assert command.get_short_help_str(), name


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words by which each command is called."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("words", list(commands(main)), ids=" ".join)
def test_help_of_a_command_shows_an_example(words):
    result = CliRunner().invoke(main, [*words, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"mlplatform {' '.join(words)}" in result.output.partition("Example")[2]


@pytest.mark.parametrize("name", ["mlplatform", "mbt"])
def test_both_names_call_the_same(name):
    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, attribute = scripts[name].partition(":")
    assert getattr(importlib.import_module(module), attribute) is main


def test_the_version_is_told():
    result = CliRunner().invoke(main, ["--version"])
    assert result.output == f"mlplatform, version {importlib.metadata.version('mlplatform')}\n"


def test_an_unknown_command_is_named():
    result = CliRunner().invoke(main, ["strat"])
    assert result.exit_code == 2
    assert "No such command 'strat'" in result.output
