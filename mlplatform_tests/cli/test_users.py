"""`mlplatform users`, on a real database."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from mlplatform.cli.main import main
from mlplatform.io.control_plane.audit import Actor, AuditLog
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.sessions import Sessions
from mlplatform.io.control_plane.users import SCOPES
from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings
from mlplatform_tests.control_planes import fresh_database
from mlplatform_tests.io.control_plane.conftest import cheap_passwords

__all__ = ["cheap_passwords"]
pytestmark = pytest.mark.usefixtures("cheap_passwords")
PASSWORD = "correct horse battery"
OTHER = "another one that is long"
Call = Callable[..., Result]


@pytest.fixture
def database(stack: RunningStack) -> Iterator[Database]:
    with fresh_database(Settings(stack.variables).database_url) as database:
        yield database


@pytest.fixture
def call(database: Database, stack: RunningStack) -> Call:
    variables = {**stack.variables, "MLPLATFORM_CONTROL_PLANE_SCHEMA": database.schema}

    def called(*words: str, stdin: str = "") -> Result:
        return CliRunner(env=variables).invoke(main, ["users", *words], input=stdin)

    return called


def can_log_in(database: Database, name: str, password: str) -> bool:
    return Sessions(database).log_in(name, password, [], Actor("", "unknown")) is not None


def test_a_user_is_made_with_a_password_that_is_asked_for_twice(database: Database, call: Call) -> None:
    made = call("create", "ada", "--all-scopes", stdin=f"{PASSWORD}\n{PASSWORD}\n")
    assert made.exit_code == 0, made.output
    assert "Password" in made.output
    assert PASSWORD not in made.output
    assert can_log_in(database, "ada", PASSWORD)
    [user] = call("list").output.splitlines()
    assert user.split() == ["ada", "enabled", *sorted(SCOPES)]


def test_a_program_gives_the_password_on_stdin(database: Database, call: Call) -> None:
    scopes = ["--scope", "jobs:read", "--scope", "jobs:write"]
    made = call("create", "ci", *scopes, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert (made.exit_code, made.output) == (0, "ci can log in.\n")
    assert can_log_in(database, "ci", PASSWORD)
    assert call("list").output.split() == ["ci", "enabled", "jobs:read", "jobs:write"]


def test_a_password_is_never_an_argument(call: Call) -> None:
    refused = call("create", "ada", PASSWORD, "--all-scopes")
    assert refused.exit_code == 2


def test_disable_keeps_out_until_it_is_undone(database: Database, call: Call) -> None:
    for name in ("root", "ada"):
        call("create", name, "--all-scopes", "--password-stdin", stdin=PASSWORD)
    assert call("disable", "ada").exit_code == 0
    assert not can_log_in(database, "ada", PASSWORD)
    assert "disabled" in call("list").output.splitlines()[0]
    assert call("disable", "--undo", "ada").exit_code == 0
    assert can_log_in(database, "ada", PASSWORD)


def test_a_password_is_changed(database: Database, call: Call) -> None:
    call("create", "ada", "--all-scopes", "--password-stdin", stdin=PASSWORD)
    changed = call("password", "ada", stdin=f"{OTHER}\n{OTHER}\n")
    assert changed.exit_code == 0, changed.output
    assert not can_log_in(database, "ada", PASSWORD)
    assert can_log_in(database, "ada", OTHER)
    told = [(row.principal.partition(" ")[2], row.action, row.target) for row in AuditLog(database).page(10)]
    assert ("(operator)", "change user (password)", "ada") in told
    assert ("(operator)", "create user", "ada") in told


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (["create", "ada", "--password-stdin"], PASSWORD, "say what ada may do"),
        (["create", "ada", "--scope", "jobs:reed", "--password-stdin"], PASSWORD, "no scope jobs:reed"),
        (["create", "Ada", "--all-scopes", "--password-stdin"], PASSWORD, "small letters"),
        (["create", "ada", "--all-scopes", "--password-stdin"], "brief", "12 to 1024 characters"),
        (["create", "ada", "--all-scopes", "--password-stdin"], "", "12 to 1024 characters"),
        (["disable", "nobody"], "", "there is no user nobody"),
        (["password", "nobody", "--password-stdin"], PASSWORD, "there is no user nobody"),
    ],
)
def test_what_cannot_be_is_said_without_a_trace(
    database: Database, call: Call, words: list[str], stdin: str, said: str
) -> None:
    refused = call(*words, stdin=stdin)
    assert refused.exit_code in (1, 2)
    assert said in refused.output
    assert "Traceback" not in refused.output
    assert not stdin or stdin not in refused.output
    assert call("list").output == ""


def test_a_name_that_is_taken_stays_whose_it_is(database: Database, call: Call) -> None:
    call("create", "ada", "--all-scopes", "--password-stdin", stdin=PASSWORD)
    taken = call("create", "ada", "--all-scopes", "--password-stdin", stdin=OTHER)
    assert taken.exit_code == 1
    assert "there is a user ada already" in taken.output
    assert can_log_in(database, "ada", PASSWORD)
