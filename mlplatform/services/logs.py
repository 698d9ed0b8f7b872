"""The logs of a service, with the id of the request that they are about."""

from __future__ import annotations

import logging

from asgi_correlation_id import CorrelationIdFilter

from mlplatform.io import logs


def configure(service: str, level: int = logging.INFO) -> None:
    """Sends the logs of this process to stdout; what was configured before is replaced."""
    logs.configure(service, CorrelationIdFilter(default_value=""), level=level)
    # Each request is logged once, by the application, with its duration.
    logging.getLogger("uvicorn.access").disabled = True
