"""What commands that ask the control plane's API have in common."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar
from uuid import UUID

import click

from mlplatform.cli.logins import LoginFile
from mlplatform.errors import PlatformError
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mlplatform.client import Client

# How the command itself failed, beside 0 to 2, which say how a job ended.
NOT_DONE = 3
# Somebody sits there.
PATIENCE_SECONDS = 3.0
# Of a table that goes to no terminal: nothing is cut off there.
WIDE = 250

API = click.option(
    "--api",
    "url",
    default=lambda: Settings.load().api_url,
    metavar="URL",
    help="Where the control plane is. Or MLPLATFORM_API_URL; port 8080 of this machine unless set.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class NotDone(click.ClickException):
    exit_code = NOT_DONE


class Named(Protocol):
    @property
    def id(self) -> UUID: ...

    @property
    def name(self) -> str: ...


Thing = TypeVar("Thing", bound=Named)


@contextmanager
def control_plane(url: str) -> Iterator[Client]:
    """A client of it, logged in if somebody has; what goes wrong becomes a line and exit code 3."""
    from mlplatform.client import ApiError, Client

    try:
        with Client(url, store=LoginFile.of(url), patience=PATIENCE_SECONDS) as client:
            yield client
    except ApiError as error:
        hint = f"; from here: `mlplatform login --api {url}`" if error.status == 401 else ""
        raise NotDone(f"{error}{hint}") from None
    except PlatformError as error:
        raise NotDone(str(error)) from None


def find(what: str, given: str, get: Callable[[UUID], Thing], listed: Callable[[], Iterable[Thing]]) -> Thing:
    """By its id, or by its name if no other has it.

    Raises:
        NotDone: there is none, or there are several.
    """
    try:
        return get(UUID(given))
    except ValueError:
        found = [each for each in listed() if each.name == given]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotDone(f"there is no {what} {given!r}: `mlplatform {what}s list` shows those there are")
    ids = ", ".join(str(each.id) for each in found)
    raise NotDone(f"{len(found)} {what}s are called {given!r}: give the id of one, {ids}")


def print_json(value: BaseModel | Sequence[BaseModel]) -> None:
    """One thing, or a list of them."""
    told: Any = _plain(value) if not isinstance(value, Sequence) else [_plain(each) for each in value]
    click.echo(json.dumps(told, indent=2, ensure_ascii=False))


def print_json_line(value: BaseModel) -> None:
    click.echo(json.dumps(_plain(value), ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Cells that say nothing are None."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # Ids are there to be copied.
        table.add_column(column, no_wrap=column in ("id", "job"), overflow="fold")
    for row in rows:
        # Not marked up: whoever named it may have written brackets.
        table.add_row(*("" if cell is None else _escaped(str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else WIDE, highlight=False).print(table)


def ago(at: datetime | None) -> str | None:
    """How long it is since then, as people say it."""
    return None if at is None else f"{lasted(at, datetime.now(UTC))} ago"


def lasted(since: datetime | None, until: datetime | None) -> str | None:
    """How long from one to the other; None for what has not begun."""
    if since is None:
        return None
    seconds = max((until or datetime.now(UTC)).timestamp() - since.timestamp(), 0.0)
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, size in (("s", 120), ("min", 120 * 60), ("h", 48 * 3600)):
        if seconds < size:
            return f"{seconds / {'s': 1, 'min': 60, 'h': 3600}[unit]:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def usage(message: str) -> NoReturn:
    raise click.UsageError(message)


def _plain(value: BaseModel) -> Any:
    return value.model_dump(mode="json")


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
