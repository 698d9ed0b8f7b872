"""Executions as pods: where the control plane is on Kubernetes, and has no workers."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import dagster as dg

from mlplatform.domain.jobs.specs import JobSpec, variable_of
from mlplatform.domain.jobs.states import Reason, State
from mlplatform.io.control_plane import executions, log_lines
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.executions import LeaseLost

EXECUTION_LABEL = "mlplatform/execution-id"
# A secret of Kubernetes has keys; the value of one that is asked for by its name alone is here.
SECRET_KEY = "value"  # noqa: S105 - no secret
POLL_SECONDS = 2.0
# Kubernetes ends the pod, and its last words are still to be read.
AFTER_DEADLINE_SECONDS = 60
LONGEST_PROBLEM = 500


class Pods:
    """Runs each execution in a pod of its own, by Dagster's client for that.

    Args:
        namespace: of the pods; None: that of this process.
        poll_seconds: how often Kubernetes is asked how a pod is.
    """

    def __init__(
        self, database: Database, namespace: str | None = None, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._database = database
        self._namespace = namespace
        self._poll_seconds = poll_seconds

    def run(self, context: dg.OpExecutionContext, execution: Any, variables: Mapping[str, str]) -> None:
        """Runs a released execution to its end; its lines and its end are in the database then."""
        with self._database.transaction() as connection:
            scheduled = executions.schedule(connection, execution.id, None)
            if scheduled is None:
                return
            lease = scheduled.lease
            executions.start(connection, execution.id, lease)
        spec = JobSpec.model_validate(execution.spec)
        reason, exit_code = Reason.NOT_STARTED, None
        problem: str | None = "on Kubernetes a command needs an image"
        if spec.image:
            lines = _Lines(lambda texts: self._keep(execution.id, lease, texts))
            try:
                problem = self._in_a_pod(context, execution.id, spec, variables, lines)
                exit_code, timed_out = self._end_of(execution.id)
                reason = Reason.TIMED_OUT if timed_out else Reason.EXIT_CODE
                if problem and exit_code:
                    problem = f"exit code {exit_code}"
                if timed_out:
                    problem = f"it took longer than {spec.timeout_ms / 1000:g} s"
            finally:
                # Also when the run is terminated.
                self._delete(execution.id)
        state, reason = (State.FAILED, reason) if problem else (State.SUCCESS, None)
        # If the job was cancelled meanwhile, the execution has ended.
        with suppress(LeaseLost), self._database.transaction() as connection:
            executions.finish(connection, execution.id, lease, state, exit_code, reason, problem)

    def take_over(self, execution: Any) -> None:
        """Ends an execution whose step has died, with its pod if there still is one; another follows."""
        self._delete(execution.id)
        with self._database.transaction() as connection:
            # No worker has it.
            nobody: Any = None
            executions.lose(connection, execution.id, nobody, "the run that followed its pod has died")

    def _in_a_pod(
        self,
        context: dg.OpExecutionContext,
        execution_id: uuid.UUID,
        spec: JobSpec,
        variables: Mapping[str, str],
        lines: _Lines,
    ) -> str | None:
        """What went wrong, if anything did."""
        from dagster_k8s import PipesK8sClient

        client = PipesK8sClient(poll_interval=self._poll_seconds, message_reader=_all_lines())
        try:
            with redirect_stdout(lines):
                client.run(
                    context=context,
                    image=spec.image,
                    command=spec.command,
                    namespace=self._namespace,
                    env={**spec.env, **variables},
                    base_pod_meta={"labels": {EXECUTION_LABEL: str(execution_id)}},
                    base_pod_spec=pod_spec(spec),
                    pod_wait_timeout=spec.timeout_ms / 1000 + AFTER_DEADLINE_SECONDS,
                    # It says how it ended.
                    delete_pod_on_completion=False,
                )
        except Exception as error:
            said = str(error).strip().splitlines()
            return (said[0] if said else type(error).__name__)[:LONGEST_PROBLEM]
        finally:
            lines.close()
        return None

    def _end_of(self, execution_id: uuid.UUID) -> tuple[int | None, bool]:
        """The exit code of its pod, and whether it was ended for its time."""
        pods = self._api.list_namespaced_pod(self._where, label_selector=_selector(execution_id)).items
        for pod in pods:
            timed_out = pod.status.reason == "DeadlineExceeded"
            for container in pod.status.container_statuses or ():
                if container.state.terminated:
                    return container.state.terminated.exit_code, timed_out
            return None, timed_out
        return None, False

    def _delete(self, execution_id: uuid.UUID) -> None:
        self._api.delete_collection_namespaced_pod(self._where, label_selector=_selector(execution_id))

    @cached_property
    def _api(self) -> Any:
        from dagster_k8s.client import DagsterKubernetesClient
        from kubernetes import config

        try:
            config.load_incluster_config()
        except config.ConfigException:
            config.load_kube_config()
        return DagsterKubernetesClient.production_client().core_api

    @cached_property
    def _where(self) -> str:
        from dagster_k8s.utils import detect_current_namespace

        return self._namespace or detect_current_namespace(None) or "default"

    def _keep(self, execution_id: uuid.UUID, lease: uuid.UUID, made: list[log_lines.Line]) -> None:
        with suppress(LeaseLost), self._database.transaction() as connection:
            log_lines.append(connection, execution_id, lease, made)


def pod_spec(spec: JobSpec) -> dict[str, Any]:
    """What Kubernetes is told of a command besides its image: resources, secrets, longest time."""
    wanted = spec.resources
    requests = {}
    limits = {}
    if wanted.cpu_m:
        requests["cpu"] = f"{wanted.cpu_m}m"
    if wanted.memory_mb:
        # The same, so that it is not killed for what others use.
        requests["memory"] = limits["memory"] = f"{wanted.memory_mb}Mi"
    if wanted.gpu:
        limits["nvidia.com/gpu"] = str(wanted.gpu)
    secrets = [
        {
            "name": variable_of(name),
            "valueFrom": {"secretKeyRef": {"name": secret_name(name), "key": SECRET_KEY}},
        }
        for name in spec.secret_refs
    ]
    return {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": max(1, spec.timeout_ms // 1000),
        "containers": [{"env": secrets, "resources": {"requests": requests, "limits": limits}}],
    }


def secret_name(name: str) -> str:
    """Of the secret in Kubernetes, whose names are lower case and know no underscores."""
    return name.lower().replace("_", "-")


def _selector(execution_id: uuid.UUID) -> str:
    return f"{EXECUTION_LABEL}={execution_id}"


class _Lines(io.TextIOBase):
    """What is written, in whole lines with their numbers."""

    def __init__(self, keep: Callable[[list[log_lines.Line]], None]) -> None:
        self._keep = keep
        self._rest = ""
        self._number = 0

    def write(self, text: str) -> int:
        *whole, self._rest = (self._rest + text).split("\n")
        self._hand_on(whole)
        return len(text)

    def close(self) -> None:
        if self._rest:
            self._hand_on([self._rest])
            self._rest = ""

    def _hand_on(self, texts: list[str]) -> None:
        if texts:
            now = datetime.now(UTC)
            made = [
                log_lines.Line(self._number + offset, now, "stdout", text)
                for offset, text in enumerate(texts)
            ]
            self._number += len(texts)
            self._keep(made)


def _all_lines() -> Any:
    """Dagster's reader of a pod's log, for which messages are lines too: the step that follows reads them."""
    from dagster_k8s.pipes import PipesK8sPodLogsMessageReader

    class Unread:
        def handle_message(self, message: Any) -> None:
            raise NotImplementedError

    class AllLines(PipesK8sPodLogsMessageReader):
        @property
        def expected_writer_count(self) -> int:
            return 1

        @contextmanager
        def read_messages(self, handler: Any) -> Iterator[dict[str, str]]:
            self._handler = Unread()
            yield {"stdio": "stdout"}
            for method in ("opened", "closed"):
                handler.handle_message({"method": method, "params": {}})

    return AllLines()
