"""The whole control plane as processes that can be killed, stopped and lost, each started again."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from mlplatform.domain.jobs.states import TERMINAL
from mlplatform.io.control_plane import executions
from mlplatform.io.control_plane.database import Database
from mlplatform.local import launcher, ports
from mlplatform_tests.io.control_plane import histories
from mlplatform_tests.local.processes import COMMAND, descendants, environment, eventually

START_SECONDS = 90
LOCATION = "mlplatform.control_plane_definitions"
# Every process asks about itself every quarter of it.
HEARTBEAT_TIMEOUT_SECONDS = 4


class Process:
    """A process that starts again when it ends, until it is to end."""

    def __init__(self, home: Path, name: str, command: Sequence[str], variables: dict[str, str]) -> None:
        self.name = name
        self.log = home / f"{name}.log"
        self._command = [sys.executable, "-I", "-S", launcher.__file__, "--parent", str(os.getpid())]
        self._command += ["--signal", "SIGKILL", "--", *command]
        self._home, self._variables = home, variables
        self._ending = threading.Event()
        self._running = self._start()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._running.pid

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def stop(self, seconds: float) -> None:
        """It is not heard for a while, and then thinks that nothing has happened."""
        process = self._running
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)

    def end(self) -> None:
        self._ending.set()
        below = descendants(self.pid)
        self._signal(signal.SIGKILL)
        self._thread.join()
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self._command, env=self._variables, cwd=self._home, stdout=output, stderr=output
            )

    def _keep(self) -> None:
        while not self._ending.is_set():
            self._running.wait()
            if not self._ending.wait(0.5):
                self._running = self._start()
        self._running.wait()


class ControlPlane:
    """Two API processes on one database, Dagit, its daemon, the code server, and workers.

    Args:
        variables: that point at an embedded stack.
        workers: each runs two commands at once.
    """

    def __init__(self, home: Path, database: Database, variables: dict[str, str], workers: int) -> None:
        self.database = database
        self._exit = ExitStack()
        self.home = home
        configuration = Path("dagster.yaml").read_text().replace(".mlplatform/dagster", str(home / "dagster"))
        (home / "dagster.yaml").write_text(configuration)
        self._variables = environment(home, **variables, DAGSTER_HOME=str(home))
        self._variables["MLPLATFORM_CONTROL_PLANE_SCHEMA"] = database.schema
        code, dagit, *apis = (ports.choose(set()) for _ in range(4))
        self._variables["MLPLATFORM_DAGIT_URL"] = f"http://127.0.0.1:{dagit}"
        (home / "workspace.yaml").write_text(
            f"load_from:\n  - grpc_server: {{host: 127.0.0.1, port: {code}, location_name: {LOCATION}}}\n"
        )
        dagster = [sys.executable, "-m", "dagster"]
        self.code = self._process(
            "code",
            [*dagster, "code-server", "start", "-m", LOCATION, "-h", "127.0.0.1", "-p", str(code)],
        )
        assert eventually(lambda: _listens(code), START_SECONDS), self.code.log.read_text()
        self.dagit = self._process(
            "dagit",
            [
                sys.executable,
                "-m",
                "dagster_webserver",
                "-w",
                "workspace.yaml",
                "-h",
                "127.0.0.1",
                "-p",
                str(dagit),
            ],
        )
        self.daemon = self._process(
            "daemon", [sys.executable, "-m", "dagster._daemon", "run", "-w", "workspace.yaml"]
        )
        self.apis = [
            self._process(f"api-{port}", [*COMMAND, "serve", "api", "--port", str(port)]) for port in apis
        ]
        self.workers = [self.add_worker(f"worker-{number}") for number in range(workers)]
        self.clients = [
            self._exit.enter_context(
                httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)
            )
            for port in apis
        ]
        for client, process in zip(self.clients, self.apis, strict=True):
            assert eventually(lambda client=client: _ready(client), START_SECONDS), process.log.read_text()

    def add_worker(self, name: str) -> Process:
        start = ["worker", "start", "--name", name, "--slots", "2"]
        start += ["--timeout-seconds", str(HEARTBEAT_TIMEOUT_SECONDS)]
        return self._process(name, [*COMMAND, *start])

    def _process(self, name: str, command: Sequence[str]) -> Process:
        process = Process(self.home, name, command, self._variables)
        self._exit.callback(process.end)
        return process

    def ask(self, method: str, path: str, **request: object) -> httpx.Response:
        """Of either API process, until one answers; what is asked may be asked again."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            for client in random.sample(self.clients, len(self.clients)):
                with suppress(httpx.TransportError):
                    answer = client.request(method, path, **request)  # type: ignore[arg-type]
                    if answer.status_code < 500:
                        return answer
            assert time.monotonic() < deadline, "neither of the two answers"
            time.sleep(0.1)

    def run_of(self, pid: int) -> str:
        """What the events of all runs say of a process: the ids of those that it executes."""
        query = "{ runsOrError(limit: 20) { ... on Runs { results { runId eventConnection { events {"
        query += (
            " __typename ... on EngineEvent { metadataEntries { ... on IntMetadataEntry { label intValue }"
        )
        query += " ... on TextMetadataEntry { label text } } } } } } } } }"
        found = []
        for run in self.graphql(query)["runsOrError"]["results"]:
            for event in run["eventConnection"]["events"]:
                values = [
                    str(entry.get("intValue", entry.get("text")))
                    for entry in event.get("metadataEntries", ())
                ]
                if str(pid) in values:
                    found.append(run["runId"])
        return " ".join(found)

    def graphql(self, query: str) -> dict[str, Any]:
        """What Dagit answers."""
        url = f"{self._variables['MLPLATFORM_DAGIT_URL']}/graphql"
        answer = httpx.post(url, json={"query": query}, trust_env=False, timeout=30)
        return answer.raise_for_status().json()["data"]

    def logs(self) -> str:
        """The last lines of every process."""
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}"
            for path in sorted(self.home.glob("*.log"))
        )

    def close(self) -> None:
        self._exit.close()


