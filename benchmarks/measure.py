"""What measurements share: their results, their clock, and the stack that they run against."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Literal

from mlplatform.local import ports
from mlplatform.local.stack import running_stack
from mlplatform.settings import SERVICE_VARIABLES, Settings

Unit = Literal["s", "µs", "bytes", "area", ""]


@dataclass(frozen=True)
class Row:
    """One line of the table: a quantity of ours beside the same of the other; less is better.

    `goal` bounds the ratio, or our quantity itself where there is `goal_of="ours"`; None: no goal.
    """

    what: str
    ours: float
    other: float | None = None
    unit: Unit = "s"
    goal: float | None = None
    goal_of: Literal["ratio", "ours"] = "ratio"

    @property
    def ratio(self) -> float | None:
        return self.ours / self.other if self.other else None

    @property
    def met(self) -> bool | None:
        reached = self.ratio if self.goal_of == "ratio" else self.ours
        return None if self.goal is None or reached is None else reached <= self.goal

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


class Session:
    """One run of measurements; its directory and its servers end with it.

    Args:
        full: everything is measured at its full size, however long that takes.
    """

    def __init__(self, full: bool = False) -> None:
        self.full = full
        self._exit = ExitStack()

    @cached_property
    def directory(self) -> Path:
        return Path(self._exit.enter_context(TemporaryDirectory(prefix="mlplatform-bench-")))

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """The environment that points at an embedded stack, which is started for it."""
        say("starting the embedded stack")
        # Nothing of the caller's environment: a benchmark must not meet real services.
        settings = Settings(
            {
                "MLPLATFORM_DATA_DIRECTORY": str(self.directory / "stack"),
                # What is measured logs to no MLflow.
                "MLPLATFORM_STACK_SERVICES": "s3,redis,postgresql",
            }
        )
        # Not the usual ports, which a stack that starts meanwhile may want.
        chosen = {service: ports.choose(()) for service in SERVICE_VARIABLES}
        return self._exit.enter_context(running_stack(settings, chosen)).variables

    @cached_property
    def settings(self) -> Settings:
        return Settings(self.variables)

    @property
    def environment(self) -> dict[str, str]:
        """The same for a child process."""
        return {**os.environ, **self.variables}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self._exit.close()


Measurement = Callable[[Session], Iterator[Row]]


def say(text: str) -> None:
    """Tells on stderr what goes on."""
    print(f"  {text}", file=sys.stderr, flush=True)


def seconds(act: Callable[[], object]) -> float:
    """How long it takes once, with an empty garbage heap before it."""
    gc.collect()
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def alternate(acts: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each act over rounds that take them in turn (A B A B …)."""
    taken: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(rounds):
        for name, act in acts.items():
            taken[name].append(seconds(act))
    for name, each in taken.items():
        say(f"{name}: {', '.join(f'{one:.3g}' for one in each)} s")
    return {name: median(each) for name, each in taken.items()}
