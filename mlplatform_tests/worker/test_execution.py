"""What becomes of one execution; its worker is this process."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection

from mlplatform.domain.jobs.specs import Capabilities
from mlplatform.io.control_plane import workers
from mlplatform.io.control_plane.database import Database, DatabaseUnreachable
from mlplatform.io.control_plane.executions import LeaseLost
from mlplatform.io.object_store import ObjectStore
from mlplatform.settings import Settings
from mlplatform.worker.artefacts import ArtefactLimits
from mlplatform.worker.execution import Execution, Limits, Workshop
from mlplatform.worker.output import LogLimits
from mlplatform.worker.pulse import Pulse, now
from mlplatform_tests.local.processes import eventually, lives
from mlplatform_tests.worker.plane import PYTHON, STUBBORN, Plane

CANARY = "canary-7f3a"
LIMITS = Limits(LogLimits(line=1000, total=2000), ArtefactLimits(files=4, bytes=100), grace_seconds=0.3)
ENDED = ("status", "exit_code", "reason", "message")


@pytest.fixture
def shop(control_plane: Plane, tmp_path: Path) -> Iterator[Workshop]:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "from-file").write_text(f"{CANARY}-file\n")
    variables = {
        **control_plane.settings.variables,
        "MLPLATFORM_SECRET_TOKEN": CANARY,
        "MLPLATFORM_SECRETS_DIRECTORY": str(folder),
        "PATH": "/usr/bin:/bin",
    }
    with control_plane.database.transaction() as connection:
        workers.register(connection, "w", Capabilities(), slots=9, listens=True, timeout_seconds=60)
    with ThreadPoolExecutor(3) as threads:
        work = tmp_path / "work"
        yield Workshop(Settings(variables), control_plane.database, threads, Pulse(60), work, LIMITS)


class Deaf(Database):
    """One of which every other answer is lost."""

    answers = 0

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with super().transaction() as connection:
            yield connection
        self.answers += 1
        if self.answers % 2:
            raise DatabaseUnreachable("the connection was lost")


def given(plane: Plane, shop: Workshop, job: uuid.UUID) -> Execution:
    assert eventually(lambda: plane.attempts(job)[-1]["lease"] is not None)
    attempt = plane.attempts(job)[-1]
    return Execution(shop, attempt["id"], attempt["lease"])


def run(plane: Plane, shop: Workshop, job: uuid.UUID) -> tuple[object, ...]:
    """How it ended."""
    asyncio.run(given(plane, shop, job).run())
    assert not shop.folder.exists() or not list(shop.folder.iterdir())
    attempt = plane.ended(job)
    return tuple(attempt[name] for name in ENDED)


def lines(plane: Plane, job: uuid.UUID) -> list[tuple[str, str]]:
    return plane.lines(plane.attempts(job)[-1])


def test_a_command_has_what_it_is_given_and_nothing_of_its_worker(
    control_plane: Plane, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPLATFORM_DATABASE_URL", f"postgresql://me:{CANARY}@nowhere/none")
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    shown = control_plane.job("env", env={"A": "b"}, traceparent=parent, bootstrap={"PIPES": "c"})
    assert run(control_plane, shop, shown) == ("Success", 0, None, None)
    variables = dict(text.split("=", 1) for _, text in lines(control_plane, shown))
    attempt = control_plane.attempts(shown)[0]
    folder = shop.folder / str(attempt["id"])
    assert variables == {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "MLPLATFORM_ARTEFACTS": str(folder / "artefacts"),
        "MLPLATFORM_JOB_ID": str(shown),
        "MLPLATFORM_EXECUTION_ID": str(attempt["id"]),
        "TRACEPARENT": parent,
        "PIPES": "c",
        "A": "b",
    }
    around = control_plane.job(
        "sh", "-c", "cat; pwd; ls -A; cat /proc/$PPID/environ; ls /proc/self/fd | wc -l"
    )
    run(control_plane, shop, around)
    home = shop.folder / str(control_plane.attempts(around)[0]["id"]) / "home"
    # Its three streams, and the folder that `ls` reads.
    assert lines(control_plane, around) == [("stdout", str(home)), ("stdout", "4")]


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["sh", "-c", "exit 3"], 3, "it ended with exit code 3"),
        (["sh", "-c", "kill -9 $$"], 137, "it ended with exit code 137 (SIGKILL)"),
        (["no-such-program"], 127, "it ended with exit code 127"),
        (["/etc/passwd"], 126, "it ended with exit code 126"),
    ],
)
def test_how_it_failed(
    control_plane: Plane, shop: Workshop, command: list[str], code: int, message: str
) -> None:
    job = control_plane.job(*command)
    assert run(control_plane, shop, job) == ("Failed", code, "exit_code", message)
    if code in (126, 127):
        assert lines(control_plane, job)[0][1].startswith(f"{command[0]}: ")


def test_what_it_leaves_behind_ends_with_it(control_plane: Plane, shop: Workshop) -> None:
    job = control_plane.job(*PYTHON, STUBBORN.removesuffix("time.sleep(1000)\n"))
    assert run(control_plane, shop, job)[0] == "Success"
    [(_, processes)] = lines(control_plane, job)
    assert not any(lives(int(each)) for each in processes.split())


def test_one_that_takes_too_long_is_ended_with_all_that_it_has_started(
    control_plane: Plane, shop: Workshop
) -> None:
    job = control_plane.job(*PYTHON, STUBBORN, timeout_ms=500)
    ended = run(control_plane, shop, job)
    assert ended == ("Failed", 137, "timed_out", "it took longer than its time-out of 0.5 s")
    [(_, processes)] = lines(control_plane, job)
    assert not any(lives(int(each)) for each in processes.split())

    polite = control_plane.job("sh", "-c", "trap 'echo saved; exit 4' TERM; sleep 60 & wait", timeout_ms=300)
    assert run(control_plane, shop, polite)[:3] == ("Failed", 4, "timed_out")
    assert lines(control_plane, polite) == [("stdout", "saved")]


def test_a_log_has_a_bound_and_bytes_that_are_no_text_are_replaced(
    control_plane: Plane, shop: Workshop
) -> None:
    code = r"import os; os.write(1, b'\xff\0\n' + b'x' * 5000 + b'\n' + 10**5 * b'more\n' + b'the end')"
    job = control_plane.job(*PYTHON, code)
    assert run(control_plane, shop, job)[0] == "Success"
    kept = lines(control_plane, job)
    assert kept[:3] == [("stdout", "\ufffd\ufffd"), ("stdout", "x" * 1000 + " … (cut)"), ("stdout", "more")]
    assert kept[-1] == ("platform", "the rest is not kept: the log has reached 2000 bytes")
    assert 1000 < sum(len(text) for stream, text in kept if stream == "stdout") <= 2000


def test_secrets_are_variables_and_are_shown_nowhere(control_plane: Plane, shop: Workshop) -> None:
    code = """
