"""Signatures of model snapshots: a pickle is read back only if it is ours; and keys of this machine."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from mlplatform.settings import ConfigurationError, Settings

SIGNATURE_BYTES = 32


class Signer:
    """HMAC-SHA256 with the platform's snapshot key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def from_settings(cls, settings: Settings) -> Signer:
        """Takes `MLPLATFORM_SNAPSHOT_KEY`, else the key in the data directory, made on first use."""
        if settings.snapshot_key:
            return cls(settings.snapshot_key.encode())
        if settings.environment != "local":
            raise ConfigurationError(
                "MLPLATFORM_SNAPSHOT_KEY is not set: each process would refuse the snapshots of the others"
            )
        return cls(kept_key(settings.data_directory / "keys" / "snapshot.key"))

    def sign(self, content: bytes) -> bytes:
        return hmac.new(self._key, content, hashlib.sha256).digest()

    def verifies(self, content: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(self.sign(content), signature)


def kept_key(path: Path) -> bytes:
    """The secret in a file that only its owner reads; made on first use, once, whoever else does so then.

    Raises:
        ConfigurationError: the file is empty.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes files of mode 600.
        handle, draft = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        with open(handle, "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            # A power cut must not leave an empty key, which anyone could sign with.
            os.fsync(file.fileno())
        try:
            # Fails if another was first: then its key is the key.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(draft)
    key = path.read_text().strip()
    if not key:
        raise ConfigurationError(f"{path} is empty: remove it, and what it signed is made again")
    return key.encode()
