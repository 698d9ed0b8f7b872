"""A graph on a disk that is full for a while; a process of its own, in a mount namespace of its own.

    unshare --user --map-root-user --mount python -m mlplatform_tests.faults.full_disk DIRECTORY

DIRECTORY becomes a small disk in memory, which ends with the namespace. Prints what it found as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from pathlib import Path

from mlplatform.local import ports
from mlplatform.local.stack import running_stack, status
from mlplatform.settings import Settings
from mlplatform_tests.faults.harness import differences, run_in_child, what_is_left
from mlplatform_tests.faults.outages import STEPS
from mlplatform_tests.graphs import Graph, failure_message, replay

# The stack starts only where there are 256 MiB.
SIZE = "320m"
# SeaweedFS looks once a minute whether there is room again.
FREED_SECONDS = 130


def fill(path: Path) -> None:
    """Writes until nothing more fits."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"\0" * size):
                    continue
            except OSError:
                continue


def main() -> None:
    directory = Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(directory)], check=True)
    # The graph needs no database, and this is not about Redis.
    variables = {
        "MLPLATFORM_DATA_DIRECTORY": str(directory / "data"),
        "MLPLATFORM_DATABASE_URL": "postgresql+psycopg2://nobody@127.0.0.1:9/none",
        "MLPLATFORM_REDIS_URL": "redis://127.0.0.1:9/0",
        "MLPLATFORM_STACK_SERVICES": "s3",
        "MLPLATFORM_LEASE_SECONDS": "0.5",
    }
    with running_stack(Settings(variables), {"s3": ports.choose(set())}):
        json.dump(_story(directory, variables), sys.stdout)


def _story(directory: Path, variables: dict[str, str]) -> dict[str, object]:
    for step in STEPS:
        # Every attempt waits for the store on its own account; one is enough to be told.
        step.RETRY = None
    whole, full = (
        Graph({**variables, "MLPLATFORM_S3_PREFIX": uuid.uuid4().hex}, [replay(last=60)], ["ridge", "linear"])
        for _ in range(2)
    )
    found: dict[str, object] = {"before": full.run(10).success}
    fill(directory / "filler")
    result = full.run(10)
    found |= {"while_full": result.success, "failure": failure_message(result)}
    found |= {"status": {service.name: service.problem for service in status(Settings(variables)).services}}
    (directory / "filler").unlink()
    began = time.monotonic()
    while not (freed := full.run(10)).success and time.monotonic() - began < FREED_SECONDS:
        time.sleep(1)
    found |= {"freed": freed.success, "seconds": time.monotonic() - began}
    found["last_failure"] = failure_message(freed)
    found["exit_codes"] = [run_in_child(graph, limit=1000, runs=None).exit_code for graph in (full, whole)]
    found["differences"] = differences(what_is_left(whole), what_is_left(full))
    return found


if __name__ == "__main__":
    main()
