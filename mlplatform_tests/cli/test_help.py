"""What the command line says of itself."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from mlplatform.cli.main import main


def test_help_lists_every_command_with_what_it_does():
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name, command in main.commands.items():
        assert f"\n  {name} " in result.output
        assert command.get_short_help_str(), name


@pytest.mark.parametrize("name", sorted(main.commands))
def test_help_of_a_command_shows_an_example(name):
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"mlplatform {name}" in result.output.partition("Example")[2]


def test_an_unknown_command_is_named():
    result = CliRunner().invoke(main, ["strat"])
    assert result.exit_code == 2
    assert "No such command 'strat'" in result.output
