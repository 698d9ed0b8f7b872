"""One H2O server for all tests of a session: each takes seconds to start."""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from mlplatform.io.h2o.server import Server, running_server


@cache
def shared_server() -> Server:
    resources = ExitStack()
    atexit.register(resources.close)
    folder = Path(resources.enter_context(TemporaryDirectory(prefix="mlplatform-h2o-")))
    return resources.enter_context(running_server(folder, cpus=2, memory_bytes=1536 * 1024**2))
