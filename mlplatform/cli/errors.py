"""Errors as a person at the terminal wants them: what is wrong and how to mend it, without a trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mlplatform.domain.batch.problems import Problem


class ProblemsFound(click.ClickException):
    """Problems in a project's files, one a line, with the place of each in colour."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems

    def show(self, file: IO[Any] | None = None) -> None:
        for problem in self.problems:
            _echo(problem, "red")


def echo_warning(problem: Problem) -> None:
    """What is allowed and perhaps not meant, on stderr."""
    _echo(problem, "yellow", "warning: ")


def _echo(problem: Problem, color: str, kind: str = "") -> None:
    place = f"{problem.file}:{problem.line}" if problem.line else problem.file
    rest = str(problem).removeprefix(f"{place}: ")
    click.echo(f"{click.style(place, fg=color, bold=True)}: {kind}{rest}", err=True)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turns the errors that name their remedy into lines and exit code 1."""
    try:
        yield
    except click.ClickException:
        raise
    except Exception as error:
        _raise_readable(error)
        raise


def _raise_readable(error: Exception) -> None:
    # Imported only now: most of the time a command for pipelines takes is that of its imports.
    from mlplatform.domain.batch.problems import InvalidProject
    from mlplatform.domain.observations import SourceError
    from mlplatform.io.object_store import StoreUnavailable
    from mlplatform.io.plugins import UnknownPlugin
    from mlplatform.io.plugins.secrets_providers import SecretMissing
    from mlplatform.io.plugins.storages import StorageError
    from mlplatform.local.errors import StackError
    from mlplatform.settings import ConfigurationError

    if isinstance(error, InvalidProject):
        raise ProblemsFound(error.problems) from error
    told = (
        ConfigurationError,
        SecretMissing,
        SourceError,
        StackError,
        StorageError,
        StoreUnavailable,
        UnknownPlugin,
    )
    if isinstance(error, told):
        raise click.ClickException(str(error)) from error
