"""`mlplatform jobs`: jobs of the control plane, from the command line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from mlplatform.cli.api import (
    API,
    AS_JSON,
    NOT_DONE,
    NotDone,
    ago,
    control_plane,
    find,
    lasted,
    print_json,
    print_json_line,
    print_table,
)
from mlplatform.domain.jobs.states import State

if TYPE_CHECKING:
    from mlplatform.client import Client
    from mlplatform.client.models import Execution, Job, LogLine, Resources

EXIT_CODES = {State.SUCCESS: 0, State.FAILED: 1, State.CANCELLED: 2}
# As shells have it for SIGINT.
INTERRUPTED = 130
SECONDS_OF = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
JOB = click.argument("job_id", type=click.UUID)


class Duration(click.ParamType[float]):
    """Seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        if match is None:
            self.fail(f"{value!r} is no time such as 90, 90s, 15m, 2h or 1d", param, ctx)
        return float(match[1]) * SECONDS_OF[match[2]]


@click.group()
def jobs() -> None:
    """Run commands and pipelines on workers, and see what becomes of them.

    Asks the control plane (`mlplatform serve api`); pipelines in YAML on this machine are run by
    `mlplatform run`.

    \b
    Examples:
      mlplatform jobs submit --follow -- python -c 'print(42)'
      mlplatform jobs list --status Failed
      mlplatform jobs logs -f 6d1f8f0e-8b53-4f0e-8a2a-2b6d7a1c9e55
    """


@jobs.command()
@click.argument("command", nargs=-1)
@click.option("--pipeline", metavar="NAME", help="Run this pipeline (name or id) instead of a command.")
@click.option("--name", help="What it is called in lists; else the program, or the pipeline.")
@click.option("--image", help="On Kubernetes, the image of its pod.")
@click.option(
    "--env", "variables", metavar="NAME=VALUE", multiple=True, help="A variable; may be given again."
)
@click.option("--secret", "secrets", metavar="NAME", multiple=True, help="A secret that its worker knows.")
@click.option("--cpu", metavar="CORES", help="What it needs of a worker: 2, 0.5, 500m.")
@click.option("--memory", metavar="SIZE", help="512Mi, 2Gi; a number is mebibytes.")
@click.option("--gpu", type=click.IntRange(0), help="GPUs.")
@click.option("--feature", "features", multiple=True, help="What its worker must have besides.")
@click.option("--retries", type=click.IntRange(0, 255), help="How often it is run again when it fails.")
@click.option("--timeout", type=Duration(), help="Of each attempt: 90s, 15m, 2h; a day unless given.")
@click.option("--priority", type=click.IntRange(-1000, 1000), default=0, help="Higher ones come first.")
@click.option("--key", help="The same key again gets the first job, and makes no other.")
@click.option("-f", "--follow", is_flag=True, help="Print its log, and end as it ends.")
@AS_JSON
@API
def submit(
    command: tuple[str, ...],
    pipeline: str | None,
    name: str | None,
    variables: Sequence[str],
    priority: int,
    key: str | None,
    follow: bool,
    as_json: bool,
    url: str,
    **needed: Any,
) -> None:
    """Run COMMAND, or a pipeline, on a worker that fits, and print the job's id.

    There is no shell: `-- sh -c 'a | b'` brings one. With --follow the exit code is that of `jobs wait`.

    \b
    Examples:
      mlplatform jobs submit -- python -c 'print(42)'
      mlplatform jobs submit --follow --retries 2 --timeout 15m --memory 2Gi -- python train.py
      mlplatform jobs submit --secret warehouse-password --env DAY=2026-01-31 -- ./score.sh
      mlplatform jobs submit --pipeline nightly --follow
    """
    env = _variables(variables)
    if (pipeline is None) == (not command):
        raise click.UsageError("say what to run: a command behind --, or --pipeline")
    if pipeline is not None and (said := [each for each, value in needed.items() if value]):
        raise click.UsageError(f"the stages of a pipeline say these themselves: {', '.join(said)}")
    with control_plane(url) as client:
        if pipeline is not None:
            found = find("pipeline", pipeline, client.pipelines.get, client.pipelines.list)
            job = client.pipelines.run(found.id, name=name, env=env, priority=priority, key=key)
        else:
            job = client.jobs.create(
                command, name=name, env=env, priority=priority, key=key, **_needs(**needed)
            )
        if not follow:
            print_json(job) if as_json else click.echo(job.id)
            return
        click.echo(f"job {job.id}", err=True)
        sys.exit(_follow(client, job.id, as_json))


