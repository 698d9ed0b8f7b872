"""Named fault points: every write of the platform's stores passes one, before and after.

The points are put around the stores from outside, so that the platform itself knows nothing of them.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from mlplatform.io.object_store import ObjectStore
from mlplatform.io.online_store import OnlineStore
from mlplatform.io.tables import Table


@dataclass
class FaultPoints:
    """Counts the writes of this process, and kills it at one of them.

    A point is named after the write, such as `append observations` or `put snapshots/knn/0`; the
    n-th write of a name is `NAME#n`.
    """

    kill_before: str | None = None
    kill_after: str | None = None
    passed: list[str] = field(default_factory=list)

    def install(self) -> None:
        """Puts a point around every write of this process."""
        self._wrap(ObjectStore, "_put", lambda store, key, *_: f"put {key}")
        self._wrap(Table, "append", lambda table, *_, **__: f"append {table.spec.name}")
        self._wrap(Table, "replace", lambda table, *_, **__: f"replace {table.spec.name}")
        self._wrap(OnlineStore, "publish", lambda *_: "publish")

    def _wrap(self, owner: type, method: str, name_of: Callable[..., str]) -> None:
        write = getattr(owner, method)

        @functools.wraps(write)
        def with_point(*arguments, **named):
            name = name_of(*arguments, **named)
            point = f"{name}#{sum(each.split('#')[0] == name for each in self.passed)}"
            self.passed.append(point)
            if point == self.kill_before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = write(*arguments, **named)
            if point == self.kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, method, with_point)
