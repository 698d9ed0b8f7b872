"""Logs as one JSON object a line, with the id of the request that they are about."""

from __future__ import annotations

import logging
import sys

from asgi_correlation_id import CorrelationIdFilter
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

FIELDS = "{levelname}{name}{message}{correlation_id}"


def configure(service: str, level: int = logging.INFO) -> None:
    """Sends the logs of this process to stdout; what was configured before is replaced."""
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(CorrelationIdFilter(default_value=""))
    handler.setFormatter(
        JsonFormatter(
            FIELDS,
            style="{",
            timestamp=True,
            rename_fields={"levelname": "level", "name": "logger"},
            static_fields={"service": service},
            # What uvicorn says once more for a terminal.
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # What no line of ours has need not be found out for each (the manual of `logging` says so).
    logging._srcfile = None  # pyright: ignore[reportAttributeAccessIssue]
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Each request is logged once, by the application, with its duration.
    logging.getLogger("uvicorn.access").disabled = True
