"""What can go wrong with the embedded stack, in words for the person who started it."""

from __future__ import annotations

from mlplatform.errors import PlatformError


class StackError(PlatformError):
    """The stack cannot start, stop or be read; the message names the thing and the remedy."""
