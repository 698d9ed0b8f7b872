"""What the tests let a deployment do. Commands are for any machine with a shell."""

from __future__ import annotations

import uuid
from typing import Any

# Of all that these tests make, this time.
MARK = f"endtoend-{uuid.uuid4().hex[:8]}"


def unique(what: str) -> str:
    """A name that nothing has had yet, and by which people see where it comes from."""
    return f"{MARK}-{what}-{uuid.uuid4().hex[:4]}"


def shell(line: str) -> list[str]:
    return ["sh", "-c", line]


def saying(*lines: str, exit_code: int = 0) -> list[str]:
    """A command that prints lines, the last one to stderr, and ends."""
    *out, err = lines
    said = "; ".join(f"echo {line}" for line in out)
    return shell(f"{said}; echo {err} >&2; exit {exit_code}")


def forever(line: str) -> list[str]:
    """A command that prints a line and does not end."""
    return shell(f"echo {line}; while true; do sleep 1; done")


def failing_once(name: str) -> list[str]:
    """A command that fails when a machine runs it for the first time."""
    # Not in $TMPDIR, which is another one for each attempt.
    return shell(f"mkdir /tmp/{name} && exit 1; rmdir /tmp/{name}; echo again")


def three_stages(name: str) -> dict[str, Any]:
    """A pipeline whose last stage needs the two others, the second of which needs the first."""
    return {
        "name": name,
        "stages": [
            {"name": "fetch", "commands": ["echo fetched $DAY"], "environment": {"DAY": "monday"}},
            {"name": "train", "commands": ["echo trained"], "dependencies": ["fetch"]},
            {"name": "report", "commands": ["echo one", "echo two"], "dependencies": ["fetch", "train"]},
        ],
    }
