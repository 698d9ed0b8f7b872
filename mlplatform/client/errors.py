"""What goes wrong between a client and the control plane."""

from __future__ import annotations

from typing import Any

import httpx

from mlplatform.errors import PlatformError, TransientError


class ApiUnreachable(TransientError):
    """Nobody answered."""


class ApiError(PlatformError):
    """An answer that is no success, as RFC 9457 has it.

    Attributes:
        detail: what is wrong, and the remedy.
        correlation_id: by which the log of the API has the request; empty: it was not told.
    """

    def __init__(self, status: int, title: str, detail: str, correlation_id: str = "") -> None:
        known_as = f" [{correlation_id}]" if correlation_id else ""
        super().__init__(f"{detail or 'nothing more is told'} ({status} {title}){known_as}")
        self.status = status
        self.title = title
        self.detail = detail
        self.correlation_id = correlation_id

    @classmethod
    def of(cls, response: httpx.Response) -> ApiError:
        """An answer whose body was read."""
        correlation_id = response.headers.get("X-Request-ID", "")
        try:
            told = response.json()
            title, detail = str(told["title"]), _sentence(told["detail"])
            correlation_id = str(told.get("correlation_id", correlation_id))
        except (ValueError, KeyError, TypeError, AttributeError):
            # Of something that stands between: a proxy, or another program on this port.
            title, detail = response.reason_phrase, " ".join(response.text.split())[:300]
        return cls(response.status_code, title, detail, correlation_id)


def _sentence(detail: Any) -> str:
    """What validation says is a list: of each, where and what."""
    if not isinstance(detail, list):
        return str(detail)
    return "; ".join(f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in detail)
