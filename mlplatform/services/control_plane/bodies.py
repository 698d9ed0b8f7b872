"""Bodies of clients that do not say what they send: `curl -d` calls everything a form."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

FORM = "application/x-www-form-urlencoded"


class JsonBodies:
    """Takes a body for JSON that is called a form, or nothing at all.

    Whoever can be tricked into sending one so is a browser, and is refused elsewhere.

    Args:
        forms: paths of the routes that take forms.
    """

    def __init__(self, app: ASGIApp, forms: frozenset[str]) -> None:
        self._app = app
        self._forms = forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._forms:
            headers = MutableHeaders(scope=scope)
            if headers.get("content-type", FORM).partition(";")[0].strip().lower() == FORM:
                headers["content-type"] = "application/json"
        await self._app(scope, receive, send)
