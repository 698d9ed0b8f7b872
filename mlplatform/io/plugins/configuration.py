"""What a plugin's `config` block may hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any


def refuse_unknown_keys(
    plugin: str, config: Mapping[str, Any], allowed: Collection[str], error: type[Exception]
) -> None:
    """Raises `error` for the first key that is not allowed, naming the nearest that is."""
    for key in config:
        if key not in allowed:
            near = get_close_matches(str(key), allowed, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise error(f"{plugin}: config has no key {key!r}: there are {', '.join(allowed)}{hint}")
