from __future__ import annotations

import base64
import json
import stat
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest

from mlplatform.services.control_plane.tokens import CLAIMS, AccessTokens, InvalidToken
from mlplatform.settings import ConfigurationError, Settings

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
USER, SESSION = uuid4(), uuid4()


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {
        "iss": "mlplatform",
        "aud": "mlplatform-api",
        "sub": str(USER),
        "sid": str(SESSION),
        "jti": "1",
        "type": "user",
        "scopes": ["jobs:read"],
        "iat": now,
        "nbf": now,
        # Those of a list are made when it is read, and tried when their turn comes.
        "exp": now + 3600,
    }
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def signed(key: bytes = KEY, algorithm: str = "HS256", **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm)


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_a_token_says_whose_it_is_and_what_it_is_for() -> None:
    tokens = AccessTokens(KEY)
    token = tokens.make(USER, SESSION, ["jobs:write", "jobs:read"], "service", 60)
    read = tokens.read(token)
    assert (read.user_id, read.session_id, read.kind) == (USER, SESSION, "service")
    assert read.scopes == {"jobs:read", "jobs:write"}
    said = jwt.decode(token, options={"verify_signature": False})
    assert set(said) == set(CLAIMS)
    assert said["exp"] - said["iat"] == 60
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}


def test_no_two_tokens_are_one() -> None:
    tokens = AccessTokens(KEY)
    assert len({tokens.make(USER, SESSION, [], "user", 60) for _ in range(10)}) == 10


def test_a_good_token_of_the_tests_is_read() -> None:
    assert AccessTokens(KEY).read(signed()).user_id == USER


WRONG = {
    "none": ".".join([encoded({"alg": "none", "typ": "JWT"}), encoded(claims()), ""]),
    "none with a signature": signed().replace(signed().split(".")[0], encoded({"alg": "none", "typ": "JWT"})),
    "another algorithm": signed(KEY * 2, "HS512"),
    "another algorithm with the same key": signed(KEY + bytes(32), "HS384"),
    "another key": signed(OTHER_KEY),
    "no signature": signed().rpartition(".")[0] + ".",
    "another body": ".".join(
        [signed().split(".")[0], encoded(claims(scopes=["users:admin"])), signed().split(".")[2]]
    ),
    "another issuer": signed(iss="somebody"),
    "another audience": signed(aud="somebody"),
    "two audiences": signed(aud=["somebody", "else"]),
    "not yet": signed(nbf=int(time.time()) + 3600),
    "from the future": signed(iat=int(time.time()) + 3600),
    "another type": signed(type="refresh"),
    "a type that is a list": signed(type=["user"]),
    "scopes in a text": signed(scopes="jobs:read"),
    "a subject that is no id": signed(sub="admin"),
    "a session that is a number": signed(sid=1),
    "not a token": "token",
    "nothing": "",
    "not ASCII": "é.é.é",
    **{f"without {name}": signed(**{name: None}) for name in CLAIMS},
}


@pytest.mark.parametrize("token", WRONG.values(), ids=WRONG)
def test_what_is_no_token_of_ours_is_refused_without_saying_why(token: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        AccessTokens(KEY, b"p" * 32).read(token)
    assert str(caught.value) == "the token is not known"


def test_a_token_that_has_expired_says_the_remedy() -> None:
    with pytest.raises(InvalidToken, match="has expired: refresh it") as caught:
        AccessTokens(KEY).read(token := signed(exp=int(time.time()) - 10))
    assert token not in str(caught.value)


def test_the_key_before_is_still_read_and_signs_no_more() -> None:
    before = AccessTokens(OTHER_KEY).make(USER, SESSION, [], "user", 60)
    rotated = AccessTokens(KEY, OTHER_KEY)
    assert rotated.read(before).user_id == USER
    after = rotated.make(USER, SESSION, [], "user", 60)
    assert AccessTokens(KEY).read(after).user_id == USER
    with pytest.raises(InvalidToken):
        AccessTokens(OTHER_KEY).read(after)
    with pytest.raises(InvalidToken):
        AccessTokens(KEY).read(before)


@pytest.mark.parametrize("variable", ["MLPLATFORM_JWT_KEY", "MLPLATFORM_JWT_PREVIOUS_KEY"])
def test_a_short_key_is_refused_and_not_told(variable: str) -> None:
    variables = {"MLPLATFORM_JWT_KEY": "k" * 32, variable: "secret" + "x" * 25}
    with pytest.raises(ConfigurationError, match=f"{variable} has 31 bytes, and needs 32") as caught:
        AccessTokens.from_settings(Settings(variables))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("environment", ["compose", "kubernetes"])
def test_outside_local_there_must_be_a_key(tmp_path: Path, environment: str) -> None:
    with pytest.raises(ConfigurationError, match="MLPLATFORM_JWT_KEY is not set"):
        AccessTokens.from_settings(
            Settings({"MLPLATFORM_ENV": environment, "MLPLATFORM_DATA_DIRECTORY": str(tmp_path)})
        )
    assert list(tmp_path.iterdir()) == []


def test_in_local_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first, second = (
        AccessTokens.from_settings(Settings({"MLPLATFORM_DATA_DIRECTORY": str(tmp_path)})) for _ in range(2)
    )
    assert second.read(first.make(USER, SESSION, [], "user", 60)).user_id == USER
    [key] = (tmp_path / "keys").iterdir()
    assert key.name == "jwt.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
