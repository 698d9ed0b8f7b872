"""Whether a service does its work: each probe is what a client does first, with a client's address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlplatform.settings import ConfigurationError, Settings

if TYPE_CHECKING:
    from obstore.store import S3Config

TIMEOUT_SECONDS = 2


class NotReady(Exception):
    """The service does not do its work (yet); the message says what it answered."""


def probe_s3(settings: Settings) -> None:
    """Write and delete one object: much else answers before anything can be stored.

    Not an empty one, which needs no place to be stored.
    """
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    s3 = settings.s3
    config: S3Config = {
        "access_key_id": s3.access_key_id,
        "secret_access_key": s3.secret_access_key,
        "region": s3.region,
    }
    if s3.endpoint_url:
        config["endpoint"] = s3.endpoint_url
    store = S3Store(
        s3.bucket,
        prefix=s3.prefix or None,
        config=config,
        client_options={"allow_http": True, "timeout": timedelta(seconds=TIMEOUT_SECONDS)},
        retry_config={"max_retries": 0},
    )
    try:
        obstore.put(store, ".mlplatform-probe", b"probe")
        obstore.delete(store, ".mlplatform-probe")
    except (BaseError, FileNotFoundError, PermissionError) as error:
        raise NotReady(_first_line(error)) from error


def probe_redis(settings: Settings) -> None:
    import redis

    try:
        with redis.Redis.from_url(
            settings.redis_url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
        ) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise NotReady(_first_line(error)) from error


def probe_postgresql(settings: Settings) -> None:
    import psycopg2

    try:
        psycopg2.connect(libpq_url(settings.database_url), connect_timeout=TIMEOUT_SECONDS).close()
    except psycopg2.Error as error:
        raise NotReady(_first_line(error)) from error


def probe_mlflow(settings: Settings) -> None:
    """Ask a server for an experiment, which it has to look up in its database."""
    import requests

    uri = settings.mlflow_tracking_uri
    if not uri.startswith(("http://", "https://")):
        return
    try:
        answer = requests.get(
            f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/get",
            params={"experiment_id": "0"},
            timeout=TIMEOUT_SECONDS,
        )
        # 404: the database was looked into, and somebody deleted the default experiment.
        if answer.status_code != 404:
            answer.raise_for_status()
    except requests.RequestException as error:
        raise NotReady(without_password(_first_line(error), uri)) from error


def without_password(text: str, url: str) -> str:
    """`text` without the user and password of `url`."""
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    return text.replace(user + at, "") if at else text


def libpq_url(sqlalchemy_url: str) -> str:
    """The same address for psycopg2 itself, which does not know SQLAlchemy's `+driver`."""
    return "postgresql://" + sqlalchemy_url.partition("://")[2]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


PROBES: Mapping[str, Callable[[Settings], None]] = {
    "s3": probe_s3,
    "redis": probe_redis,
    "postgresql": probe_postgresql,
    "mlflow": probe_mlflow,
}


def problem(service: str, settings: Settings) -> str | None:
    """Why `service` is not ready; None if it is."""
    try:
        PROBES[service](settings)
    except (NotReady, ConfigurationError) as error:
        return str(error)
    return None
