"""Where the deployment is."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

PREFIX = "MLPLATFORM_ENDTOEND_"
# A worker of another cloud may have to be started first.
SECONDS = 120.0


@dataclass(frozen=True)
class Deployment:
    """Addresses; the three of the seed are below that of the API unless they have their own."""

    api: str
    dagit: str | None = None
    orchestrator: str = ""
    scheduler: str = ""
    worker_manager: str = ""

    def __post_init__(self) -> None:
        for name in ("orchestrator", "scheduler", "worker_manager"):
            if not getattr(self, name):
                object.__setattr__(self, name, f"{self.api.rstrip('/')}/{name.replace('_', '-')}")


VARIABLES = {field.name: f"{PREFIX}{field.name.upper()}" for field in fields(Deployment)}


def configured() -> Deployment | None:
    """The deployment that the environment names; None: it names none."""
    named = {name: os.environ.get(variable, "") for name, variable in VARIABLES.items()}
    return Deployment(**{name: value for name, value in named.items() if value}) if named["api"] else None
