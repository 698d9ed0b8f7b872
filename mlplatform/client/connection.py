"""Requests to the control plane: tried again where that is safe, page by page, and as streams of events."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter

from mlplatform.client.errors import ApiError, ApiUnreachable
from mlplatform.client.tokens import Bearer, TokenStore
from mlplatform.settings import ConfigurationError

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
SECONDS_TO_ANSWER = 30.0
# A stream says at least every 15 seconds that it is there.
SECONDS_OF_SILENCE = 45.0
# So long a stream may be cut off, as while the API is started anew.
SECONDS_CUT_OFF = 60.0
# Said before anything was done.
WITHOUT_EFFECT = (429, 503)
# A proxy could not, or not in time.
PASSING = (*WITHOUT_EFFECT, 502, 504)

Model = TypeVar("Model")


@dataclass(frozen=True)
class Said:
    """One event of a stream."""

    id: str
    type: str
    data: bytes


class Connection:
    """To the API at one address.

    Args:
        patience: seconds in which a request is tried again.

    Raises:
        ConfigurationError: the address is none.
    """

    def __init__(self, url: str, service_token: str | None, store: TokenStore, patience: float) -> None:
        base_url = _base_url(url)
        # A password that the address has is for the proxy before the API, not for people's eyes.
        self.where = str(base_url.copy_with(userinfo=b""))
        self._patience = patience
        self._http = httpx.Client(
            base_url=base_url, auth=Bearer(base_url, service_token, store), timeout=SECONDS_TO_ANSWER
        )

    def close(self) -> None:
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        key: str | None = None,
    ) -> httpx.Response:
        """The answer, if it is a success.

        Reads, and writes with a key, are tried again whatever has passed; other writes only where it is
        certain that they have had no effect.

        Args:
            query: what is None is left out.
            key: by which the API knows the request again.

        Raises:
            ApiError: another answer came.
            ApiUnreachable: none came in time.
        """
        safe = method == "GET" or key is not None
        headers = {} if key is None else {"Idempotency-Key": key}
        given = {name: str(value) for name, value in (query or {}).items() if value is not None}
        pauses = _Pauses(self._patience)
        while True:
            try:
                # No empty query: it would take the place of one that the path has.
                response = self._http.request(method, path, params=given or None, json=body, headers=headers)
                if response.is_success:
                    return response
                error = ApiError.of(response)
                again = response.status_code in (PASSING if safe else WITHOUT_EFFECT)
                least = _retry_after(response)
            except httpx.TransportError as problem:
                error = self._unreachable(problem)
                again = safe or isinstance(problem, httpx.ConnectError | httpx.ConnectTimeout)
                least = 0.0
            if not (again and pauses.rest(least)):
                raise error from None

    def get(self, model: type[Model], path: str, **query: Any) -> Model:
        return _adapter(model).validate_json(self.ask("GET", path, query=query).content)

    def post(self, model: type[Model], path: str, body: Any = None, *, key: str | None = None) -> Model:
        return _adapter(model).validate_json(self.ask("POST", path, body=body, key=key).content)

    def pages(self, model: type[Model], path: str, **query: Any) -> Iterator[Model]:
        """The rows of a list, page by page, as far as they are wanted."""
        adapter = _adapter(list[model])
        while path:
            response = self.ask("GET", path, query=query)
            yield from adapter.validate_json(response.content)
            path = response.links.get("next", {}).get("url", "")
            query = {}

    def stream(self, path: str, after: int | None = None) -> Iterator[Said]:
        """The events behind `after` as they come, until the API says that there will be no more.

        Goes on where it was when it is cut off: none is missed, none comes twice.

        Raises:
            ApiError: the API does not give them.
            ApiUnreachable: it was cut off for too long.
        """
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        query = {} if after is None else {"after": after}
        timeout = httpx.Timeout(SECONDS_TO_ANSWER, read=SECONDS_OF_SILENCE)
        pauses = _Pauses(SECONDS_CUT_OFF)
        while True:
            least = 0.0
            try:
                with self._http.stream(
                    "GET",
                    path,
                    params=query,
                    headers={"Accept": "text/event-stream", **headers},
                    timeout=timeout,
                ) as response:
                    if response.is_success:
                        for said in _said(response.iter_bytes()):
                            pauses = _Pauses(SECONDS_CUT_OFF)
                            if said.type == "end":
                                return
                            if said.id:
                                headers = {"Last-Event-ID": said.id}
                            yield said
                        error = ApiUnreachable(f"{self.where} ended the stream, and takes no other")
                    else:
                        response.read()
                        error = ApiError.of(response)
                        if response.status_code not in PASSING:
                            raise error
                        least = _retry_after(response)
            except httpx.TransportError as problem:
                error = self._unreachable(problem)
            if not pauses.rest(least):
                raise error from None

    def _unreachable(self, problem: httpx.TransportError) -> ApiUnreachable:
        return ApiUnreachable(
            f"the control plane does not answer at {self.where} ({str(problem) or type(problem).__name__}):"
            " start it with `mlplatform serve api`, or say with MLPLATFORM_API_URL where it is"
        )


def new_key() -> str:
    """By which the API knows that a request that is tried again is the same."""
    return uuid.uuid4().hex


def segment(value: object) -> str:
    """A value as one part of a path."""
    return quote(str(value), safe="")


class _Pauses:
    """Between attempts, growing, until there is no time left."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._next = FIRST_PAUSE

    def rest(self, least: float) -> bool:
        """Sleeps at least so many seconds; False if the time would be over then."""
        # Not all who were cut off come back at the same moment.
        seconds = max(least, self._next * random.uniform(0.5, 1))  # noqa: S311 - nobody shall not guess it
        if time.monotonic() + seconds > self._end:
            return False
        time.sleep(seconds)
        self._next = min(2 * self._next, LONGEST_PAUSE)
        return True


def _said(chunks: Iterator[bytes]) -> Iterator[Said]:
    """The events in a body of text/event-stream.

    By hand, since httpx ends lines also where JSON does not (U+2028), and only \\n and \\r\\n end them here.
    """
    rest = b""
    fields: dict[bytes, bytes] = {}
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            name, _, value = line.removesuffix(b"\r").partition(b":")
            value = value.removeprefix(b" ")
            if not (name or value):
                if b"data" in fields:
                    id_, type_ = fields.get(b"id", b"").decode(), fields.get(b"event", b"message").decode()
                    yield Said(id_, type_, fields[b"data"])
                fields = {}
            elif name == b"data" and name in fields:
                fields[name] += b"\n" + value
            elif name:
                fields[name] = value


@cache
def _adapter(type_: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_)


def _base_url(given: str) -> httpx.URL:
    try:
        url = httpx.URL(given.rstrip("/"))
        fits = url.scheme in ("http", "https") and url.host and not (url.query or url.fragment)
    except httpx.InvalidURL:
        fits, url = False, httpx.URL()
    if not fits:
        raise ConfigurationError(f"{given!r} is not an address such as http://127.0.0.1:8080")
    return url


def _retry_after(response: httpx.Response) -> float:
    given = response.headers.get("Retry-After", "")
    return float(given) if given.isdecimal() else 0.0