@contextmanager
def control_plane(
    home: Path, database: Database, variables: dict[str, str], workers: int
) -> Iterator[ControlPlane]:
    plane = ControlPlane(home, database, variables, workers)
    try:
        yield plane
    finally:
        plane.close()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _ready(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/ready").status_code == 200
    return False


def troubled(plane: ControlPlane, jobs: int, kills: int, chance: random.Random, seconds: float) -> None:
    """Many jobs at once while processes are killed and stopped, and what must hold in the end.

    Args:
        seconds: over which the kills are spread.
    """
    told = plane.home / "told"
    # What it does is on disk before it ends.
    command = (
        'echo "$MLPLATFORM_JOB_ID begun $(date +%s.%N)" >> "$0"; sleep "$1"; '
        'echo "$MLPLATFORM_JOB_ID done" >> "$0"'
    )
    ids = []
    for number in range(jobs):
        asked = {
            "name": f"job {number}",
            "command": ["sh", "-c", command, str(told), f"{chance.uniform(0, 1.5):.2f}"],
            "priority": number % 3,
        }
        # The same answer, whichever of the two has made it and died.
        key = {"Idempotency-Key": f"{plane.database.schema} {number}"}
        ids.append(plane.ask("POST", "/api/v1/jobs", json=asked, headers=key).json()["id"])
    assert len(set(ids)) == jobs
    victims = [plane.daemon, plane.dagit, *plane.apis, *plane.workers, *plane.workers]
    for _ in range(kills):
        time.sleep(seconds / kills)
        victim = chance.choice(victims)
        if victim in plane.workers and chance.random() < 0.3:
            # Longer than it may be silent: it comes back as a zombie.
            threading.Thread(target=victim.stop, args=[HEARTBEAT_TIMEOUT_SECONDS * 1.75]).start()
        else:
            victim.kill()

    def ended() -> bool:
        open_ = plane.ask("GET", "/api/v1/jobs", params={"limit": 1000}).json()
        return all(job["status"] in TERMINAL for job in open_)

    assert eventually(ended, 120 + 10 * jobs), plane.logs()
    begun: dict[str, list[float]] = {id_: [] for id_ in ids}
    finished = set()
    for line in told.read_text().splitlines():
        id_, what, *at = line.split()
        if what == "begun":
            begun[id_].append(float(at[0]))
        else:
            finished.add(id_)
    for id_ in ids:
        histories.check(plane.database, uuid.UUID(id_))
        job = plane.ask("GET", f"/api/v1/jobs/{id_}").json()
        assert (job["status"], job["reason"]) in (("Success", None), ("Failed", "worker_lost")), (
            job,
            plane.logs(),
        )
        if job["status"] == "Success":
            assert id_ in finished
            ended_at = datetime.fromisoformat(job["finished_at"]).timestamp()
            assert max(begun[id_]) < ended_at, "begun again after its success"
        assert len(begun[id_]) <= 1 + executions.REPLACEMENTS
