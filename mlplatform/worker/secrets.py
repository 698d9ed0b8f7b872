"""Secrets: a command is given values for the names in its specification."""

from __future__ import annotations

from collections.abc import Iterable

from mlplatform.domain.jobs.specs import variable_of
from mlplatform.errors import PlatformError
from mlplatform.settings import Settings


class SecretMissing(PlatformError):
    """The worker has no such secret; the message names it, and where it is looked for."""


def values(names: Iterable[str], settings: Settings) -> dict[str, str]:
    """The environment variables of a command, with the secrets that its specification names.

    Each is a variable of the worker, MLPLATFORM_SECRET_<NAME>, or a file of its folder of secrets.

    Raises:
        SecretMissing: one of them is neither, or cannot be a variable.
    """
    return {variable_of(name): _value(name, settings) for name in names}


def _value(name: str, settings: Settings) -> str:
    if (value := settings.secret(variable_of(name))) is None:
        value = _file(name, settings)
    if "\x00" in value:
        raise SecretMissing(f"secret {name!r} has a NUL in it: no environment variable can have that")
    return value


def _file(name: str, settings: Settings) -> str:
    places = f"the worker's variable {settings.secret_variable(variable_of(name))}"
    if (folder := settings.secrets_directory) is not None:
        try:
            # An editor, or `echo`, ends a file with an end of line, which is not the secret's.
            return (folder / name).read_bytes().decode().removesuffix("\n")
        except FileNotFoundError:
            places += f", or the file {folder / name}"
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
            raise SecretMissing(f"secret {name!r}: {folder / name} cannot be read: {reason}") from None
    raise SecretMissing(f"there is no secret {name!r}: set {places}")
