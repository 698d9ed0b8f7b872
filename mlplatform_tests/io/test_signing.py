from __future__ import annotations

import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlplatform.io.signing import SIGNATURE_BYTES, Signer
from mlplatform.settings import ConfigurationError, Settings
from mlplatform_tests.io.racing import race

CONTENT = b"content"
WAIT_AND_SIGN = """
import sys, time
from pathlib import Path
from mlplatform.io.signing import Signer
from mlplatform.settings import Settings
directory = Path(sys.argv[1])
(directory / sys.argv[2]).touch()
while not (directory / "go").exists():
    time.sleep(0.001)
settings = Settings({"MLPLATFORM_DATA_DIRECTORY": str(directory / "data")})
print(Signer.from_settings(settings).sign(b"content").hex())
"""


def settings_of(directory: Path) -> Settings:
    return Settings({"MLPLATFORM_DATA_DIRECTORY": str(directory)})


def test_a_signature_verifies_its_content_and_nothing_else() -> None:
    signer = Signer(b"key")
    signature = signer.sign(CONTENT)
    assert len(signature) == SIGNATURE_BYTES
    assert signer.verifies(CONTENT, signature)
    assert not signer.verifies(CONTENT + b"!", signature)
    assert not signer.verifies(CONTENT, signature[:-1])
    assert not Signer(b"other").verifies(CONTENT, signature)


def test_the_key_of_a_data_directory_is_made_once(tmp_path: Path) -> None:
    first, second = (Signer.from_settings(settings_of(tmp_path / "data")) for _ in range(2))
    assert first.sign(CONTENT) == second.sign(CONTENT)


def test_two_data_directories_have_two_keys(tmp_path: Path) -> None:
    first, second = (Signer.from_settings(settings_of(tmp_path / name)) for name in "ab")
    assert first.sign(CONTENT) != second.sign(CONTENT)


def test_only_the_owner_can_read_the_key_and_nothing_else_is_left(tmp_path: Path) -> None:
    Signer.from_settings(settings_of(tmp_path))
    (key,) = (tmp_path / "keys").iterdir()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def test_a_key_from_the_environment_wins_and_is_not_written(tmp_path: Path) -> None:
    settings = Settings({"MLPLATFORM_DATA_DIRECTORY": str(tmp_path), "MLPLATFORM_SNAPSHOT_KEY": "secret"})
    assert Signer.from_settings(settings).sign(CONTENT) == Signer(b"secret").sign(CONTENT)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_key_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "snapshot.key").write_text("\n")
    with pytest.raises(ConfigurationError, match=r"snapshot\.key is empty: remove it"):
        Signer.from_settings(settings_of(tmp_path))


def test_threads_that_need_the_first_key_at_once_agree(tmp_path: Path) -> None:
    answers = race(16, lambda _: Signer.from_settings(settings_of(tmp_path)).sign(CONTENT))
    assert set(answers) == {Signer.from_settings(settings_of(tmp_path)).sign(CONTENT)}


def test_processes_that_need_the_first_key_at_once_agree(tmp_path: Path) -> None:
    names = ["first", "second"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WAIT_AND_SIGN, str(tmp_path), name], stdout=subprocess.PIPE, text=True
        )
        for name in names
    ]
    deadline = time.monotonic() + 30
    while not all((tmp_path / name).exists() for name in names):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (tmp_path / "go").touch()
    answers = [process.communicate(timeout=30)[0].strip() for process in processes]
    assert set(answers) == {Signer.from_settings(settings_of(tmp_path / "data")).sign(CONTENT).hex()}
