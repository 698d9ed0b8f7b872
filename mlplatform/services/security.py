"""Who may call what: bearer tokens with scopes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from mlplatform.services.refusals import Refused
from mlplatform.settings import ConfigurationError, Settings

# 401 comes from us, not from FastAPI, so that it has the shape of every other refusal.
BEARER = HTTPBearer(auto_error=False, description="A token of MLPLATFORM_API_TOKENS")


@dataclass(frozen=True)
class Principal:
    """Who asks.

    Attributes:
        id: tells them from all others.
        name: for people; never a secret.
        scopes: what they may; None: all.
        session: what ends when they log out; None: nothing does.
    """

    id: str
    name: str
    type: Literal["user", "service", "static", "local"]
    scopes: frozenset[str] | None
    session: str | None = None

    def may(self, scope: str) -> bool:
        return self.scopes is None or scope in self.scopes


# Whoever reaches the loopback interface of their own machine.
LOCAL = Principal("local", "local", "local", None)


class Authority(Protocol):
    """Knows whose a token is."""

    async def principal(self, token: str | None) -> Principal:
        """
        Raises:
            Refused: 401, the token (None: there is none) is not enough.
        """
        ...

    def knows(self, token: str) -> bool:
        """Whether the token is one that was given out, as far as can be told at once."""
        ...


class Tokens:
    """The tokens that are known, by their SHA-256: none of them is kept in clear.

    Without any, everything is allowed in `local`, where services listen on the loopback interface only.

    Args:
        alone: whether nobody can come with anything else.

    Raises:
        ConfigurationError: there are none outside `local`, or the variable does not say which.
    """

    def __init__(self, settings: Settings, *, alone: bool = True) -> None:
        self._scopes = _read(settings.api_tokens)
        self.required = bool(self._scopes) or settings.environment != "local"
        if alone and self.required and not self._scopes:
            raise ConfigurationError(
                f"MLPLATFORM_API_TOKENS is not set; MLPLATFORM_ENV={settings.environment} needs it: "
                '{"<SHA-256 of a token, in hex>": ["models:read", "models:write"]}'
            )

    def allow(self, token: str | None, scope: str) -> bool:
        """Whether the token of a request (None: it has none) is enough for the scope."""
        return not self.required or (token is not None and scope in (self.scopes(token) or ()))

    def scopes(self, token: str) -> frozenset[str] | None:
        """None for a token that nobody has."""
        return self._scopes.get(_sha256(token))

    def knows(self, token: str) -> bool:
        return self.scopes(token) is not None

    async def principal(self, token: str | None) -> Principal:
        if not self.required:
            return LOCAL
        if token is None:
            raise unauthenticated("a bearer token is needed")
        if (found := self.find(token)) is None:
            raise unauthenticated("the token is not known")
        return found

    def find(self, token: str) -> Principal | None:
        """None for a token that nobody has."""
        if (scopes := self.scopes(token)) is None:
            return None
        # As much of the digest as finds the token in the variable.
        name = f"token {_sha256(token)[:8]}"
        return Principal(name, name, "static", scopes)


def unauthenticated(detail: str) -> Refused:
    return Refused(401, detail, {"WWW-Authenticate": "Bearer"})


def bearer(headers: Mapping[bytes, bytes]) -> str | None:
    """The token in the headers of a request as ASGI has them."""
    kind, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return token if kind.lower() == "bearer" else None


async def admit(request: Request, given: HTTPAuthorizationCredentials | None, *scopes: str) -> Principal:
    """Who asks, if they may: they are `request.state.principal` from now on.

    Args:
        scopes: that they need, all of them.

    Raises:
        Refused: 401 or 403.
    """
    authority: Authority = request.app.state.authority
    principal = await authority.principal(given.credentials if given else None)
    for scope in scopes:
        if not principal.may(scope):
            raise Refused(403, f"the token has not the scope {scope}")
    request.state.principal = principal
    return principal


async def _check(
    request: Request,
    scopes: SecurityScopes,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
) -> None:
    await admit(request, given, *scopes.scopes)


def scope(name: str) -> Any:
    """The dependency of a route that needs the scope `name`."""
    return Security(_check, scopes=[name])


def _read(text: str) -> dict[str, frozenset[str]]:
    if not text:
        return {}
    try:
        return {_digest(digest): _scopes(listed) for digest, listed in json.loads(text).items()}
    except (ValueError, AttributeError):
        # What it says is not told: it may be a token in clear.
        raise ConfigurationError(
            "MLPLATFORM_API_TOKENS is not a JSON object of SHA-256 digests (`printf %s TOKEN | sha256sum`),"
            ' each with a list of scopes: {"<64 hexadecimal digits>": ["models:read"]}'
        ) from None


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _digest(text: str) -> str:
    if len(bytes.fromhex(text)) != hashlib.sha256().digest_size:
        raise ValueError
    return text.lower()


def _scopes(listed: Any) -> frozenset[str]:
    # A text would be taken for its letters.
    if not isinstance(listed, list):
        raise ValueError
    return frozenset(map(str, listed))
