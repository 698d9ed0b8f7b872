"""Secrets stay placeholders from the YAML to the step that needs them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, quote_plus

NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-/]*"
PLACEHOLDER = re.compile(r"\{\{ secret\('(" + NAME + r")'\) \}\}")


def placeholder(name: str) -> str:
    return f"{{{{ secret('{name}') }}}}"


def names_in(value: Any) -> set[str]:
    """Names of the secrets that a configuration asks for, at any depth."""
    if isinstance(value, str):
        return set(PLACEHOLDER.findall(value))
    if isinstance(value, dict):
        return set().union(*map(names_in, value.values()))
    return set().union(*map(names_in, value)) if isinstance(value, list) else set()


def reveal(value: Any, get: Callable[[str], str]) -> Any:
    """The configuration with each placeholder replaced by `get(name)`; always text, even of digits.

    Raises what `get` raises: a provider's `SecretMissing`.
    """
    if isinstance(value, str):
        # One pass: what looks like a placeholder in a secret's value is a part of the secret.
        return PLACEHOLDER.sub(lambda found: get(found[1]), value)
    if isinstance(value, dict):
        return {key: reveal(below, get) for key, below in value.items()}
    return [reveal(below, get) for below in value] if isinstance(value, list) else value


def redact(text: str, values: Iterable[str]) -> str:
    """The text with `***` for each of the values, also where a URL or a Python string quotes them."""
    spellings = {
        spelling
        for value in values
        for spelling in (value, quote(value, safe=""), quote(value), quote_plus(value), repr(value)[1:-1])
    }
    for spelling in sorted(filter(None, spellings), key=len, reverse=True):
        text = text.replace(spelling, "***")
    return text
