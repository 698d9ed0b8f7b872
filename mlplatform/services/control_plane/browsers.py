"""Keeps web pages of strangers out, which a browser lets send requests to whatever it can reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mlplatform.services.refusals import Refused, refusal

READS = {"GET", "HEAD", "OPTIONS"}
ANY = "*"


class BrowserGuard:
    """Refuses what a page of another origin sends, and, where nobody is asked for a token, what comes by a
    name that is not this machine's.

    A page may send a form to any address without being asked, also to the loopback interface; and a name of
    its own that leads there makes the two one origin. Programs that are no browsers tell neither origin nor
    site.

    Args:
        origins: those of pages that may; `*`: any, as far as tokens are asked for.
        open_: nobody is asked for a token.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str], open_: bool) -> None:
        self._app = app
        self._origins = {origin.rstrip("/").lower() for origin in origins}
        self._open = open_

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (why := self._refusal(scope["method"], Headers(scope=scope))):
            await refusal(Refused(403, why))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> str | None:
        host = headers.get("host", "")
        if self._open and not _is_loopback(host):
            return (
                "this control plane asks for no token, so it is to be asked by a name of this machine"
                f" (127.0.0.1, localhost) and not by {host!r};"
                " MLPLATFORM_AUTHENTICATION=required asks for tokens"
            )
        if method in READS:
            return None
        origin = headers.get("origin")
        if origin is not None and not self._allows(origin, host):
            return f"a page of {origin!r} may change nothing here: name it in MLPLATFORM_CORS_ORIGINS"
        if origin is None and headers.get("sec-fetch-site") == "cross-site":
            return "a page of another site may change nothing here"
        return None

    def _allows(self, origin: str, host: str) -> bool:
        if origin.lower() in self._origins or (ANY in self._origins and not self._open):
            return True
        # Not the scheme: a proxy may have taken the TLS off.
        return urlsplit(origin).netloc.lower() == host.lower() != ""


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
