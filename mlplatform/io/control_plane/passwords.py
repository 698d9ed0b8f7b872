"""Hashes of passwords."""

from __future__ import annotations

import base64
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

# Argon2id with the second choice of RFC 9106: 64 MiB, and some 50 ms of a core.
_hasher = PasswordHasher()


def hashed(password: str) -> str:
    return _hasher.hash(password)


def matches(kept: str | None, password: str) -> bool:
    """Whether the password is that of the hash; None: there is nobody, which takes as long to find out."""
    try:
        return _hasher.verify(kept or _nobodys(), password) and kept is not None
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(kept: str) -> bool:
    """Whether the hash was made with other costs than today's."""
    return _hasher.check_needs_rehash(kept)


def _nobodys() -> str:
    """A hash, of today's costs, that no password is known of."""

    def random(length: int) -> str:
        return base64.b64encode(secrets.token_bytes(length)).decode().rstrip("=")

    costs = f"m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}"
    return f"$argon2id$v=19${costs}${random(_hasher.salt_len)}${random(_hasher.hash_len)}"
