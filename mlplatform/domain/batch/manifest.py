"""A pipeline compiled for a target: what `target/<pipeline>/manifest.json` holds, and what steps run from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from mlplatform.domain.batch.graph import batches, parents, steps_of
from mlplatform.domain.batch.pipeline import Pipeline
from mlplatform.domain.batch.profile import Profile, Target


class Metadata(BaseModel):
    mlplatform_version: str
    schema_version: int
    generated_at: datetime
    pipeline_name: str
    pipeline_type: str
    target: str
    problem_type: str


class CompiledStep(BaseModel):
    """`plugin` names the step's function; `config` is the part of the pipeline that it reads."""

    plugin: str
    config: dict[str, Any]
    resources: dict[str, str]
    inputs: list[str]
    outputs: list[str]
    depends_on: list[str]
    idempotent: bool


class Dag(BaseModel):
    parent_map: dict[str, list[str]]
    execution_batches: list[list[str]]


class Manifest(BaseModel):
    """All that a run needs; secrets stand in it as `{{ secret('NAME') }}` until a step asks for them."""

    model_config = ConfigDict(frozen=True)

    metadata: Metadata
    pipeline: Pipeline
    steps: dict[str, CompiledStep]
    dag: Dag
    profile_config: Profile

    @property
    def name(self) -> str:
        return self.metadata.pipeline_name

    @property
    def target(self) -> Target:
        return self.profile_config.outputs[self.metadata.target]

    @property
    def experiment_name(self) -> str:
        return (
            self.pipeline.project.experiment_name
            or self.profile_config.mlflow.experiment_name
            or self.pipeline.model_name
        )


# The blocks that each step reads: what changes its result when it changes.
BLOCKS: dict[str, tuple[tuple[str, ...], ...]] = {
    "load_data": (("training", "data_source"), ("training", "schema"), ("training", "data_checks")),
    "split_data": (("training", "data_source", "data_windows"), ("training", "schema")),
    "feature_selection": (
        ("training", "feature_selection"),
        ("training", "preprocessing"),
        ("training", "schema"),
    ),
    "train_model": (
        ("training", "model_training"),
        ("training", "preprocessing"),
        ("training", "schema"),
        ("training", "data_source", "feature_tables"),
    ),
    "evaluate": (("training", "evaluation"), ("training", "schema")),
    "log_run": (("project",), ("training", "evaluation")),
    "load_scoring_data": (("serving", "data_source"), ("training", "schema", "identifiers")),
    "load_model": (("project",), ("serving", "model_source"), ("training", "model_training", "framework")),
    "apply_transforms": (
        ("training", "schema"),
        ("serving", "data_checks"),
        ("serving", "output", "columns"),
    ),
    "predict": (("training", "schema"), ("serving", "output", "include_probabilities")),
    "publish": (("serving", "output"), ("training", "schema", "identifiers")),
}


def compile_pipeline(
    pipeline: Pipeline, profile: Profile, target: str, version: str, now: datetime
) -> Manifest:
    """The manifest of a pipeline for one of the profile's targets; the others' configuration stays out.

    `version` is the platform's, `now` an aware time. The same input gives the same manifest.

    Raises:
        KeyError: the profile has no such target.
    """
    steps = steps_of(pipeline)
    above = parents(steps)
    written = pipeline.model_dump(mode="json", by_alias=True)
    asked = pipeline.training.model_training.resources
    resources = asked.model_dump(exclude_none=True) if asked else {}
    return Manifest(
        metadata=Metadata(
            mlplatform_version=version,
            schema_version=pipeline.schema_version,
            generated_at=now.astimezone(UTC),
            pipeline_name=pipeline.name,
            pipeline_type=pipeline.kind,
            target=target,
            problem_type=pipeline.project.problem_type,
        ),
        pipeline=pipeline,
        steps={
            step.name: CompiledStep(
                plugin=f"mlplatform.steps:{step.name}",
                config=_blocks(written, BLOCKS[step.name]),
                resources=resources if step.name == "train_model" else {},
                inputs=list(step.inputs),
                outputs=list(step.outputs),
                depends_on=above[step.name],
                # A step replaces what it wrote before, and tracks its run under the run's own key.
                idempotent=True,
            )
            for step in steps
        },
        dag=Dag(parent_map=above, execution_batches=batches(above)),
        profile_config=profile.model_copy(
            update={"target": target, "outputs": {target: profile.outputs[target]}}
        ),
    )


def _blocks(written: dict[str, Any], paths: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    """The blocks, each where it stands in the pipeline."""
    result: dict[str, Any] = {}
    for path in paths:
        block: Any = written
        for part in path:
            block = block[part]
        place = result
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = block
    return result
