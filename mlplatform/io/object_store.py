"""Objects in one bucket, with the conditional writes that commits are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, BinaryIO

from mlplatform.errors import TransientError
from mlplatform.settings import S3Settings

if TYPE_CHECKING:
    from obstore.store import S3Store


class Conflict(Exception):
    """Someone else wrote first: what this write was based on is no longer the newest."""


class StoreUnavailable(TransientError):
    """The object store does not answer, or refuses; the message names it and the remedy."""


@dataclass(frozen=True)
class StoredObject:
    content: bytes
    etag: str


class ObjectStore:
    """One bucket of an S3-compatible store."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings

    @property
    def delta_options(self) -> dict[str, str]:
        """Storage options of `deltalake` for tables in this bucket."""
        settings = self._settings
        options = {
            "AWS_ACCESS_KEY_ID": settings.access_key_id,
            "AWS_SECRET_ACCESS_KEY": settings.secret_access_key,
            "AWS_REGION": settings.region,
            # Commits are conditional puts; without this, two writers could both win a version.
            "conditional_put": "etag",
            "timeout": "20s",
        }
        if settings.endpoint_url:
            options["AWS_ENDPOINT_URL"] = settings.endpoint_url
            options["AWS_ALLOW_HTTP"] = str(settings.endpoint_url.startswith("http://")).lower()
        return options

    def url(self, key: str) -> str:
        return "/".join(filter(None, ["s3:/", self._settings.bucket, self._settings.prefix, key]))

    @cached_property
    def _store(self) -> S3Store:
        from obstore.store import S3Store

        settings = self._settings
        store = partial(
            S3Store,
            settings.bucket,
            prefix=settings.prefix or None,
            access_key_id=settings.access_key_id,
            secret_access_key=settings.secret_access_key,
            region=settings.region,
            conditional_put="etag",
            # A store that restarts is back within seconds; a lost one should be said soon.
            retry_config={
                "max_retries": 30,
                "retry_timeout": timedelta(seconds=10),
                "backoff": {
                    "init_backoff": timedelta(seconds=0.1),
                    "max_backoff": timedelta(seconds=1),
                    "base": 2.0,
                },
            },
        )
        timeout = timedelta(seconds=20)
        if settings.endpoint_url is None:
            return store(client_options={"timeout": timeout})
        plain = settings.endpoint_url.startswith("http://")
        return store(endpoint=settings.endpoint_url, client_options={"timeout": timeout, "allow_http": plain})

    def get(self, key: str) -> StoredObject | None:
        """The object, or None if there is none."""
        import obstore

        try:
            answer = obstore.get(self._store, key)
            return StoredObject(bytes(answer.bytes()), str(answer.meta["e_tag"]))
        except FileNotFoundError:
            return None
        except obstore.exceptions.BaseError as error:
            raise self.unavailable(error) from error

    def chunks(self, key: str) -> Iterator[bytes]:
        """The content of an object that is there, some megabytes at a time."""
        import obstore

        try:
            for chunk in obstore.get(self._store, key):
                yield bytes(chunk)
        except (FileNotFoundError, obstore.exceptions.BaseError) as error:
            raise self.unavailable(error) from error

    def put(self, key: str, content: bytes) -> str:
        """Writes the object, whatever was there; returns its etag."""
        return self._put(key, content, "overwrite")

    def put_if(self, key: str, content: bytes, etag: str | None) -> str:
        """Writes only over the version `etag` (None: only if there is no object); returns the new etag.

        Raises:
            Conflict: the object is no longer that version.
        """
        import obstore

        try:
            return self._put(key, content, "create" if etag is None else {"e_tag": etag})
        except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError) as error:
            # A put whose answer was lost is tried again and meets its own first success.
            stored = self.get(key)
            if stored is not None and stored.content == content:
                return stored.etag
            raise Conflict(f"{self.url(key)} was written by someone else") from error

    def put_file(self, key: str, file: BinaryIO) -> None:
        """Writes what is left of the file, whatever was there; a large one in parts."""
        import obstore

        try:
            obstore.put(self._store, key, file)
        except obstore.exceptions.BaseError as error:
            raise self.unavailable(error) from error

    def list(self, prefix: str) -> list[str]:
        """Keys below a prefix."""
        return list(self.etags(prefix))

    def etags(self, prefix: str) -> dict[str, str]:
        """Keys below a prefix, with the etags of their objects."""
        import obstore

        try:
            listed = [meta for batch in obstore.list(self._store, prefix) for meta in batch]
        except obstore.exceptions.BaseError as error:
            raise self.unavailable(error) from error
        return {meta["path"]: str(meta["e_tag"]) for meta in listed}

    def delete(self, key: str) -> None:
        import obstore

        try:
            obstore.delete(self._store, key)
        except FileNotFoundError:
            return
        except obstore.exceptions.BaseError as error:
            raise self.unavailable(error) from error

    def unavailable(self, error: Exception) -> StoreUnavailable:
        """What to raise for an error of a client of this store."""
        first_line = str(error).strip().splitlines()[0]
        return StoreUnavailable(
            f"object store {self._settings.endpoint_url or 'S3'}, bucket {self._settings.bucket!r}: "
            f"{first_line}; look at `mlplatform status`"
        )

    def _put(self, key: str, content: bytes, mode) -> str:
        import obstore

        try:
            return str(obstore.put(self._store, key, content, mode=mode, use_multipart=False)["e_tag"])
        except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
            raise
        except obstore.exceptions.BaseError as error:
            raise self.unavailable(error) from error
