"""Calls that start at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Answer = TypeVar("Answer")


def race(contenders: int, attempt: Callable[[int], Answer]) -> list[Answer | Exception]:
    """What each contender's attempt returned or raised, in the order of their numbers."""
    start = threading.Barrier(contenders)

    def run(number: int) -> Answer | Exception:
        start.wait()
        try:
            return attempt(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(contenders) as pool:
        return list(pool.map(run, range(contenders)))
