"""Access tokens: JWTs that say who asks, and are good for minutes."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, get_args
from uuid import UUID, uuid4

import jwt

from mlplatform.errors import PlatformError
from mlplatform.io.signing import kept_key
from mlplatform.settings import ConfigurationError, Settings

ALGORITHM = "HS256"
# As long as what it makes: a shorter one is easier to guess than the signature.
LEAST_KEY_BYTES = 32
ISSUER = "mlplatform"
AUDIENCE = "mlplatform-api"
# The clocks of two replicas may differ by it.
LEEWAY_SECONDS = 5
CLAIMS = ["sub", "iat", "nbf", "exp", "jti", "sid", "scopes", "type", "iss", "aud"]

Kind = Literal["user", "service"]


class InvalidToken(PlatformError):
    """A token is not good; the message says why, and never what it is."""


@dataclass(frozen=True)
class Claims:
    """What a token says.

    Attributes:
        user_id: whose it is, or who gave it to a service.
        session_id: without it, the token is good no more.
    """

    user_id: UUID
    session_id: UUID
    scopes: frozenset[str]
    kind: Kind


class AccessTokens:
    """Makes tokens and reads them.

    Args:
        key: signs; at least 32 bytes.
        previous_key: what it signed is still read; None: there is none.

    Raises:
        ConfigurationError: a key is too short.
    """

    def __init__(self, key: bytes, previous_key: bytes | None = None) -> None:
        self._key = _long_enough("MLPLATFORM_JWT_KEY", key)
        self._keys = [self._key]
        if previous_key is not None:
            self._keys.append(_long_enough("MLPLATFORM_JWT_PREVIOUS_KEY", previous_key))

    @classmethod
    def from_settings(cls, settings: Settings) -> AccessTokens:
        """Takes `MLPLATFORM_JWT_KEY`, else, in `local`, the key in the data directory, made on first use."""
        previous = settings.jwt_previous_key
        if settings.jwt_key:
            key = settings.jwt_key.encode()
        elif settings.environment == "local":
            key = kept_key(settings.data_directory / "keys" / "jwt.key")
        else:
            raise ConfigurationError(
                f"MLPLATFORM_JWT_KEY is not set; MLPLATFORM_ENV={settings.environment} needs it, the same for"
                " each replica: `openssl rand -hex 32` makes one"
            )
        return cls(key, previous.encode() if previous else None)

    def make(
        self, user_id: UUID, session_id: UUID, scopes: Collection[str], kind: Kind, seconds: float
    ) -> str:
        """A token that is good for so many seconds, as long as its session is."""
        now = time.time()
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "sid": str(session_id),
            "jti": str(uuid4()),
            "type": kind,
            "scopes": sorted(scopes),
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now + seconds),
        }
        return jwt.encode(claims, self._key, ALGORITHM)

    def read(self, token: str) -> Claims:
        """
        Raises:
            InvalidToken: it is not ours, or not good any more.
        """
        for key in self._keys:
            try:
                return _claims(self._decode(token, key))
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError:
                raise InvalidToken("the token has expired: refresh it, or log in") from None
            except (jwt.InvalidTokenError, ValueError, AttributeError, TypeError):
                break
        # What is wrong with it is of use only to those who try.
        raise InvalidToken("the token is not known")

    def _decode(self, token: str, key: bytes) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            leeway=LEEWAY_SECONDS,
            options={"require": CLAIMS},
        )


def _claims(claims: dict[str, Any]) -> Claims:
    kind, scopes = claims["type"], claims["scopes"]
    # A text would be taken for its letters.
    if kind not in get_args(Kind) or not isinstance(scopes, list):
        raise ValueError
    return Claims(UUID(claims["sub"]), UUID(claims["sid"]), frozenset(map(str, scopes)), kind)


def _long_enough(variable: str, key: bytes) -> bytes:
    if len(key) < LEAST_KEY_BYTES:
        raise ConfigurationError(
            f"{variable} has {len(key)} bytes, and needs {LEAST_KEY_BYTES}: `openssl rand -hex 32` makes one"
        )
    return key
