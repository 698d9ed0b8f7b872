"""What people are told instead of a trace."""

from __future__ import annotations


class PlatformError(Exception):
    """The message says what is wrong and the remedy; to try again changes nothing."""


class TransientError(PlatformError):
    """The same, of something that may pass by itself: to try again helps."""
