"""Artefacts in a bucket of an S3-compatible store."""

from __future__ import annotations

import dataclasses
import io
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from mlplatform.io.object_store import Conflict, ObjectStore, StoreUnavailable
from mlplatform.io.plugins.configuration import refuse_unknown_keys
from mlplatform.io.plugins.storages import StorageError
from mlplatform.settings import S3Settings, Settings

if TYPE_CHECKING:
    from obstore import GetOptions

OPTIONS = ("bucket", "endpoint_url", "access_key", "secret_key", "prefix", "region")
# A part of an upload, and what a reader fetches at once.
PART_BYTES = 8 << 20
# Each time that one of the writers of an object loses, another has won.
UPDATE_ATTEMPTS = 100
PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.5


class S3Storage:
    """Objects in `bucket`, below `prefix`; without configuration in the platform's own, below `artifacts/`.

    What else the configuration leaves out is taken from the platform's own store.
    """

    config_keys = OPTIONS

    def __init__(self, config: Mapping[str, Any], settings: Settings, root: Path) -> None:
        refuse_unknown_keys("storage s3", config, self.config_keys, StorageError)
        if config and not config.get("bucket"):
            raise StorageError("storage s3: config names no bucket; add `bucket`, or leave `config` out")
        self._s3 = _s3_settings(config, settings)
        url = self._s3.endpoint_url
        if url is not None and not url.startswith(("http://", "https://")):
            raise StorageError(
                f"storage s3: endpoint_url {url!r} is no address such as https://s3.example.com"
            )
        self._bucket = _Bucket(self._s3)
        # Elsewhere buckets belong to whoever runs the store: a typo must not make one.
        self._may_create = settings.environment == "local"
        self._looked = False

    def write(self, key: str, content: BinaryIO) -> str:
        with self._told():
            self._with_bucket(lambda: self._bucket.upload(_valid(key), content))
        return self.uri(key)

    def uri(self, key: str) -> str:
        return self._bucket.url(_valid(key))

    def open(self, uri: str) -> BinaryIO:
        start = self._bucket.url("") + "/"
        if not uri.startswith(start):
            raise StorageError(
                f"{uri} is not below {start}, where this storage keeps its objects; "
                "set `storage.config` to the bucket and prefix that the run wrote to"
            )
        with self._told():
            return self._bucket.reader(uri.removeprefix(start))

    def list(self, prefix: str) -> list[str]:
        with self._told():
            try:
                return sorted(self._bucket.list(prefix))
            except StoreUnavailable:
                if self._may_create and self._bucket.is_missing():
                    return []
                raise

    def update(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        with self._told():
            for attempt in range(UPDATE_ATTEMPTS):
                stored = self._bucket.get(_valid(key))
                content = change(stored.content if stored else None)
                etag = stored.etag if stored else None
                try:
                    self._with_bucket(lambda: self._bucket.put_if(key, content, etag))  # noqa: B023
                    return
                except Conflict:
                    pause = min(PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS)
                    time.sleep(random.uniform(0, pause))  # noqa: S311
        raise StorageError(
            f"{self.uri(key)} is written by so many at once that none of {UPDATE_ATTEMPTS} attempts was the "
            "newest; try again"
        )

    def check(self) -> None:
        key = ".mlplatform-check"
        with self._told():
            self._with_bucket(lambda: self._bucket.put(key, b"check"))
            self._bucket.delete(key)

    def _with_bucket(self, write: Callable[[], object]) -> None:
        """Calls `write`; makes a missing bucket before it, where that is allowed."""
        if self._may_create and not self._looked and self._bucket.is_missing():
            self._bucket.create()
        self._looked = True
        write()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable as error:
            if _no_bucket(error):
                raise StorageError(
                    f"storage s3: {self._s3.endpoint_url or 'S3'} has no bucket {self._s3.bucket!r}: create "
                    "it, "
                    "or correct `storage.config.bucket`"
                ) from error
            raise StorageError(f"storage s3: {error}") from error


def _s3_settings(config: Mapping[str, Any], settings: Settings) -> S3Settings:
    if not config:
        own = settings.s3
        return dataclasses.replace(own, prefix="/".join(filter(None, [own.prefix, "artifacts"])))
    keys = [config.get("access_key"), config.get("secret_key")]
    if any(keys) and not all(keys):
        raise StorageError("storage s3: access_key and secret_key belong together; give both, or neither")
    own = None if all(keys) else settings.s3
    return S3Settings(
        config.get("endpoint_url") or (own.endpoint_url if own else None),
        own.access_key_id if own else str(keys[0]),
        own.secret_access_key if own else str(keys[1]),
        config["bucket"],
        config.get("region") or (own.region if own else "us-east-1"),
        str(config.get("prefix") or "").strip("/"),
    )


def _no_bucket(error: StoreUnavailable) -> bool:
    return "NoSuchBucket" in str(error.__cause__)


def _valid(key: str) -> str:
    if not key or key.startswith("/") or ".." in PurePosixPath(key).parts:
        raise StorageError(f"{key!r} is no key: it must be a relative path without '..'")
    return key


class _Bucket(ObjectStore):
    """An object store with objects that are larger than memory."""

    def upload(self, key: str, content: BinaryIO) -> None:
        """Puts the object in parts; it is there only when the last part is."""
        import obstore

        first = content.read(PART_BYTES)
        if len(first) < PART_BYTES:
            self.put(key, first)
            return

        def parts() -> Iterator[bytes]:
            yield first
            while part := content.read(PART_BYTES):
                yield part

        try:
            obstore.put(self._store, key, parts(), use_multipart=True, chunk_size=PART_BYTES)
        except obstore.exceptions.BaseError as error:
            raise self.unavailable(error) from error

    def reader(self, key: str) -> BinaryIO:
        """Raises FileNotFoundError."""
        import obstore

        try:
            meta = obstore.head(self._store, key)
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no object {self.url(key)}") from None
        except obstore.exceptions.BaseError as error:
            raise self.unavailable(error) from error
        return io.BufferedReader(_RangeReader(self, key, meta["size"], str(meta["e_tag"])), PART_BYTES)

    def get_range(self, key: str, start: int, end: int, etag: str) -> bytes:
        """Bytes of the version `etag`."""
        import obstore

        try:
            options: GetOptions = {"range": (start, end), "if_match": etag}
            return bytes(obstore.get(self._store, key, options=options).bytes())
        except (FileNotFoundError, obstore.exceptions.PreconditionError):
            raise StorageError(
                f"{self.url(key)} was replaced while it was read; run the step again"
            ) from None
        except obstore.exceptions.BaseError as error:
            raise self.unavailable(error) from error

    def is_missing(self) -> bool:
        try:
            self.list(".mlplatform-check")
        except StoreUnavailable as error:
            if _no_bucket(error):
                return True
            raise
        return False

    def create(self) -> None:
        """Makes the bucket: the client has no call for it, but signs any request."""
        import obstore
        import requests

        try:
            address = obstore.sign(self._store, "PUT", "", timedelta(minutes=1))
            answer = requests.put(address, timeout=20)
            # Conflict: someone else was first.
            if answer.status_code != requests.codes.conflict:
                answer.raise_for_status()
        except (obstore.exceptions.BaseError, requests.RequestException) as error:
            raise StorageError(
                f"storage s3: the bucket of {self.url('')} cannot be created ({type(error).__name__}): "
                "create it"
            ) from error


class _RangeReader(io.RawIOBase):
    """One version of an object, read piece by piece."""

    def __init__(self, bucket: _Bucket, key: str, size: int, etag: str) -> None:
        self._bucket, self._key, self._size, self._etag = bucket, key, size, etag
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readall(self) -> bytes:
        # The inherited one asks for 8 KB at a time.
        content = io.BytesIO()
        while self._position < self._size:
            end = min(self._position + PART_BYTES, self._size)
            content.write(self._bucket.get_range(self._key, self._position, end, self._etag))
            self._position = end
        return content.getvalue()

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        content = self._bucket.get_range(self._key, self._position, end, self._etag)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
