"""The proxy does to connections what the tests that use it believe."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mlplatform_tests.services.proxy import Harm, Proxy

REPLY = b"x" * 100_000
heard: list[bytes] = []


class Handler(socketserver.BaseRequestHandler):
    """Much is the answer to every word."""

    def handle(self) -> None:
        with suppress(ConnectionError):
            while word := self.request.recv(4):
                heard.append(word)
                self.request.sendall(REPLY)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    heard.clear()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        made = Proxy(f"http://user@127.0.0.1:{server.server_address[1]}/path", seed=1)
        try:
            yield made
        finally:
            made.end()
            server.shutdown()
            thread.join()


def connected(proxy: Proxy) -> socket.socket:
    port = int(proxy.url.removeprefix("http://user@127.0.0.1:").removesuffix("/path"))
    return socket.create_connection(("127.0.0.1", port), timeout=1)


def ask(client: socket.socket) -> int:
    """How much of a reply came before the other side closed, or nothing more did."""
    client.sendall(b"word")
    count = 0
    while count < len(REPLY) and (piece := client.recv(65536)):
        count += len(piece)
    return count


def test_unhurt_all_arrives(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert [ask(client) for _ in range(3)] == [len(REPLY)] * 3
    assert (proxy.dropped, proxy.resets) == (0, 0)


def test_cut_connections_are_closed_and_others_not_made(proxy: Proxy) -> None:
    with connected(proxy) as client:
        ask(client)
        with proxy.cut():
            assert client.recv(1) == b""
            with connected(proxy) as other, suppress(ConnectionResetError):
                assert ask(other) == 0
    with connected(proxy) as client:
        assert ask(client) == len(REPLY)


def test_a_delay_is_of_each_piece(proxy: Proxy) -> None:
    with connected(proxy) as client, proxy.harming(Harm(delay=0.1)):
        began = time.monotonic()
        for _ in range(4):
            assert ask(client) == len(REPLY)
        assert time.monotonic() - began > 0.1
        assert heard == [b"word"] * 4


def test_what_is_dropped_is_waited_for_in_vain(proxy: Proxy) -> None:
    with connected(proxy) as client:
        with proxy.harming(Harm(drop=1)):
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):
                ask(client)
            client.sendall(b"more")
        # Not for ever: nobody's patience is what tests are to try.
        client.settimeout(1)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert heard == []
    assert proxy.dropped == 1


def ask_until_reset(client: socket.socket) -> int:
    """How much of the last reply had come by then."""
    while True:
        count = 0
        try:
            client.sendall(b"word")
            while count < len(REPLY):
                count += len(client.recv(65536)) or pytest.fail("closed as if all was said")
        except ConnectionResetError:
            return count


def test_a_reset_comes_in_the_middle(proxy: Proxy) -> None:
    """Of what is asked, or of the reply."""
    outcomes: set[str] = set()
    while len(outcomes) < 2:
        before = len(heard)
        with connected(proxy) as client, proxy.harming(Harm(reset=0.3)):
            count = ask_until_reset(client)
        if count:
            outcomes.add("in the reply")
        elif any(len(word) < 4 for word in heard[before:]):
            outcomes.add("in the word")
    assert proxy.resets >= 2


def test_a_server_that_is_away_lets_clients_go() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    proxy = Proxy(f"http://user@127.0.0.1:{port}/path")
    try:
        with connected(proxy) as client:
            assert client.recv(1) == b""
    finally:
        proxy.end()