import os, sys, time, pathlib
token, file = os.environ["TOKEN"], os.environ["from_file"]
assert file == token + "-file"
os.write(1, token[:4].encode()); time.sleep(0.3); os.write(1, token[4:].encode() + b"\\n")
os.write(2, file.encode())
pathlib.Path(os.environ["MLPLATFORM_ARTEFACTS"], token).write_text("x")
"""
    job = control_plane.job(*PYTHON, code, secret_refs=["TOKEN", "from-file"])
    assert run(control_plane, shop, job)[0] == "Success"
    assert sorted(lines(control_plane, job)) == [("stderr", "***"), ("stdout", "***")]
    attempt = control_plane.attempts(job)[0]
    assert list(control_plane.artefacts(attempt)) == ["***"]
    assert CANARY not in str([attempt, control_plane.artefacts(attempt)])

    unknown = control_plane.job("touch", "/begun", secret_refs=["TOKEN", "db.password"], retries=3)
    status, code_, reason, message = run(control_plane, shop, unknown)
    assert (status, code_, reason) == ("Failed", None, "not_started")
    places = f"MLPLATFORM_SECRET_DB_PASSWORD, or the file {shop.settings.secrets_directory}/db.password"
    assert message == f"there is no secret 'db.password': set the worker's variable {places}"
    assert not Path("/begun").exists()


def test_its_files_are_kept_and_no_link_is_followed(
    control_plane: Plane, shop: Workshop, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/private").write_text("private")
    commands = f"""
