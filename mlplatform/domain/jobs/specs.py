"""What a job or a pipeline may say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from mlplatform.domain.jobs.timing import Cron

# Neither PostgreSQL nor the arguments and variables of a program take NUL.
NO_NUL = r"^[^\x00]*$"
# Linux takes no longer argument or variable than 128 KiB.
LONGEST_ARGUMENT = 100_000

Text = Annotated[str, StringConstraints(min_length=1, max_length=10_000, pattern=NO_NUL)]
Argument = Annotated[str, StringConstraints(max_length=LONGEST_ARGUMENT, pattern=NO_NUL)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]
# The parts of a name that Kubernetes takes: secrets are looked up by it there.
SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?$")]
Feature = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]*$", max_length=100)]

# Nothing that nobody asked for runs longer than a day.
DEFAULT_TIMEOUT_MS = 24 * 3600 * 1000
LONGEST_TIMEOUT_MS = 30 * DEFAULT_TIMEOUT_MS
MOST_STAGES = 200
MOST_VARIABLES = 1000
MEMORY_UNITS = {
    "": 1,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def variable_of(secret: str) -> str:
    """The environment variable in which a command finds a secret: _ for what no variable's name has."""
    return re.sub(r"[^A-Za-z0-9_]", "_", secret)


class Part(BaseModel):
    """A part of a request: unknown fields are refused, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Resources(Part):
    """What a command needs of a worker, or has of a pod."""

    cpu_m: int = Field(default=0, ge=0, le=1_000_000, description="Thousandths of a core.")
    memory_mb: int = Field(default=0, ge=0, le=100_000_000, description="Mebibytes.")
    gpu: int = Field(default=0, ge=0, le=1000)


class Capabilities(Resources):
    """What a worker has, and what it can besides: a worker fits a job with features that it has too."""

    features: frozenset[Feature] = frozenset()


class JobSpec(Part):
    """One command, and what it needs.

    `secret_refs` name secrets, never values: each is an environment variable of the command.
    """

    name: Name
    image: Text | None = Field(
        default=None, description="On Kubernetes, the image of its pod. Workers run it as it is."
    )
    command: list[Argument] = Field(
        min_length=1, max_length=1000, description="Program and arguments; no shell."
    )
    resources: Resources = Field(default_factory=Resources)
    features: frozenset[Feature] = Field(default=frozenset(), description="What a worker must have besides.")
    timeout_ms: int = Field(default=DEFAULT_TIMEOUT_MS, gt=0, le=LONGEST_TIMEOUT_MS)
    retries: int = Field(default=0, ge=0, le=255, description="How often a command that failed is run again.")
    # Those of a pipeline, of one of its stages, and of a job.
    env: dict[VariableName, Argument] = Field(default={}, max_length=3 * MOST_VARIABLES)
    secret_refs: list[SecretName] = Field(default=[], max_length=100)


def _cpu(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", value)):
        return float(match[1]) / (1000 if match[2] else 1)
    return value


def _megabytes(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)([kMGT]|[KMGT]i|)", value)):
        return float(match[1]) * (MEMORY_UNITS[match[2]] if match[2] else 2**20) / 2**20
    return value


class StageResources(Part):
    """As in the pipelines of the seed: quantities of Kubernetes, or numbers."""

    cpu: Annotated[float, BeforeValidator(_cpu, json_schema_input_type=float | str)] = Field(
        default=0, ge=0, le=1000, description="Cores: 2, 0.5, 500m."
    )
    memory: Annotated[float, BeforeValidator(_megabytes, json_schema_input_type=float | str)] = Field(
        default=0, ge=0, le=100_000_000, description="512Mi, 2Gi; a number is mebibytes."
    )
    disk: Annotated[float, BeforeValidator(_megabytes, json_schema_input_type=float | str)] = Field(
        default=0, ge=0, description="As memory; of pods only."
    )
    gpu: int = Field(default=0, ge=0, le=1000)


class Stage(Part):
    """Command lines that a shell runs one after the other, until one fails."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=100)]
    image: Text | None = None
    commands: list[Text] = Field(min_length=1, max_length=100)
    dependencies: list[str] = Field(
        default=[], max_length=MOST_STAGES, description="Names of stages that come first."
    )
    environment: dict[VariableName, Argument] = Field(default={}, max_length=MOST_VARIABLES)
    resources: StageResources = Field(default_factory=lambda: StageResources.model_validate({}))
    features: frozenset[Feature] = frozenset()
    timeout_ms: int = Field(default=DEFAULT_TIMEOUT_MS, gt=0, le=LONGEST_TIMEOUT_MS)
    retries: int = Field(default=0, ge=0, le=255)
    secret_refs: list[SecretName] = Field(default=[], max_length=100)

    @model_validator(mode="after")
    def _one_script(self) -> Self:
        if len("\n".join(self.commands)) > LONGEST_ARGUMENT:
            raise ValueError(f"the commands have more than {LONGEST_ARGUMENT} characters together")
        return self

    def spec(self, environment: dict[str, str]) -> JobSpec:
        """What is run of it, in the pipeline's `environment`."""
        return JobSpec(
            name=self.name,
            image=self.image,
            command=["/bin/sh", "-ec", "\n".join(self.commands)],
            resources=Resources(
                cpu_m=round(1000 * self.resources.cpu),
                memory_mb=round(self.resources.memory),
                gpu=self.resources.gpu,
            ),
            features=self.features,
            timeout_ms=self.timeout_ms,
            retries=self.retries,
            env={**environment, **self.environment},
            secret_refs=self.secret_refs,
        )


