"""Logs as one JSON object a line."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

FIELDS = "{levelname}{name}{message}"


def configure(process: str, *filters: logging.Filter, level: int = logging.INFO) -> None:
    """Sends the logs of this process to stdout; what was configured before is replaced.

    Args:
        process: what each line says that it is of, as its `service`.
        filters: add fields to each line.
    """
    handler = logging.StreamHandler(sys.stdout)
    for filter_ in filters:
        handler.addFilter(filter_)
    handler.setFormatter(
        JsonFormatter(
            FIELDS,
            style="{",
            timestamp=True,
            rename_fields={"levelname": "level", "name": "logger"},
            static_fields={"service": process},
            # What uvicorn says once more for a terminal.
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # It tells of each request that it makes, of which a service makes one a second.
    logging.getLogger("httpx").setLevel(max(level, logging.WARNING))
    # What no line of ours has need not be found out for each (the manual of `logging` says so).
    logging._srcfile = None  # pyright: ignore[reportAttributeAccessIssue]
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
