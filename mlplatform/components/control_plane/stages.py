"""A pipeline of command stages as assets and a job, and the job of commands that have no pipeline."""

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from mlplatform.components.control_plane.following import Runner, follow, job_of
from mlplatform.domain.jobs.specs import PipelineSpec, Stage
from mlplatform.io.control_plane import jobs
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.run_tags import JOB_TAG, PIPELINE_TAG, ROUND_TAG

# A command ends by its own time-out, which its worker enforces, and may wait for a worker for days. What dies
# is the run that follows it, which loses nothing by being begun again.
RUN_TAGS = {"dagster/max_runtime": "0", "dagster/max_retries": "10"}
OWNER = "team:ml-platform"


def command_job(database: Database, runner: Runner | None) -> dg.JobDefinition:
    """Runs the one stage of a job without a pipeline."""

    # A job's graph has its name too, and an op may not.
    @dg.op(description="Follows the command; its log is this step's output.")
    def follow_command(context: dg.OpExecutionContext) -> None:
        job_id = job_of(context)
        if job_id is None:
            raise dg.Failure(
                "a command is begun with `mlplatform jobs`, or over the API; here is none to run",
                allow_retries=False,
            )
        follow(context, database, job_id, jobs.COMMAND, runner)

    # In the process of the run: it only waits.
    @dg.job(
        description="One command, asked for over the API.",
        executor_def=dg.in_process_executor,
        tags=RUN_TAGS,
    )
    def command() -> None:
        follow_command()

    return command


def pipeline_definitions(
    database: Database, pipeline: Mapping[Any, Any], spec: PipelineSpec, runner: Runner | None
) -> tuple[list[dg.AssetsDefinition], Any]:
    """One asset for each stage, and the job of all of them.

    Args:
        pipeline: its row.
        spec: what the row declares; it has stages.
    """
    assets = [_asset(database, pipeline, spec, stage, runner) for stage in spec.stages]
    job = dg.define_asset_job(
        pipeline["slug"],
        selection=dg.AssetSelection.assets(*(_key(pipeline, stage.name) for stage in spec.stages)),
        description=spec.description or f"The pipeline {spec.name}.",
        tags={**RUN_TAGS, PIPELINE_TAG: str(pipeline["id"])},
        executor_def=_executor(spec.stages),
    )
    return assets, job


def _asset(
    database: Database, pipeline: Mapping[Any, Any], spec: PipelineSpec, stage: Stage, runner: Runner | None
) -> dg.AssetsDefinition:
    slug, pipeline_id = pipeline["slug"], pipeline["id"]

    @dg.multi_asset(
        name=f"{slug}__{_identifier(stage.name)}",
        specs=[
            dg.AssetSpec(
                _key(pipeline, stage.name),
                deps=[_key(pipeline, name) for name in stage.dependencies],
                description=_description(spec, stage),
                group_name=slug,
                owners=[_owner(pipeline["created_by"])],
                kinds={"shell", *(("docker",) if stage.image else ())},
                tags={PIPELINE_TAG: str(pipeline_id)},
            )
        ],
    )
    def run(context: dg.AssetExecutionContext) -> Any:
        # What Pipes asks of the context of an asset is deprecated.
        step = context.op_execution_context
        job_id = job_of(step) or _adopted(step, database, pipeline)
        yield from follow(step, database, job_id, stage.name, runner)

    return run


def _adopted(context: dg.OpExecutionContext, database: Database, pipeline: Mapping[Any, Any]) -> uuid.UUID:
    """The job of a run that a person started in Dagit; all its steps find the same one."""
    chosen = context.run.asset_selection
    stages = {key.path[-1] for key in chosen if key.path[0] == pipeline["slug"]} if chosen else None
    with database.transaction() as connection:
        job_id = jobs.adopt(connection, context.run_id, pipeline["id"], stages)["id"]
    # So that a run by which Dagster replaces this one finds it too, as does whoever compares runs and jobs.
    # One that was re-executed has the round of another job.
    context.instance.add_run_tags(context.run_id, {JOB_TAG: str(job_id), ROUND_TAG: "1"})
    return job_id


def _executor(stages: Sequence[Stage]) -> dg.ExecutorDefinition:
    """In the run's own process if no two stages can run at once; else in processes made by a fork."""
    depths: dict[str, int] = {}
    waiting = list(stages)
    while waiting:
        stage = waiting.pop(0)
        if all(name in depths for name in stage.dependencies):
            depths[stage.name] = 1 + max((depths[name] for name in stage.dependencies), default=0)
        else:
            waiting.append(stage)
    if max(depths.values()) == len(stages):
        return dg.in_process_executor
    return dg.multiprocess_executor.configured(
        {
            "max_concurrent": 16,
            # Dagster is imported once a run, and not once a stage.
            "start_method": {"forkserver": {"preload_modules": ["mlplatform.control_plane_definitions"]}},
        }
    )


def _key(pipeline: Mapping[Any, Any], stage: str) -> dg.AssetKey:
    return dg.AssetKey([pipeline["slug"], stage])


def _identifier(name: str) -> str:
    return name.replace("-", "_")


def _owner(created_by: str) -> str:
    if re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", created_by):
        return created_by
    return f"team:{re.sub(r'[^A-Za-z0-9_]', '_', created_by)}" if created_by else OWNER


def _description(spec: PipelineSpec, stage: Stage) -> str:
    commands = "\n".join(f"    {line}" for command in stage.commands for line in command.splitlines())
    image = f" in the image {stage.image}" if stage.image else ""
    return f"The stage {stage.name} of {spec.name}{image}:\n\n{commands}"