class ScheduleTrigger(Part):
    """When to run a pipeline: a line of cron, in UTC."""

    cron: Cron


def _keepable(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    if "\\u0000" in text:
        raise ValueError("text must not have NUL")
    # Halves of a surrogate pair are no text.
    text.encode()
    return value


Freely = Annotated[dict[str, JsonValue], AfterValidator(_keepable)]


class Trigger(Part):
    """`manual` is always possible; pushes to a repository and web hooks call the API themselves."""

    git_push: Freely | None = None
    schedule: ScheduleTrigger | None = None
    manual: bool | None = None
    webhook: Freely | None = None


class PipelineSpec(Part):
    """A list of stages with dependencies, or the YAML of a batch pipeline."""

    name: Name
    description: Annotated[str, StringConstraints(max_length=10_000, pattern=NO_NUL)] = ""
    stages: list[Stage] = Field(default=[], max_length=MOST_STAGES)
    environment: dict[VariableName, Argument] = Field(default={}, max_length=MOST_VARIABLES)
    triggers: list[Trigger | Literal["git_push", "manual", "webhook"]] = Field(default=[], max_length=20)
    yaml: Annotated[str, StringConstraints(max_length=200_000, pattern=NO_NUL)] | None = Field(
        default=None, description="A training or serving pipeline, instead of stages."
    )

    @property
    def crons(self) -> list[str]:
        """When it is run by itself, in UTC."""
        triggers = (each.schedule for each in self.triggers if isinstance(each, Trigger))
        return list(dict.fromkeys(schedule.cron for schedule in triggers if schedule))

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.yaml is not None and self.stages:
            raise ValueError("a pipeline has stages or yaml, not both")
        in_order(self.stages)
        return self


def in_order(stages: Iterable[Stage]) -> list[Stage]:
    """Each after those that it depends on.

    Raises:
        ValueError: two have one name, one depends on a stage that is not there, or they wait for each other.
    """
    named: dict[str, Stage] = {}
    for stage in stages:
        # Dagster knows no hyphens in names: these two would be one there.
        if stage.name.replace("-", "_") in {name.replace("-", "_") for name in named}:
            raise ValueError(f"two stages are called {stage.name!r}")
        named[stage.name] = stage
    for stage in named.values():
        for name in stage.dependencies:
            if name not in named:
                raise ValueError(f"stage {stage.name!r} depends on {name!r}, which is no stage")
    try:
        order = TopologicalSorter({name: stage.dependencies for name, stage in named.items()}).static_order()
        return [named[name] for name in order]
    except CycleError as error:
        raise ValueError(f"stages wait for each other: {' -> '.join(error.args[1])}") from None