@jobs.command(name="list")
@click.option("--status", type=click.Choice([state.value for state in State]), help="Only those.")
@click.option("--pipeline", metavar="NAME", help="Only those of this pipeline (name or id).")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@AS_JSON
@API
def list_(status: str | None, pipeline: str | None, limit: int, as_json: bool, url: str) -> None:
    """Show jobs, the newest first.

    \b
    Examples:
      mlplatform jobs list
      mlplatform jobs list --status Running --limit 100 --json
    """
    with control_plane(url) as client:
        of = find("pipeline", pipeline, client.pipelines.get, client.pipelines.list).id if pipeline else None
        listed = client.jobs.list(
            status=State(status) if status else None, pipeline_id=of, page_size=min(limit, 1000)
        )
        found = list(islice(listed, limit))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "name", "status", "priority", "made", "ran for", "why"),
        (
            (
                job.id,
                job.name,
                job.status.value,
                job.priority or None,
                ago(job.created_at),
                lasted(job.started_at, job.finished_at),
                job.reason,
            )
            for job in found
        ),
    )


@jobs.command()
@JOB
@AS_JSON
@API
def show(job_id: UUID, as_json: bool, url: str) -> None:
    """Show a job, and each attempt of its stages.

    \b
    Examples:
      mlplatform jobs show 6d1f8f0e-8b53-4f0e-8a2a-2b6d7a1c9e55
    """
    with control_plane(url) as client:
        job = client.jobs.get(job_id)
        if as_json:
            print_json(job)
            return
        executions = client.jobs.executions(job_id)
    _show(job)
    if executions:
        click.echo()
        print_table(
            ("execution", "stage", "attempt", "status", "exit", "ran for", "worker", "why"),
            (
                (
                    each.id,
                    each.stage,
                    each.attempt,
                    each.status.value,
                    each.exit_code,
                    lasted(each.started_at, each.finished_at),
                    each.worker_id,
                    each.message or each.reason,
                )
                for each in executions
            ),
        )


@jobs.command()
@JOB
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended, and end as it ends.")
@AS_JSON
@API
def logs(job_id: UUID, follow: bool, as_json: bool, url: str) -> None:
    """Print what the commands of a job have written; what they wrote to stderr goes there.

    \b
    Examples:
      mlplatform jobs logs 6d1f8f0e-8b53-4f0e-8a2a-2b6d7a1c9e55
      mlplatform jobs logs -f 6d1f8f0e-8b53-4f0e-8a2a-2b6d7a1c9e55
    """
    with control_plane(url) as client:
        if follow:
            sys.exit(_follow(client, job_id, as_json))
        _print_lines(client.jobs.logs(job_id), as_json)


@jobs.command()
@JOB
@AS_JSON
@API
def cancel(job_id: UUID, as_json: bool, url: str) -> None:
    """End a job, with whatever runs of it.

    \b
    Examples:
      mlplatform jobs cancel 6d1f8f0e-8b53-4f0e-8a2a-2b6d7a1c9e55
    """
    with control_plane(url) as client:
        job = client.jobs.cancel(job_id)
    print_json(job) if as_json else click.echo(f"{job.id} is {job.status}.")


@jobs.command()
@JOB
@click.option("-f", "--follow", is_flag=True, help="Print its log, and end as it ends.")
@AS_JSON
@API
def retry(job_id: UUID, follow: bool, as_json: bool, url: str) -> None:
    """Run a job that failed again; stages that have succeeded are not.

    \b
    Examples:
      mlplatform jobs retry --follow 6d1f8f0e-8b53-4f0e-8a2a-2b6d7a1c9e55
    """
    with control_plane(url) as client:
        job = client.jobs.retry(job_id)
        if follow:
            sys.exit(_follow(client, job_id, as_json, job.round))
    print_json(job) if as_json else click.echo(f"{job.id} is {job.status}, round {job.round}.")


@jobs.command()
@JOB
@click.option("--timeout", type=Duration(), help="Give up after: 90s, 15m, 2h; never unless given.")
@AS_JSON
@API
def wait(job_id: UUID, timeout: float | None, as_json: bool, url: str) -> None:
    """Wait until a job has ended.

    Ends with 0 if it succeeded, 1 if it failed, 2 if it was cancelled, and 3 if that is not known: it takes
    longer than --timeout, there is no such job, or nobody answers.

    \b
    Examples:
      mlplatform jobs wait 6d1f8f0e-8b53-4f0e-8a2a-2b6d7a1c9e55 --timeout 15m
    """
    with control_plane(url) as client:
        try:
            job = client.jobs.wait(job_id, timeout)
        except TimeoutError as error:
            raise NotDone(str(error)) from None
    if as_json:
        print_json(job)
    sys.exit(_ended(job))


