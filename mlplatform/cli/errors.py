"""Errors as a person at the terminal wants them: one line that says what and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from mlplatform.domain.observations import SourceError
from mlplatform.io.object_store import StoreUnavailable
from mlplatform.local.errors import StackError
from mlplatform.settings import ConfigurationError


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turns the errors that name their remedy into a line and exit code 1."""
    try:
        yield
    except (StackError, ConfigurationError, StoreUnavailable, SourceError) as error:
        raise click.ClickException(str(error)) from error
