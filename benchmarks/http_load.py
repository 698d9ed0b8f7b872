"""Sends requests over some connections, and tells how long each took: `python -m benchmarks.http_load`.

Reads `{"method", "port", "path", "bodies", "connections", "rate"}` as JSON from stdin. With a `rate`
(requests a second), each is sent at its time, and counts from then, whether or not the ones before were
answered.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop


async def main(asked: dict) -> dict[str, object]:
    first = f"{asked['method']} {asked['path']}"
    requests = [
        (
            f"{first} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}"
        ).encode()
        for body in asked["bodies"]
    ]
    waiting = iter(enumerate(requests))
    taken: list[float] = []
    failed: list[str] = []
    began = time.perf_counter()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", asked["port"])
        for number, request in waiting:
            sent = time.perf_counter()
            if asked.get("rate"):
                due = began + number / asked["rate"]
                await asyncio.sleep(max(0.0, due - sent))
                sent = due
            closed = False
            try:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                answer = (await reader.readexactly(length)).decode()
                closed = b"connection: close" in head
                if not head.startswith(b"http/1.1 20"):
                    failed.append(answer[:200])
            except (OSError, asyncio.IncompleteReadError) as error:
                failed.append(f"{type(error).__name__}: {error}")
                closed = True
            taken.append(time.perf_counter() - sent)
            if closed:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", asked["port"])
        writer.close()

    await asyncio.gather(*(connection() for _ in range(asked["connections"])))
    return {"seconds": time.perf_counter() - began, "taken": taken, "failed": failed}


if __name__ == "__main__":
    json.dump(uvloop.run(main(json.load(sys.stdin))), sys.stdout)
