"""The HTTP services as processes of their own, and servers that answer what a test wants."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mlplatform.settings import Settings
from mlplatform_tests.local.processes import NAMED_ELSEWHERE

END_SECONDS = 60


def on_stack(settings: Settings, directory: Path, prefix: str) -> dict[str, str]:
    """Variables of a machine of its own that uses the stores of `settings`."""
    s3 = settings.s3
    return {
        "MLPLATFORM_DATA_DIRECTORY": str(directory),
        "MLPLATFORM_S3_ENDPOINT_URL": s3.endpoint_url or "",
        "AWS_ACCESS_KEY_ID": s3.access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3.secret_access_key,
        "MLPLATFORM_S3_BUCKET": s3.bucket,
        "MLPLATFORM_S3_PREFIX": prefix,
        "MLPLATFORM_REDIS_URL": settings.redis_url,
        "MLPLATFORM_DATABASE_URL": settings.database_url,
    }


@contextmanager
def serving(variables: Mapping[str, str], *names: str) -> Iterator[dict[str, str]]:
    """These services in one process, as `mlplatform serve` has them, and the address of each."""
    # On free ports, all of them: other tests serve at the same time.
    code = f"from mlplatform.cli import serve; serve._serve(dict.fromkeys({names!r}, 0), None)"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NAMED_ELSEWHERE)}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**kept, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said: list[str] = []
    found: dict[str, str] = {}
    # Its log must go somewhere, or it waits.
    reader = threading.Thread(target=said.extend, args=[process.stdout])
    try:
        started = 0
        for line in process.stdout:
            said.append(line)
            if named := re.fullmatch(r"(\S+) +(http://\S+)\n", line):
                found[named[1]] = named[2]
            started += "Application startup complete" in line
            if found and started == len(found):
                break
        else:
            raise AssertionError("the services have not started:\n" + "".join(said))
        reader.start()
        yield found
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_SECONDS) == 0, "".join(said)
    finally:
        process.kill()
        process.wait()
        if reader.ident:
            reader.join()
        process.stdout.close()


@dataclass
class StandIn:
    """A server that gives each path its answers one after another, and the last one from then on."""

    url: str
    answers: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def requests(self, path: str) -> list[tuple[dict[str, str], Any]]:
        """Headers and body of each request to `path`."""
        return [(headers, body) for at, headers, body in self.asked if at == path]

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        left = self.answers.get(path, [(404, {"detail": "there is no such path"})])
        status, body, *headers = left.pop(0) if len(left) > 1 else left[0]
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return status, dict(*headers), content


@contextmanager
def standing_in(**answers: list[Any]) -> Iterator[StandIn]:
    """A stand-in; answers are `(status, body)` or `(status, body, headers)`, by path without the slash."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            stand_in.asked.append((path, dict(self.headers), json.loads(body) if body else None))
            status, headers, content = stand_in.answer(path)
            if status == 0:
                # Hangs up.
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            # Who asked may have given up.
            with suppress(ConnectionError):
                self.end_headers()
                self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stand_in = StandIn(f"http://127.0.0.1:{server.server_port}")
        stand_in.answers = {f"/{path}": given for path, given in answers.items()}
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield stand_in
        finally:
            server.shutdown()
            thread.join()
