"""The tokens of somebody who has logged in: shown with each request, and exchanged before they expire."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from mlplatform.client.errors import ApiError

REFRESH = "/api/v1/auth/refresh"
# Rather too early than refused.
SECONDS_BEFORE_THE_END = 30


@dataclass(frozen=True)
class Tokens:
    """What a login gives.

    Attributes:
        expires_at: seconds since 1970, of the access token.
        refresh_token: good for one use.
    """

    access_token: str = field(repr=False)
    expires_at: float
    refresh_token: str = field(repr=False)

    @classmethod
    def of(cls, response: httpx.Response) -> Tokens:
        """
        Raises:
            ApiError: the answer is no success.
        """
        if not response.is_success:
            raise ApiError.of(response)
        told: dict[str, Any] = response.json()
        return cls(told["access_token"], time.time() + told["expires_in"], told["refresh_token"])


class TokenStore(Protocol):
    """Where the tokens of one login are kept; several threads or processes may have the same one."""

    def locked(self) -> AbstractContextManager[Any]:
        """Keeps the others out while tokens are exchanged: who shows a refresh token twice is logged out."""
        ...

    def load(self) -> Tokens | None: ...

    def save(self, tokens: Tokens | None) -> None:
        """None forgets them."""
        ...


class InMemory:
    """Tokens that end with the process."""

    def __init__(self) -> None:
        self._tokens: Tokens | None = None
        self._lock = threading.Lock()

    def locked(self) -> AbstractContextManager[Any]:
        return self._lock

    def load(self) -> Tokens | None:
        return self._tokens

    def save(self, tokens: Tokens | None) -> None:
        self._tokens = tokens


class Bearer(httpx.Auth):
    """Shows the token: a service's own if there is one, else that of the login."""

    def __init__(self, base_url: httpx.URL, service_token: str | None, store: TokenStore) -> None:
        self._refresh_url = base_url.join(base_url.path.rstrip("/") + REFRESH)
        self._service_token = service_token
        self._store = store

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._service_token is not None:
            request.headers["Authorization"] = f"Bearer {self._service_token}"
            yield request
            return
        tokens = self._store.load()
        if tokens and tokens.expires_at - SECONDS_BEFORE_THE_END < time.time():
            tokens = yield from self._exchanged(tokens)
        if tokens is None:
            yield request
            return
        request.headers["Authorization"] = f"Bearer {tokens.access_token}"
        response = yield request
        # The clock here may be slow, or the API has another key.
        if response.status_code == 401 and (tokens := (yield from self._exchanged(tokens))):
            request.headers["Authorization"] = f"Bearer {tokens.access_token}"
            yield request

    def _exchanged(self, old: Tokens) -> Generator[httpx.Request, httpx.Response, Tokens | None]:
        """Other tokens for `old`; None if it is no more good for any."""
        with self._store.locked():
            tokens = self._store.load()
            if tokens != old:
                # Somebody else was quicker.
                return tokens
            body = {"grant_type": "refresh_token", "refresh_token": old.refresh_token}
            response = yield httpx.Request("POST", self._refresh_url, json=body)
            response.read()
            if response.status_code in (401, 422):
                self._store.save(None)
                return None
            tokens = Tokens.of(response)
            self._store.save(tokens)
            return tokens
