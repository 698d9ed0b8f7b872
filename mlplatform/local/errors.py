"""What can go wrong with the embedded stack, in words for the person who started it."""

from __future__ import annotations


class StackError(Exception):
    """The stack cannot start, stop or be read; the message names the thing and the remedy."""
