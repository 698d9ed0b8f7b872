"""The embedded stack as its users meet it: real servers, started and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlplatform.local.stack import running_stack, stop
from mlplatform.settings import ConfigurationError, Settings
from mlplatform_tests.local import data
from mlplatform_tests.local.processes import (
    COMMAND,
    FAST_SERVICES,
    S3_ELSEWHERE,
    descendants,
    environment,
    eventually,
    lives,
    mlplatform,
    program,
    shown_by_ps,
    status,
)

SERVICES = ["s3", "redis", "postgresql"]


def settings_of(data_directory: Path) -> Settings:
    return Settings({**FAST_SERVICES, "MLPLATFORM_DATA_DIRECTORY": str(data_directory)})


@pytest.fixture
def data_directory(tmp_path: Path) -> Iterator[Path]:
    """An empty data directory, whose stack is stopped at the end."""
    directory = tmp_path / "data, here"
    yield directory
    stop(directory)


def test_life_of_a_stack(data_directory: Path) -> None:
    assert mlplatform(data_directory, "status").returncode == 3
    up = mlplatform(data_directory, "up")
    assert up.returncode == 0, up.stderr
    assert "redis://127.0.0.1:" in up.stdout

    answer = mlplatform(data_directory, "status", "--json")
    found = json.loads(answer.stdout)
    assert answer.returncode == 0
    assert found["ready"]
    assert [found["services"][name]["ready"] for name in SERVICES] == [True] * 3
    assert [Path(found["services"][name]["data"]).is_dir() for name in SERVICES] == [True] * 3

    settings = settings_of(data_directory)
    secrets = [
        settings.s3.secret_access_key,
        settings.redis_url.partition("://:")[2].partition("@")[0],
        settings.database_url.partition("dagster:")[2].partition("@")[0],
    ]
    pids = [found["supervisor"], *descendants(found["supervisor"])]
    shown = [*map(shown_by_ps, pids), up.stdout, up.stderr]
    shown += [log.read_text(errors="replace") for log in data_directory.rglob("*.log")]
    assert all(len(secret) > 20 for secret in secrets)
    assert not any(secret in text for secret in secrets for text in shown)
    assert (data_directory / "stack.json").stat().st_mode & 0o777 == 0o600
    assert data_directory.stat().st_mode & 0o777 == 0o700

    data.write(settings, "before")
    again = mlplatform(data_directory, "up")
    assert (again.returncode, "ran already" in again.stderr) == (0, True)
    other_ports = mlplatform(data_directory, "up", "--redis-port", "1")
    assert "another port than 1" in other_ports.stderr

    assert mlplatform(data_directory, "down").returncode == 0
    assert not any(lives(pid) for pid in pids)
    assert not (data_directory / "stack.json").exists()
    assert mlplatform(data_directory, "status").returncode == 3
    assert mlplatform(data_directory, "down").returncode == 0

    with running_stack(settings_of(data_directory)):
        after = settings_of(data_directory)
        assert data.read(after) == ["before"] * 3
        assert after.database_url == settings.database_url


def test_killed_supervisor_leaves_nothing_and_loses_nothing(data_directory: Path) -> None:
    assert mlplatform(data_directory, "up").returncode == 0
    data.write(settings_of(data_directory), "before")
    supervisor = status(data_directory)["supervisor"]
    pids = descendants(supervisor)
    assert {"weed", "valkey-server", "postgres"} <= {program(pid) for pid in pids}

    os.kill(supervisor, signal.SIGKILL)
    assert eventually(lambda: not any(lives(pid) for pid in pids))
    assert (data_directory / "stack.json").exists(), "nobody was left to remove it"
    assert mlplatform(data_directory, "status").returncode == 3
    with pytest.raises(ConfigurationError, match="mlplatform up"):
        settings_of(data_directory).redis_url  # noqa: B018

    assert mlplatform(data_directory, "up").returncode == 0
    assert data.read(settings_of(data_directory)) == ["before"] * 3


def test_stack_ends_with_the_process_that_asked_for_it(data_directory: Path) -> None:
    script = """
        from mlplatform.local.stack import running_stack
        with running_stack():
            print("running", flush=True)
            input()
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment(data_directory),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout
        assert owner.stdout.readline() == "running\n"
        pids = descendants(owner.pid)
        assert len(pids) > 4
        owner.kill()
    assert eventually(lambda: not any(lives(pid) for pid in pids))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running stack that tests may hurt, if it heals."""
    directory = tmp_path_factory.mktemp("shared")
    with running_stack(settings_of(directory)):
        data.write(settings_of(directory), "before")
        yield directory


@pytest.mark.parametrize("name", ["weed", "valkey-server", "postgres"])
def test_killed_server_comes_back_at_its_address(shared: Path, name: str) -> None:
    before = status(shared)
    servers = {program(pid): pid for pid in reversed(descendants(before["supervisor"]))}
    os.kill(servers[name], signal.SIGKILL)
    assert eventually(lambda: not lives(servers[name]))
    assert eventually(lambda: status(shared)["ready"], seconds=20)
    assert status(shared) == before
    assert data.read(settings_of(shared)) == ["before"] * 3
    assert "ended (signal 9)" in (shared / "stack" / "supervisor.log").read_text()


def test_two_stacks_do_not_meet_and_a_named_service_is_not_started(
    shared: Path, data_directory: Path
) -> None:
    named = {"MLPLATFORM_REDIS_URL": settings_of(shared).redis_url}
    up = mlplatform(data_directory, "up", **named)
    assert up.returncode == 0, up.stderr
    found = status(data_directory, **named)
    assert {program(pid) for pid in descendants(found["supervisor"])} == {"weed", "postgres"}
    assert [found["services"][name]["embedded"] for name in SERVICES] == [True, False, True]
    assert found["ready"]

    addresses = [settings_of(directory) for directory in (shared, data_directory)]
    assert len({settings.s3.endpoint_url for settings in addresses}) == 2
    assert len({settings.database_url for settings in addresses}) == 2
    with pytest.raises(FileNotFoundError):
        data.read(Settings({**FAST_SERVICES, "MLPLATFORM_DATA_DIRECTORY": str(data_directory), **named}))

    missing = mlplatform(data_directory, "up")
    assert missing.returncode == 1
    assert "no redis" in missing.stderr


def test_starting_twice_at_once_gives_one_stack(data_directory: Path) -> None:
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: mlplatform(data_directory, "up", **S3_ELSEWHERE), range(2)))
    assert [up.returncode for up in both] == [0, 0], both
    assert sorted("ran already" in up.stderr for up in both) == [False, True]


def test_foreground_ends_on_ctrl_c(data_directory: Path) -> None:
    command = [*COMMAND, "up", "--foreground"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(data_directory, **S3_ELSEWHERE), **pipes) as up:
        assert eventually(lambda: (data_directory / "stack.json").exists())
        pids = descendants(up.pid)
        assert any(line.startswith("Running until Ctrl-C") for line in up.stderr)
        up.send_signal(signal.SIGINT)
        assert up.wait(20) == 0
    assert not any(lives(pid) for pid in pids)
