"""Ports on the loopback interface."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Collection

# Below the range from which the kernel takes the ports of outgoing connections, so that none of them
# sits on a server's port while it restarts.
LOWEST, HIGHEST = 20_000, 31_999


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: connections that linger after a stop do not make a port busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose(taken: Collection[int], fits: Callable[[int], bool] = is_free) -> int:
    """A port at random that `fits` and is not in `taken`."""
    chance = random.SystemRandom()
    while True:
        port = chance.randint(LOWEST, HIGHEST)
        if port not in taken and fits(port):
            return port
