"""Who listens to server-sent events."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Heard:
    id: str
    kind: str
    data: dict[str, Any]


def heard(client: httpx.Client, path: str, last: str | None = None) -> Generator[Heard, None, None]:
    """What comes, until the stream ends; closing the iterator cuts it off."""
    headers = {"Last-Event-ID": last} if last is not None else {}
    with client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line.startswith(":"):
                continue
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield Heard(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
                fields = {}
