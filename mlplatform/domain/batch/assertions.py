"""What a project asserts of its compiled pipelines, in `tests/<pipeline>.test.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from mlplatform.domain.batch.manifest import Manifest
from mlplatform.domain.batch.pipeline import Block, Quantity
from mlplatform.domain.batch.problems import did_you_mean
from mlplatform.domain.batch.quantities import quantity


class StepExists(Block):
    type: Literal["step_exists"]
    step: str

    def failure(self, manifest: Manifest) -> str | None:
        """Why the assertion does not hold; None if it does."""
        return _absent(manifest, self.step)


class StepAbsent(Block):
    type: Literal["step_absent"]
    step: str

    def failure(self, manifest: Manifest) -> str | None:
        return f"{manifest.name} has a step {self.step}" if self.step in manifest.steps else None


class StepOrder(Block):
    """`after` waits for `before`, directly or through others."""

    type: Literal["step_order"]
    before: str
    after: str

    def failure(self, manifest: Manifest) -> str | None:
        for step in (self.before, self.after):
            if absent := _absent(manifest, step):
                return absent
        if self.before in _ancestors(manifest.dag.parent_map, self.after):
            return None
        return f"{self.after} does not wait for {self.before}: the order is {_order(manifest)}"


class StepCount(Block):
    type: Literal["step_count"]
    min: int | None = Field(None, ge=0)
    max: int | None = Field(None, ge=0)

    def failure(self, manifest: Manifest) -> str | None:
        count, names = len(manifest.steps), ", ".join(manifest.steps)
        if self.min is not None and count < self.min:
            return f"{manifest.name} has {count} steps, fewer than {self.min}: {names}"
        if self.max is not None and count > self.max:
            return f"{manifest.name} has {count} steps, more than {self.max}: {names}"
        return None


class ResourceLimit(Block):
    """The step asks for no more than this, and does ask: one that does not may take any amount."""

    type: Literal["resource_limit"]
    step: str
    cpu_max: Quantity | None = None
    memory_max: Quantity | None = None

    def failure(self, manifest: Manifest) -> str | None:
        if absent := _absent(manifest, self.step):
            return absent
        for resource, most in (("cpu", self.cpu_max), ("memory", self.memory_max)):
            asked = manifest.steps[self.step].resources.get(resource)
            if most is None:
                continue
            if asked is None:
                return f"{self.step} asks for no {resource}: its pod has no limit"
            if quantity(asked) > quantity(most):
                return f"{self.step} asks for {resource} {asked}, more than {most}"
        return None


Assertion = StepExists | StepAbsent | StepOrder | StepCount | ResourceLimit
ASSERTIONS: dict[str, type[Assertion]] = {
    "step_exists": StepExists,
    "step_absent": StepAbsent,
    "step_order": StepOrder,
    "step_count": StepCount,
    "resource_limit": ResourceLimit,
}


class AssertionFile(Block):
    """The file; each assertion is read by the class that its `type` names."""

    pipeline: str = Field(description="Name of the pipeline, which is also the file's: <pipeline>.test.yaml.")
    assertions: list[dict[str, Any]] = Field(min_length=1)


def _absent(manifest: Manifest, step: str) -> str | None:
    if step in manifest.steps:
        return None
    hint = did_you_mean(step, manifest.steps) or f"it has {', '.join(manifest.steps)}"
    return f"{manifest.name} has no step {step}; {hint}"


def _ancestors(parents: Mapping[str, Sequence[str]], step: str) -> set[str]:
    found: set[str] = set()
    waiting = list(parents[step])
    while waiting:
        parent = waiting.pop()
        if parent not in found:
            found.add(parent)
            waiting += parents[parent]
    return found


def _order(manifest: Manifest) -> str:
    return " -> ".join(" | ".join(batch) for batch in manifest.dag.execution_batches)
