"""Which worker is given which execution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlplatform.domain.jobs.specs import Capabilities, Resources


@dataclass(frozen=True)
class Waiting:
    """An execution that waits for a worker."""

    id: str
    resources: Resources
    features: frozenset[str]
    # Not again to the one that lost it, if another fits.
    lost_by: str | None = None


@dataclass(frozen=True)
class Free:
    """A worker, with what it has left, and of how many commands more at once."""

    id: str
    capabilities: Capabilities
    slots: int

    def fits(self, waiting: Waiting) -> bool:
        wanted, here = waiting.resources, self.capabilities
        return (
            self.slots > 0
            and wanted.cpu_m <= here.cpu_m
            and wanted.memory_mb <= here.memory_mb
            and wanted.gpu <= here.gpu
            and waiting.features <= here.features
        )

    def without(self, wanted: Resources) -> Free:
        # Two placers may have given it too much, while one took over from the other.
        here = self.capabilities
        left = Capabilities(
            cpu_m=max(here.cpu_m - wanted.cpu_m, 0),
            memory_mb=max(here.memory_mb - wanted.memory_mb, 0),
            gpu=max(here.gpu - wanted.gpu, 0),
            features=here.features,
        )
        return replace(self, capabilities=left, slots=self.slots - 1)


def place(waiting: Sequence[Waiting], workers: Sequence[Free]) -> dict[str, str]:
    """The worker of each execution that can be given to one now.

    In the order given, which is that of their priority. Of the workers that fit, the one with the most free
    slots and cores, so that work is spread; those without special features first, so that a worker with a
    GPU is not busy with what any other could do. What fits nowhere now waits, and is overtaken.

    Args:
        waiting: most urgent first.
        workers: with what each has left now.
    """
    free = {worker.id: worker for worker in workers}
    placed: dict[str, str] = {}
    for execution in waiting:
        fitting = [worker for worker in free.values() if worker.fits(execution)]
        others = [worker for worker in fitting if worker.id != execution.lost_by]
        if chosen := min(others or fitting, key=_preference, default=None):
            placed[execution.id] = chosen.id
            free[chosen.id] = chosen.without(execution.resources)
    return placed


def _preference(worker: Free) -> tuple[int, int, int, int, str]:
    here = worker.capabilities
    return (here.gpu, len(here.features), -worker.slots, -here.cpu_m, worker.id)
