"""A stand-in for the price service: answers as it is told, and counts what it was asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PRICE = b'{"data": {"base": "BTC", "currency": "USD", "amount": "97123.45"}}'


@dataclass
class Exchange:
    """What the next answers are."""

    url: str = ""
    status: int = 200
    body: bytes = PRICE
    headers: dict[str, str] = field(default_factory=dict)
    delay_before: float = 0.0
    delay_within: float = 0.0
    asked: list[str] = field(default_factory=list)


@contextmanager
def running_exchange() -> Iterator[Exchange]:
    exchange = Exchange()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            exchange.asked.append(self.path)
            time.sleep(exchange.delay_before)
            try:
                self.send_response(exchange.status)
                for name, value in exchange.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(exchange.body)))
                self.end_headers()
                half = len(exchange.body) // 2
                self.wfile.write(exchange.body[:half])
                self.wfile.flush()
                time.sleep(exchange.delay_within)
                self.wfile.write(exchange.body[half:])
            except (BrokenPipeError, ConnectionResetError):
                # The client has given up.
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        exchange.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield exchange
        finally:
            server.shutdown()
            thread.join()
