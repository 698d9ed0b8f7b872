"""`mlplatform jobs` and `mlplatform workers` against a control plane whose workers are the test's."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator

import pytest

from mlplatform.client import Client
from mlplatform.io.control_plane.database import Database
from mlplatform_tests.cli.control_plane import CommandLine
from mlplatform_tests.client.conftest import address, database, nothing_set
from mlplatform_tests.client.running import Run
from mlplatform_tests.local.processes import eventually

__all__ = ["address", "database", "nothing_set"]
ECHO = ("--", "echo", "hello")


@pytest.fixture
def mlplatform(address: str) -> CommandLine:
    return CommandLine(address)


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


def submitted(mlplatform: CommandLine) -> uuid.UUID:
    return uuid.UUID(mlplatform("jobs", "submit", *ECHO).stdout.strip())


def test_a_command_is_submitted_with_what_it_needs(mlplatform: CommandLine, client: Client) -> None:
    needs = [
        "--name",
        "hello",
        "--env",
        "A=1",
        "--env",
        "B=x=y",
        "--cpu",
        "500m",
        "--memory",
        "2Gi",
        "--gpu",
        "1",
    ]
    needs += ["--feature", "cuda-12", "--retries", "2", "--timeout", "1.5m", "--priority", "7"]
    needs += ["--secret", "token", "--key", "once"]
    job_id = mlplatform("jobs", "submit", *needs, "--", "python", "-c", "print(1)").stdout.strip()
    job = client.jobs.get(uuid.UUID(job_id))
    assert (job.name, job.priority) == ("hello", 7)
    assert job.spec
    assert job.spec.model_dump() == {
        "name": "hello",
        "image": None,
        "command": ["python", "-c", "print(1)"],
        "resources": {"cpu_m": 500, "memory_mb": 2048, "gpu": 1},
        "features": frozenset({"cuda-12"}),
        "timeout_ms": 90_000,
        "retries": 2,
        "env": {"A": "1", "B": "x=y"},
        "secret_refs": ["token"],
    }
    again = mlplatform("jobs", "submit", *needs, "--", "python", "-c", "print(1)").stdout.strip()
    assert again == job_id


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say what to run"),
        (("--pipeline", "nightly", *ECHO), "say what to run"),
        (
            ("--pipeline", "nightly", "--retries", "1"),
            "the stages of a pipeline say these themselves: retries",
        ),
        (("--env", "A", *ECHO), "'A' is not NAME=VALUE"),
        (("--memory", "2 GB", *ECHO), "'2 GB' is no quantity"),
        (("--timeout", "soon", *ECHO), "'soon' is no time such as"),
    ],
)
def test_what_cannot_be_submitted_is_refused(
    mlplatform: CommandLine, arguments: tuple[str, ...], said: str
) -> None:
    assert said in mlplatform("jobs", "submit", *arguments, code=2).stderr


@pytest.mark.parametrize(("exit_code", "code", "status"), [(0, 0, "Success"), (7, 1, "Failed")])
def test_a_log_is_followed_to_its_end(
    mlplatform: CommandLine, client: Client, database: Database, exit_code: int, code: int, status: str
) -> None:
    def work() -> None:
        assert eventually(lambda: any(client.jobs.list()))
        run = Run(database, next(client.jobs.list()).id)
        run.say("one", "two")
        run.end(exit_code)

    worker = threading.Thread(target=work)
    worker.start()
    followed = mlplatform("jobs", "submit", "--follow", *ECHO, code=code)
    worker.join()
    assert followed.stdout == "one\ntwo\n"
    [job] = client.jobs.list()
    assert followed.stderr.startswith(f"job {job.id}\n{job.id} is {status}")
    assert mlplatform("jobs", "logs", str(job.id)).stdout == "one\ntwo\n"
    assert mlplatform("jobs", "wait", str(job.id), code=code).stderr.startswith(f"{job.id} is {status}")


def test_only_the_log_of_this_round_is_followed(
    mlplatform: CommandLine, client: Client, database: Database
) -> None:
    job_id = submitted(mlplatform)
    first = Run(database, job_id)
    first.say("first")
    first.end(7)

    def work() -> None:
        assert eventually(lambda: client.jobs.get(job_id).round == 2)
        second = Run(database, job_id)
        second.say("second")
        second.end()

    worker = threading.Thread(target=work)
    worker.start()
    followed = mlplatform("jobs", "retry", "--follow", str(job_id))
    worker.join()
    assert followed.stdout == "second\n"
    both = mlplatform("jobs", "logs", str(job_id))
    assert both.stdout == "first\nsecond\n"
    assert "--- command, attempt 2" in both.stderr
    shown = mlplatform("jobs", "show", str(job_id)).stdout
    assert [line.split()[2:5] for line in shown.splitlines()[-2:]] == [
        ["1", "Failed", "7"],
        ["2", "Success", "0"],
    ]


def test_a_job_is_cancelled_and_told_of(mlplatform: CommandLine) -> None:
    job_id = str(submitted(mlplatform))
    assert (
        "is Pending after 0.1 seconds"
        in mlplatform("jobs", "wait", job_id, "--timeout", "0.1s", code=3).stderr
    )
    assert mlplatform("jobs", "cancel", job_id).stdout == f"{job_id} is Cancelled.\n"
    assert mlplatform("jobs", "wait", job_id, code=2).stderr == f"{job_id} is Cancelled\n"
    told = [line.split()[1] for line in mlplatform("jobs", "events", "--follow", job_id).stdout.splitlines()]
    assert told == ["job.pending", "execution.cancelled", "job.cancelled"]
    events = mlplatform("jobs", "events", "--json", job_id).stdout.splitlines()
    assert [json.loads(line)["type"] for line in events] == told
    assert "only one that has failed can be tried again" in mlplatform("jobs", "retry", job_id, code=3).stderr


def test_jobs_are_listed(mlplatform: CommandLine) -> None:
    # What a name says is shown as it is.
    first, second = (
        mlplatform("jobs", "submit", "--name", name, *ECHO).stdout.strip() for name in ("[red]", "second")
    )
    mlplatform("jobs", "cancel", second)
    lines = mlplatform("jobs", "list").stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        [second, "second", "Cancelled"],
        [first, "[red]", "Pending"],
    ]
    assert [job["id"] for job in mlplatform.json("jobs", "list", "--limit", "1")] == [second]
    assert [job["id"] for job in mlplatform.json("jobs", "list", "--status", "Pending")] == [first]
    assert mlplatform.json("jobs", "show", first)["name"] == "[red]"


def test_workers_are_found_by_their_names(mlplatform: CommandLine, client: Client) -> None:
    for name in ("gpu-1", "twin", "twin"):
        client._connection.ask("POST", "/api/v1/workers", body={"name": name}, key=uuid.uuid4().hex)
    assert [each["name"] for each in mlplatform.json("workers", "list")] == ["twin", "twin", "gpu-1"]
    assert mlplatform("workers", "drain", "gpu-1").stdout.startswith("gpu-1 is ")
    assert mlplatform("workers", "stop", "gpu-1", code=3 if _ended(client, "gpu-1") else 0)
    assert "2 workers are called 'twin'" in mlplatform("workers", "stop", "twin", code=3).stderr
    twin = mlplatform.json("workers", "list")[0]["id"]
    assert mlplatform("workers", "stop", twin).stdout == "twin is Terminated.\n"
    assert len(mlplatform("workers", "list").stdout.splitlines()) == 2
    assert len(mlplatform("workers", "list", "--all").stdout.splitlines()) == 4
    assert "there is no worker 'none'" in mlplatform("workers", "drain", "none", code=3).stderr


def _ended(client: Client, name: str) -> bool:
    [found] = [each for each in client.workers.list() if each.name == name]
    return found.stopped_at is not None


def test_where_nobody_listens_the_remedy_is_told() -> None:
    result = CommandLine("http://127.0.0.1:9")("workers", "list", code=3)
    assert "mlplatform serve api" in result.stderr
    assert "http://127.0.0.1:9" in result.stderr
    assert "is not an address" in CommandLine("nowhere")("jobs", "list", code=3).stderr