@jobs.command()
@JOB
@click.option("-f", "--follow", is_flag=True, help="Go on until it has ended.")
@AS_JSON
@API
def events(job_id: UUID, follow: bool, as_json: bool, url: str) -> None:
    """Show what became of a job, the oldest first.

    \b
    Examples:
      mlplatform jobs events 6d1f8f0e-8b53-4f0e-8a2a-2b6d7a1c9e55
      mlplatform jobs events --follow --json 6d1f8f0e-8b53-4f0e-8a2a-2b6d7a1c9e55
    """
    with control_plane(url) as client:
        for event in (client.jobs.follow_events if follow else client.jobs.events)(job_id):
            if as_json:
                print_json_line(event)
                continue
            told = {name: each for name, each in event.data.items() if name not in ("job_id", "status")}
            said = " ".join(f"{name}={each}" for name, each in told.items())
            click.echo(f"{event.at.isoformat(timespec='milliseconds')} {event.type:<20} {said}".rstrip())


def _follow(client: Client, job_id: UUID, as_json: bool, since_round: int = 1) -> int:
    """Prints the log until the job has ended; the exit code that says how."""
    try:
        lines = client.jobs.follow_logs(job_id)
        _print_lines((each for each in lines if each[0].round >= since_round), as_json)
        return _ended(client.jobs.wait(job_id))
    except KeyboardInterrupt:
        click.echo(f"\nIt goes on; `mlplatform jobs cancel {job_id}` ends it.", err=True)
        return INTERRUPTED


def _print_lines(lines: Iterable[tuple[Execution, LogLine]], as_json: bool) -> None:
    of = None
    for execution, line in lines:
        if as_json:
            print_json_line(line)
            continue
        if execution.id != of and (of or execution.attempt > 1 or execution.stage != "command"):
            click.secho(f"--- {execution.stage}, attempt {execution.attempt}", err=True, bold=True)
        of = execution.id
        click.echo(line.message, err=line.stream != "stdout")


def _ended(job: Job) -> int:
    """Says how a job ended, and gives the exit code for it."""
    why = f": {job.message or job.reason}" if job.message or job.reason else ""
    click.echo(f"{job.id} is {job.status}{why}", err=True)
    return EXIT_CODES.get(job.status, NOT_DONE)


def _show(job: Job) -> None:
    told = {
        "id": job.id,
        "name": job.name,
        "status": job.status,
        "why": job.message or job.reason,
        "command": " ".join(job.spec.command) if job.spec else None,
        "pipeline": job.pipeline_id,
        "schedule": job.schedule_id,
        "priority": job.priority or None,
        "round": job.round if job.round > 1 else None,
        "by": job.created_by,
        "made": ago(job.created_at),
        "ran for": lasted(job.started_at, job.finished_at),
        "in Dagit": job.run_url,
    }
    for name, value in told.items():
        if value is not None:
            click.echo(f"{name:<10} {value}")


def _variables(given: Sequence[str]) -> dict[str, str]:
    variables = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{name!r} is not NAME=VALUE", param_hint="--env")
        variables[name] = value
    return variables


def _needs(
    image: str | None,
    secrets: Sequence[str],
    cpu: str | None,
    memory: str | None,
    gpu: int | None,
    features: Sequence[str],
    retries: int | None,
    timeout: float | None,
) -> dict[str, Any]:
    """What a command needs, as the client takes it."""
    return {
        "image": image,
        "secret_refs": secrets,
        "resources": _resources(cpu, memory, gpu),
        "features": features,
        "retries": retries or 0,
        "timeout_ms": None if timeout is None else max(round(1000 * timeout), 1),
    }


def _resources(cpu: str | None, memory: str | None, gpu: int | None) -> Resources:
    from pydantic import ValidationError

    from mlplatform.client.models import Resources
    from mlplatform.domain.jobs.specs import StageResources

    # Quantities as the stages of pipelines write them.
    given = {"cpu": cpu or 0, "memory": memory or 0, "gpu": gpu or 0}
    try:
        asked = StageResources.model_validate(given)
    except ValidationError as error:
        [name] = error.errors()[0]["loc"][:1]
        raise click.BadParameter(f"{given[str(name)]!r} is no quantity", param_hint=f"--{name}") from None
    return Resources(cpu_m=round(1000 * asked.cpu), memory_mb=round(asked.memory), gpu=asked.gpu)
