"""Errors as a person at the terminal wants them: what is wrong and how to mend it, without a trace."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click

from mlplatform.errors import PlatformError

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
    # Imported only now: most of the time a command for pipelines takes is that of its imports.
    from mlplatform.domain.batch.problems import InvalidProject

    try:
        yield
    except InvalidProject as error:
        raise ProblemsFound(error.problems) from error
    except PlatformError as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def redacted_errors(redact: Callable[[str], str]) -> Iterator[None]:
    """Takes secrets out of what is said of a failure; one that nobody foresaw is told with its trace."""
    from mlplatform.domain.batch.problems import InvalidProject

    try:
        yield
    except (click.ClickException, InvalidProject):
        raise
    except PlatformError as error:
        raise click.ClickException(redact(str(error))) from None
    except Exception as error:
        raise click.ClickException(redact("".join(traceback.format_exception(error)))) from None
