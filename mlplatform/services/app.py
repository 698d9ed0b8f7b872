"""What all services have in common: metrics, logs, refusals, limits, and pages about themselves."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from importlib.metadata import version

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlplatform.errors import PlatformError, TransientError
from mlplatform.io import tracing
from mlplatform.services.direct import Direct, DirectRoute
from mlplatform.services.refusals import (
    Refused,
    documented,
    failed,
    invalid,
    refusal,
    refused,
    unavailable,
)
from mlplatform.services.security import Authority, Tokens, bearer, scope
from mlplatform.settings import ConfigurationError, Settings

LONGEST_BODY_BYTES = 64 * 1024
# Longer ones are refused, since they go into every line of the log.
LONGEST_CORRELATION_ID = 128
# A client can make up others.
METHODS = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}
# What probes and scrapers ask for, again and again.
UNLOGGED = {"/health", "/ready", "/metrics"}
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# Of each counter, when it began to count: nobody asks.
disable_created_metrics()
log = logging.getLogger(__name__)


def create_app(
    title: str,
    description: str,
    settings: Settings,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    not_ready: Callable[[FastAPI], str | None],
    authority: Authority | None = None,
    middleware: Sequence[Middleware] = (),
    blocking_collectors: bool = False,
) -> FastAPI:
    """An application without the routes of its service.

    Besides pages about itself (/docs, /openapi.json) it has GET /ready and GET /metrics. The service puts its
    collectors into `app.state.registry`, and what is to be answered without FastAPI into `app.state.direct`.

    Args:
        lifespan: opens and closes what the service works with.
        not_ready: why no request should come in now; None if they may.
        authority: knows whose a token is; None: the tokens of the settings, and no others.
        middleware: of the service; within that of all services, so that what it does is counted and logged.
        blocking_collectors: they wait for others, and need not be on the loop.

    Raises:
        ConfigurationError: of tokens, origins or rates.
    """
    app = FastAPIOffline(
        title=title,
        description=description,
        version=version("mlplatform"),
        lifespan=lifespan,
        redoc_url=None,
        middleware=list(middleware),
        responses={status: documented(text) for status, text in REFUSALS.items()},
    )
    app.state.authority = authority = authority or Tokens(settings)
    app.state.registry = CollectorRegistry()
    direct: dict[str, DirectRoute] = {}
    app.state.direct = direct
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(TransientError, unavailable)

    @app.get("/ready", tags=["operation"], responses={503: documented("Not yet, or no more")})
    async def ready() -> dict[str, str]:
        """Whether requests may come in."""
        if why := not_ready(app):
            raise Refused(503, why)
        return {"status": "ready"}

    @app.get(
        "/metrics",
        tags=["operation"],
        dependencies=[scope("metrics:read")],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
    )
    async def metrics() -> Response:
        """In Prometheus' text format."""
        collect = partial(generate_latest, app.state.registry)
        content = await run_in_threadpool(collect) if blocking_collectors else collect()
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    if isinstance(authority, Tokens):
        # It knows no others.
        app.add_middleware(Direct, routes=direct, tokens=authority)
    app.add_middleware(
        _Observed,
        registry=app.state.registry,
        rate=_rate(settings.rate_limit),
        authority=authority,
    )
    if settings.traces_endpoint:
        tracing.configure(title.lower().replace(" ", "-"), settings.traces_endpoint)
        app.add_middleware(_Traced)
    app.add_middleware(
        CorrelationIdMiddleware,
        validator=lambda given: given.isprintable() and len(given) <= LONGEST_CORRELATION_ID,
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
        )
    return app


REFUSALS = {
    400: "The body could not be read",
    401: "No token, or one that nobody has",
    403: "The token has not the scope",
    413: f"The body is longer than {LONGEST_BODY_BYTES} bytes",
    422: "Not what the interface takes; nothing has changed",
    429: "Too many requests",
    500: "The service failed; its log says why, under the correlation id",
    503: "The request could not be taken now; it had no effect",
}


