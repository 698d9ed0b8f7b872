"""Who may call what: bearer tokens with scopes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from mlplatform.services.refusals import Refused
from mlplatform.settings import ConfigurationError, Settings

# 401 comes from us, not from FastAPI, so that it has the shape of every other refusal.
_bearer = HTTPBearer(auto_error=False, description="A token of MLPLATFORM_API_TOKENS")


class Tokens:
    """The tokens that are known, by their SHA-256: none of them is kept in clear.

    Without any, everything is allowed in `local`, where services listen on the loopback interface only.

    Raises:
        ConfigurationError: there are none outside `local`, or the variable does not say which.
    """

    def __init__(self, settings: Settings) -> None:
        self._scopes = _read(settings.api_tokens)
        self.required = bool(self._scopes) or settings.environment != "local"
        if self.required and not self._scopes:
            raise ConfigurationError(
                f"MLPLATFORM_API_TOKENS is not set; MLPLATFORM_ENV={settings.environment} needs it: "
                '{"<SHA-256 of a token, in hex>": ["models:read", "models:write"]}'
            )

    def allow(self, token: str | None, scope: str) -> bool:
        """Whether the token of a request (None: it has none) is enough for the scope."""
        return not self.required or (token is not None and scope in (self.scopes(token) or ()))

    def scopes(self, token: str) -> frozenset[str] | None:
        """None for a token that nobody has."""
        return self._scopes.get(hashlib.sha256(token.encode()).hexdigest())


def bearer(headers: Mapping[bytes, bytes]) -> str | None:
    """The token in the headers of a request as ASGI has them."""
    kind, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return token if kind.lower() == "bearer" else None


def scope(name: str) -> Any:
    """The dependency of a route that needs the scope `name`."""

    async def check(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> None:
        tokens: Tokens = request.app.state.tokens
        if not tokens.required:
            return
        scopes = tokens.scopes(given.credentials) if given else None
        if scopes is None:
            reason = "the token is not known" if given else "a bearer token is needed"
            raise Refused(401, reason, {"WWW-Authenticate": "Bearer"})
        if name not in scopes:
            raise Refused(403, f"the token has not the scope {name}")

    return Depends(check)


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


def _digest(text: str) -> str:
    if len(bytes.fromhex(text)) != hashlib.sha256().digest_size:
        raise ValueError
    return text.lower()


def _scopes(listed: Any) -> frozenset[str]:
    # A text would be taken for its letters.
    if not isinstance(listed, list):
        raise ValueError
    return frozenset(map(str, listed))
