"""Signatures of model snapshots: a pickle is read back only if it is ours."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets

from mlplatform.settings import Settings

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
        path = settings.data_directory / "keys" / "snapshot.key"
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = path.with_name(f"{path.name}.{os.getpid()}")
            draft.touch(mode=0o600)
            draft.write_text(secrets.token_hex(32))
            try:
                # Fails if another process was first: then its key is the key.
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return cls(path.read_text().strip().encode())

    def sign(self, content: bytes) -> bytes:
        return hmac.new(self._key, content, hashlib.sha256).digest()

    def verifies(self, content: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(self.sign(content), signature)