class _Traced:
    """A span for each request, in the trace of whoever asks."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNLOGGED:
            await self._app(scope, receive, send)
            return
        parent = dict(scope["headers"]).get(b"traceparent", b"").decode("latin-1") or None
        method = scope["method"] if scope["method"] in METHODS else "any"

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                tracing.tell({"http.response.status_code": status}, failed=status >= 500)
            await send(message)

        with tracing.span(method, parent, "SERVER", **{"http.request.method": method}) as traceparent:
            scope.setdefault("state", {})["traceparent"] = traceparent
            await self._app(scope, receive, observed)
            if route := getattr(scope.get("route"), "path", None):
                tracing.tell({"http.route": route}, f"{method} {route}")


class _Observed:
    """Counts, times and logs each request, and refuses those that are too long or too many."""

    def __init__(
        self, app: ASGIApp, registry: CollectorRegistry, rate: RateLimitItem | None, authority: Authority
    ) -> None:
        self._app = app
        self._rate = rate
        self._authority = authority
        # Of two counts a client, which expire: a moving window never forgets that a client was there.
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        labels = ("method", "route", "status")
        self._requests = Counter("http_requests_total", "Requests answered", labels, registry=registry)
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "From the first byte of a request to the last of its reply",
            ("method", "route"),
            buckets=SECONDS,
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, _in_words(send))
            return
        began = time.perf_counter()
        status: int | None = None

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if why := self._refusal(scope):
                await refusal(why)(scope, receive, observed)
            else:
                await self._app(scope, _limited(receive), observed)
        except Exception:
            # Here and not in a handler of FastAPI's, which stands outside the correlation id and CORS, and
            # hands the error on to the server, which would log it again.
            log.exception("a request failed")
            if status is not None:
                raise
            await failed()(scope, receive, observed)
        finally:
            seconds = time.perf_counter() - began
            # When the reply is on its way: the loop writes once nothing else is ready.
            asyncio.get_running_loop().call_soon(self._tell, scope, status or 500, seconds)

    def _refusal(self, scope: Scope) -> Refused | None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > LONGEST_BODY_BYTES:
            return Refused(413, f"the body is longer than {LONGEST_BODY_BYTES} bytes")
        if not self._rate or scope["path"] in UNLOGGED:
            return None
        if self._limiter.hit(self._rate, self._client(scope, headers)):
            return None
        return Refused(429, f"more than {self._rate}", {"Retry-After": str(self._rate.get_expiry())})

    def _client(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Who has a token, wherever they come from; else the address: a token can be made up each time."""
        token = bearer(headers)
        if token is not None and self._authority.knows(token):
            return str(hash(token))
        return (scope["client"] or ("",))[0]

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        # The template, so that ids in a path do not make new series.
        route = getattr(scope.get("route"), "path", "unknown")
        method = scope["method"] if route != "unknown" and scope["method"] in METHODS else "any"
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)
        if scope["path"] not in UNLOGGED:
            log.info(
                "%s %s %d",
                scope["method"],
                scope["path"],
                status,
                extra={"status": status, "milliseconds": round(1000 * seconds, 2)},
            )


def _in_words(send: Send) -> Send:
    """What keeps a service from starting is a sentence where we foresaw it, and a traceback elsewhere."""

    async def in_words(message: Message) -> None:
        error = sys.exc_info()[1]
        if message["type"] == "lifespan.startup.failed" and isinstance(error, PlatformError):
            message = {**message, "message": str(error)}
        await send(message)

    return in_words


def _limited(receive: Receive) -> Receive:
    """Bodies without a length are counted as they come."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > LONGEST_BODY_BYTES:
            raise Refused(413, f"the body is longer than {LONGEST_BODY_BYTES} bytes")
        return message

    return limited


def _rate(text: str | None) -> RateLimitItem | None:
    if not text:
        return None
    with suppress(ValueError):
        if (rate := parse(text)).amount > 0:
            return rate
    raise ConfigurationError(f"MLPLATFORM_RATE_LIMIT={text!r} is no rate such as 600/minute or 10/second")
