"""Posts events to addresses that users have given, and to no other place."""

from __future__ import annotations

import ipaddress
import json
import socket
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx
from sqlalchemy import RowMapping

from mlplatform.errors import PlatformError
from mlplatform.io.control_plane.publishing import Published
from mlplatform.io.control_plane.webhook_secrets import signature

# Of all of a request: the look-up of the name, TLS, and an answer that comes letter by letter.
SECONDS = 15.0
GONE = 410
# Addresses that stand for others, which may be within.
TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


class AddressRefused(PlatformError):
    """Nothing is sent there: it is not public, or not protected by TLS."""


def check_url(url: str, public: bool) -> None:
    """What can be said of an address before its name is looked up.

    Args:
        public: whether it has to be protected by TLS, and on the Internet.

    Raises:
        AddressRefused: it is neither, or has a password in it.
    """
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise AddressRefused("the address has a user in it, which everybody could read")
    if public and parts.scheme != "https":
        raise AddressRefused("outside local, only https:// is posted to")
    with suppress(ValueError):
        _check(ipaddress.ip_address(parts.hostname or ""), public)


class WebhookPublisher:
    """Posts each event to one address, as Standard Webhooks 1.0 specifies it.

    Args:
        secrets: each signs; the newest first.
        public: whether only public addresses are posted to.
    """

    def __init__(self, url: str, secrets: Sequence[str], public: bool) -> None:
        self._url = url
        self._secrets = secrets
        self._public = public
        self._backend = _Checked(public)

    def publish(self, events: Sequence[RowMapping]) -> Published:
        position = None
        with self._pool() as pool:
            for event in events:
                answered = self._post(pool, str(event["event_id"]), _body(event))
                if answered.trouble is not None:
                    return Published(position, answered.trouble, answered.seconds_to_wait, answered.unwanted)
                position = event["id"]
        return Published(position)

    def test(self) -> Published:
        """Posts an event that never was."""
        at = datetime.now(UTC).isoformat()
        body = {"type": "webhook.test", "timestamp": at, "data": {}}
        with self._pool() as pool:
            return self._post(pool, str(uuid.uuid4()), json.dumps(body).encode())

    def _pool(self) -> httpcore.ConnectionPool:
        return httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(), network_backend=self._backend, max_connections=1
        )

    def _post(self, pool: httpcore.ConnectionPool, message_id: str, body: bytes) -> Published:
        url = httpx.URL(self._url)
        timestamp = int(time.time())
        headers: dict[str | bytes, str | bytes] = {
            "Host": url.netloc.decode(),
            "Content-Type": "application/json",
            "User-Agent": f"mlplatform/{version('mlplatform')}",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(
                signature(secret, message_id, timestamp, body) for secret in self._secrets
            ),
        }
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        self._backend.until = time.monotonic() + SECONDS
        try:
            check_url(self._url, self._public)
            # What it says is not read: nobody here would know what to make of it.
            with pool.stream("POST", target, headers=headers, content=body) as answer:
                return _judged(answer)
        except httpcore.TimeoutException:
            return Published(None, f"no answer within {SECONDS:g} seconds")
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            OSError,
            UnicodeError,
            AddressRefused,
        ) as error:
            return Published(None, str(error) or type(error).__name__)


def _judged(answer: httpcore.Response) -> Published:
    if 200 <= answer.status < 300:
        return Published(None)
    said = dict(answer.headers).get(b"Retry-After") or dict(answer.headers).get(b"retry-after") or b""
    return Published(
        None, f"it answered {answer.status}", _seconds(said.decode("latin-1")), answer.status == GONE
    )


def _seconds(text: str) -> float | None:
    """Of a header `Retry-After`: seconds, or a date."""
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return float(text)
    # TypeError: of a date without its time zone.
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    return None


def _body(event: RowMapping) -> bytes:
    told: dict[str, Any] = {
        "type": event["type"],
        "timestamp": event["at"].isoformat(),
        "id": event["id"],
        "event_id": str(event["event_id"]),
        "job_id": event["job_id"] and str(event["job_id"]),
        "sequence": event["sequence"],
        "data": event["data"],
    }
    return json.dumps(told, separators=(",", ":")).encode()


class _Checked(httpcore.SyncBackend):
    """Looks at the addresses that a name leads to, and connects to the ones that it has looked at.

    Attributes:
        until: when the request is to be over, by `time.monotonic`.
    """

    def __init__(self, public: bool) -> None:
        self._public = public
        self.until = 0.0

    def left(self) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout
        return left

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"there is no {host} ({error.strerror})") from None
        addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
        for address in addresses:
            # All, since a name with one of each kind is a trick.
            _check(ipaddress.ip_address(address.partition("%")[0]), self._public)
        failure: Exception = httpcore.ConnectError(f"there is no {host}")
        for address in addresses:
            try:
                stream = super().connect_tcp(address, port, self.left(), local_address, socket_options)
                return _InTime(stream, self)
            except httpcore.ConnectError as error:
                failure = error
        raise failure


class _InTime(httpcore.NetworkStream):
    """A stream that is over when its request is to be."""

    def __init__(self, stream: httpcore.NetworkStream, request: _Checked) -> None:
        self._stream = stream
        self._request = request

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._request.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._request.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._request.left())
        return _InTime(stream, self._request)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _check(address: ipaddress.IPv4Address | ipaddress.IPv6Address, public: bool) -> None:
    if not public:
        return
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            address = address.ipv4_mapped
        elif address.sixtofour or address.teredo or any(address in network for network in TRANSLATED):
            raise AddressRefused(f"{address} stands for an address that may be private")
    if not address.is_global or address.is_multicast:
        raise AddressRefused(f"{address} is not a public address")
