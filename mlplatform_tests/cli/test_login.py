"""`mlplatform login`: what is kept of it, and until when."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlplatform.cli.logins import LoginFile
from mlplatform.client import Client
from mlplatform_tests.cli.control_plane import CommandLine
from mlplatform_tests.client.conftest import cheap_passwords, database, nothing_set, secured
from mlplatform_tests.services.control_plane.secured import PASSWORD

__all__ = ["cheap_passwords", "database", "nothing_set", "secured"]


@pytest.fixture
def mlplatform(secured: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    # Where people have their configuration.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return CommandLine(secured)


def log_in(mlplatform: CommandLine) -> LoginFile:
    mlplatform("login", "ada", "--password-stdin", input=f"{PASSWORD}\n")
    return LoginFile.of(mlplatform.address)


def expire(login: LoginFile) -> str:
    """The refresh token, when the access token has expired."""
    kept = json.loads(login.path.read_text())
    login.path.write_text(json.dumps({**kept, "expires_at": 0}))
    return kept["refresh_token"]


def test_a_login_is_kept_for_its_owner_alone(mlplatform: CommandLine, tmp_path: Path) -> None:
    assert "from here: `mlplatform login --api" in mlplatform("jobs", "list", code=3).stderr
    asked = mlplatform("login", input=f"ada\n{PASSWORD}\n")
    assert PASSWORD not in asked.output
    login = LoginFile.of(mlplatform.address)
    assert login.path.is_relative_to(tmp_path)
    assert stat.S_IMODE(login.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(login.path.parent.stat().st_mode) == 0o700
    assert mlplatform.json("jobs", "list") == []
    assert LoginFile.of("http://elsewhere").load() is None


def test_commands_at_once_exchange_an_expired_token_once(mlplatform: CommandLine) -> None:
    login = log_in(mlplatform)
    first = expire(login)

    # What a command does, of which click's runner can have only one at a time.
    def ask(_: int) -> str:
        with Client(mlplatform.address, store=LoginFile.of(mlplatform.address)) as client:
            return client.me().name

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(ask, range(6))) == {"ada"}
    kept = login.load()
    assert kept
    assert kept.refresh_token != first
    assert stat.S_IMODE(login.path.stat().st_mode) == 0o600


def test_logging_out_removes_the_login_and_ends_it(mlplatform: CommandLine) -> None:
    login = log_in(mlplatform)
    kept = login.path.read_text()
    assert mlplatform("logout").stdout == f"Logged out at {mlplatform.address}.\n"
    assert not login.path.exists()
    assert "nobody has logged in" in mlplatform("logout", code=3).stderr
    # Also a copy of it is good no more.
    login.path.write_text(kept)
    assert "401" in mlplatform("jobs", "list", code=3).stderr
    assert not login.path.exists()


def test_a_wrong_password_is_told_and_nothing_is_kept(mlplatform: CommandLine) -> None:
    refused = mlplatform("login", "ada", "--password-stdin", input="wrong\n", code=3)
    assert "user and password do not belong together" in refused.stderr
    assert not LoginFile.of(mlplatform.address).path.exists()


def test_a_file_that_is_no_login_is_told(mlplatform: CommandLine) -> None:
    login = log_in(mlplatform)
    login.path.write_text("{}")
    assert str(login.path) in mlplatform("jobs", "list", code=3).stderr


def test_a_service_token_is_not_mixed_with_a_login(
    mlplatform: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPLATFORM_TOKEN", "a token")
    assert "MLPLATFORM_TOKEN is set" in mlplatform("login", "ada", code=2).stderr
