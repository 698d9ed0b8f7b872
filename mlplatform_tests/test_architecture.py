"""The layers, the cost of importing the definitions, and the lock: what no single module shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SECONDS = 120


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )


def test_the_layers_import_only_downwards() -> None:
    lint = run(
        "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr


def test_importing_the_definitions_loads_nothing_heavy() -> None:
    banned = PYPROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"]
    assert banned
    code = "import json, sys, mlplatform.definitions; print(json.dumps(sorted(sys.modules)))"
    imported = run("-c", code)
    assert imported.returncode == 0, imported.stderr
    loaded = set(json.loads(imported.stdout.splitlines()[-1]))
    assert loaded & set(banned) == set()


def test_the_lock_names_versions_and_no_addresses() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert len(lines) > 50
    for line in lines:
        assert re.fullmatch(r"(#.*|[A-Za-z0-9._-]+(\[[A-Za-z0-9,._-]+\])?==[^\s/@]+( ; .*)?)", line), line
        assert "://" not in line
        assert not line.startswith(("-", "--"))
