"""A value written to each service of a stack, and read back."""

from __future__ import annotations

from contextlib import closing

import obstore
import psycopg2
import redis
from obstore.store import S3Store

from mlplatform.local.probes import libpq_url
from mlplatform.settings import Settings


def _store(settings: Settings) -> S3Store:
    s3 = settings.s3
    return S3Store(
        s3.bucket,
        endpoint=s3.endpoint_url or "",
        access_key_id=s3.access_key_id,
        secret_access_key=s3.secret_access_key,
        region=s3.region,
        client_options={"allow_http": True, "timeout": "10s"},
    )


def write(settings: Settings, value: str) -> None:
    obstore.put(_store(settings), "kept", value.encode())
    with redis.Redis.from_url(settings.redis_url) as client:
        client.set("kept", value)
    with closing(psycopg2.connect(libpq_url(settings.database_url))) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
        cursor.execute("INSERT INTO kept VALUES (%s)", [value])


def read(settings: Settings) -> list[str]:
    """The value as S3, Redis and PostgreSQL have it."""
    found = [bytes(obstore.get(_store(settings), "kept").bytes()).decode()]
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as client:
        found.append(str(client.get("kept")))
    with closing(psycopg2.connect(libpq_url(settings.database_url))) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT value FROM kept")
        found += [row[0] for row in cursor.fetchall()]
    return found