cd $MLPLATFORM_ARTEFACTS
mkdir -p a; printf one > a/'o n\\e'; : > empty
ln -s {tmp_path}/outside there; ln -s {tmp_path}/outside/private file; ln -s a again; mkfifo pipe
head -c 101 /dev/zero > large; printf 3 > x; printf 4 > y; printf 5 > a/z
"""
    job = control_plane.job("sh", "-ec", commands)
    assert run(control_plane, shop, job)[0] == "Success"
    attempt = control_plane.attempts(job)[0]
    found = control_plane.artefacts(attempt)
    assert sorted(found) == ["a/o n\\e", "empty", "x", "y"]
    store = ObjectStore(control_plane.settings.s3)
    for path, content in {"a/o n\\e": b"one", "empty": b"", "x": b"3"}.items():
        row = found[path]
        assert row["key"].startswith(f"artefacts/{attempt['id']}/")
        stored = store.get(row["key"])
        assert stored is not None
        assert stored.content == content
        assert (row["bytes"], row["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert lines(control_plane, job) == [
        ("platform", "large is not kept: with it, the files have more than 100 bytes"),
        ("platform", "no more files are kept: there are more than 4"),
    ]


def test_a_command_does_not_succeed_whose_files_cannot_be_kept(control_plane: Plane, shop: Workshop) -> None:
    elsewhere = {**shop.settings.variables, "MLPLATFORM_S3_ENDPOINT_URL": "http://127.0.0.1:9"}
    shop = replace(shop, settings=Settings(elsewhere))
    job = control_plane.job("sh", "-c", "echo > $MLPLATFORM_ARTEFACTS/model")
    status, code, reason, message = run(control_plane, shop, job)
    assert (status, code, reason) == ("Failed", 0, "artefacts_lost")
    assert str(message).startswith("its artefacts are not kept: AWS_ACCESS_KEY_ID is not set")


def test_a_lease_that_is_void_lets_nothing_begin(control_plane: Plane, shop: Workshop) -> None:
    job = control_plane.job("true")
    execution = given(control_plane, shop, job)
    control_plane.cancel(job)
    with pytest.raises(LeaseLost):
        asyncio.run(execution.run())
    assert not shop.folder.exists()


def test_after_the_worker_was_silent_nothing_is_written(control_plane: Plane, shop: Workshop) -> None:
    """Though its lease, as it happens, was not taken yet."""
    job = control_plane.job(*PYTHON, STUBBORN)
    execution = given(control_plane, shop, job)

    async def fall_silent() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(execution.run())
            while not await asyncio.to_thread(lines, control_plane, job):
                await asyncio.sleep(0.05)
            shop.pulse.beat(now() - 60)
            execution.hold()

    with pytest.raises(ExceptionGroup) as lost:
        asyncio.run(fall_silent())
    assert lost.group_contains(LeaseLost, match="no heartbeat")
    attempt = control_plane.attempts(job)[0]
    assert (attempt["status"], attempt["lease"]) == ("Running", execution.lease)
    [(_, processes)] = lines(control_plane, job)
    assert not any(lives(int(each)) for each in processes.split())


def test_a_beginning_of_which_the_answer_was_lost_is_one(control_plane: Plane, shop: Workshop) -> None:
    """And so is a batch of lines, and the end."""
    deaf = Deaf(control_plane.settings.database_url, control_plane.database.schema)
    job = control_plane.job("sh", "-c", "echo one; echo > $MLPLATFORM_ARTEFACTS/model")
    with pytest.raises(LeaseLost):
        run(control_plane, replace(shop, database=deaf), job)
    deaf.close()
    assert control_plane.ended(job)["status"] == "Success"
    assert lines(control_plane, job) == [("stdout", "one")]
    assert list(control_plane.artefacts(control_plane.attempts(job)[0])) == ["model"]
