"""A short way for the requests that come by the thousand.

FastAPI's routing, dependencies and validation take several times as long as an observation takes to be
learned. What is plain (a JSON body of the right shape, whose token is good) is answered before it gets there,
by the function that FastAPI's route calls too; everything else goes on to FastAPI, which knows what to say.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Response
from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlplatform.domain.observations import LONGEST_ID
from mlplatform.errors import TransientError
from mlplatform.services.refusals import Refused, refusal, unavailable
from mlplatform.services.security import Tokens, bearer

JSON = b"application/json"
# As FastAPI's, which makes an encoder for each reply.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class DirectRoute:
    """A POST route.

    Attributes:
        path: of the route, without parameters in it.
        scope: that a token needs.
        body: what FastAPI validates too.
        answer: the reply as a JSON object, of the body and the `Idempotency-Key`.
    """

    path: str
    scope: str
    body: type[BaseModel]
    answer: Callable[[Any, str | None], Awaitable[dict[str, Any]]]


class Direct:
    """Answers what is plain, and passes the rest on.

    Args:
        routes: by their path; may grow until the first request.
    """

    def __init__(self, app: ASGIApp, routes: Mapping[str, DirectRoute], tokens: Tokens) -> None:
        self._app = app
        self._routes = routes
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None or scope["method"] != "POST" or scope["query_string"]:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        key = headers.get(b"idempotency-key")
        if (
            headers.get(b"content-type") != JSON
            # A longer one is for FastAPI to refuse.
            or (key is not None and not 0 < len(key) <= LONGEST_ID)
            or not self._tokens.allow(bearer(headers), route.scope)
        ):
            await self._app(scope, receive, send)
            return
        messages: list[Message] = []
        try:
            async for message in _until_complete(receive):
                messages.append(message)
            if (body := _valid(route, messages)) is None:
                await self._app(scope, _replayed(messages, receive), send)
                return
            # By which the requests are counted.
            scope["route"] = route
            answer = await route.answer(body, None if key is None else key.decode("latin-1"))
            reply = Response(_encode(answer), media_type="application/json")
        except Refused as refused:
            reply = refusal(refused)
        except TransientError as error:
            reply = await unavailable(None, error)
        await reply(scope, receive, send)


def answer_directly(app: FastAPI, *routes: DirectRoute) -> None:
    """Lets an application that `create_app` made answer these routes so."""
    app.state.direct.update({route.path: route for route in routes})


async def _until_complete(receive: Receive) -> AsyncIterator[Message]:
    """The messages of the body, or of what came of it before the client left."""
    more = True
    while more:
        message = await receive()
        yield message
        more = message.get("more_body", False)


def _valid(route: DirectRoute, messages: list[Message]) -> BaseModel | None:
    try:
        return route.body.model_validate_json(b"".join(each.get("body", b"") for each in messages))
    except ValidationError:
        return None


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    again = iter(messages)

    async def replayed() -> Message:
        return next(again, None) or await receive()

    return replayed
