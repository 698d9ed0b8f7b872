"""Start of the code location against `import dagster`, each in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.measure import Row, Session, alternate, say

STATEMENTS = {
    "import mlplatform.definitions": "import mlplatform.definitions",
    "its definitions loaded": "import mlplatform.definitions as d; d.defs().get_repository_def()",
    "import dagster": "import dagster",
}


def measure(session: Session) -> Iterator[Row]:
    """Whole processes, the interpreter's own start included."""
    say("fresh processes in turn")
    for statement in STATEMENTS.values():
        _run(statement)
    times = alternate(
        {name: lambda statement=statement: _run(statement) for name, statement in STATEMENTS.items()}, 7
    )
    other = times.pop("import dagster")
    for name, ours in times.items():
        goal = 1.25 if name.startswith("import") else None
        yield Row(f"{name}, against import dagster", ours, other, "s", goal)


def _run(statement: str) -> None:
    subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
