"""Runs batch pipelines in child processes that die where they are told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import dagster as dg

from mlplatform.io.plugins.data_connectors import postgres
from mlplatform.io.plugins.model_registries.mlflow import MLflowRegistry
from mlplatform.io.plugins.storages.local import LocalStorage
from mlplatform.io.plugins.storages.s3 import S3Storage
from mlplatform_tests.batch_projects import BatchProject, reasons
from mlplatform_tests.cli.projects import call
from mlplatform_tests.faults.boundaries import FaultPoints
from mlplatform_tests.faults.harness import KILLED, processes
from mlplatform_tests.graphs import environment


@dataclass
class BatchFaultPoints(FaultPoints):
    """A point around every write of a batch pipeline, named without the run that writes."""

    def install(self) -> None:
        for storage in (LocalStorage, S3Storage):
            self._wrap(storage, "write", lambda _, key, *__: f"write {'/'.join(key.split('/')[-2:])}")
            self._wrap(storage, "update", lambda _, key, *__: f"update {key.split('/')[-1]}")
        self._wrap(postgres.PostgresConnector, "publish", lambda *_: "publish")
        # Both within the transaction: while rows are sent, and when all are there and not committed.
        self._wrap(postgres._Lines, "read", lambda *_: "send rows")
        self._wrap(postgres.PostgresConnector, "_refuse_repeated_keys", lambda *_: "sent all rows")
        for method in ("_log_values", "_log_files", "_register", "log", "promote"):
            self._wrap(MLflowRegistry, method, lambda *_, name=method: f"mlflow {name.strip('_')}")


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit code, the points that it passed, and what its run came to."""

    exit_code: int | None
    passed: tuple[str, ...] = ()
    success: bool = False
    reasons: str = ""

    @property
    def killed(self) -> bool:
        return self.exit_code == KILLED


@dataclass(frozen=True)
class Child:
    process: BaseProcess
    reader: Connection

    def outcome(self) -> Outcome:
        """Waits for the end."""
        try:
            told = self.reader.recv()
        except EOFError:
            told = ()
        self.process.join()
        self.reader.close()
        return Outcome(self.process.exitcode, *told)


def start(
    project: BatchProject,
    pipeline: str,
    instance: dg.DagsterInstance,
    *,
    again: str | None = None,
    kill_before: str | None = None,
    kill_after: str | None = None,
    meet: Barrier | None = None,
) -> Child:
    """A child that runs the pipeline's job on the instance; `meet` is waited for before it publishes."""
    points = BatchFaultPoints(kill_before, kill_after)
    return _start(_run, project, pipeline, instance.root_directory, again, points, meet)


def start_step(
    project: BatchProject,
    pipeline: str,
    step: str,
    run_id: str,
    *,
    kill_before: str | None = None,
    kill_after: str | None = None,
) -> Child:
    """A child that executes one step from artefacts to artefacts."""
    points = BatchFaultPoints(kill_before, kill_after)
    return _start(_run_step, project, pipeline, step, run_id, points)


def command(project: BatchProject, *arguments: str) -> tuple[int, str]:
    """Exit code and output of the command line in a child, whose libraries are already imported."""
    reader, writer = processes.Pipe(duplex=False)
    process = processes.Process(target=_command, args=(project, arguments, writer))
    process.start()
    writer.close()
    told = reader.recv()
    process.join()
    return told


def _start(target: Callable[..., None], *arguments: object) -> Child:
    reader, writer = processes.Pipe(duplex=False)
    process = processes.Process(target=target, args=(*arguments, writer))
    process.start()
    writer.close()
    return Child(process, reader)


def _run(
    project: BatchProject,
    pipeline: str,
    folder: str,
    again: str | None,
    points: BatchFaultPoints,
    meet: Barrier | None,
    writer: Connection,
) -> None:
    points.install()
    if meet is not None:
        publish = postgres.PostgresConnector.publish

        def met(*arguments, **named):
            meet.wait(60)
            return publish(*arguments, **named)

        postgres.PostgresConnector.publish = met
    quiet = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(folder, overrides=quiet) as instance:
        result = project.run(pipeline, instance, again=again)
    writer.send((tuple(points.passed), result.success, reasons(result)))


def _run_step(
    project: BatchProject,
    pipeline: str,
    step: str,
    run_id: str,
    points: BatchFaultPoints,
    writer: Connection,
) -> None:
    from mlplatform.io.artifacts import Artifacts
    from mlplatform.io.pipelines.target_plugins import TargetPlugins
    from mlplatform.steps.context import StepContext
    from mlplatform.steps.execute import run_step

    points.install()
    manifest = project.load().compile(pipeline)
    plugins = TargetPlugins(manifest.target, project.settings, Path(project.root))
    with StepContext(manifest, plugins, run_id, lambda _: None) as context:
        run_step(context, step, Artifacts(plugins.storage, [run_id]))
    writer.send((tuple(points.passed), True, ""))


def _command(project: BatchProject, arguments: tuple[str, ...], writer: Connection) -> None:
    with environment(project.variables):
        ended = call(*arguments, "--project-dir", str(project.root))
    writer.send((ended.exit_code, ended.output))
