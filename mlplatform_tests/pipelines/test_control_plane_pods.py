"""Stages as pods. Kubernetes is a fake one, which runs the commands of its pods as processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import dagster as dg
import kubernetes
import pytest
from dagster_k8s.client import DagsterKubernetesClient

from mlplatform.components.control_plane.pods import EXECUTION_LABEL, Pods, pod_spec
from mlplatform.control_plane_definitions import definitions_of
from mlplatform.domain.jobs.specs import JobSpec
from mlplatform.domain.jobs.states import State
from mlplatform.io.control_plane import executions, log_lines
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.run_tags import JOB_TAG
from mlplatform.settings import Settings
from mlplatform_tests.control_planes import fresh_database
from mlplatform_tests.stage_workers import attempts, new_job, status

NAMESPACE = "here"


class Kubernetes:
    """As much of the API as Dagster and we ask for."""

    def __init__(self) -> None:
        self.pods: dict[str, Any] = {}
        self.made: list[Any] = []
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def create_namespaced_pod(self, namespace: str, pod: Any) -> None:
        assert namespace == NAMESPACE
        [container] = pod.spec.containers
        variables = {each.name: each.value or "from a secret" for each in container.env}
        self.processes[pod.metadata.name] = subprocess.Popen(
            container.command,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.pods[pod.metadata.name] = pod
        self.made.append(pod)

    def list_namespaced_pod(self, namespace: str, field_selector: str = "", label_selector: str = "") -> Any:
        found = [
            self._seen(name)
            for name, pod in self.pods.items()
            if field_selector in ("", f"metadata.name={name}")
            and label_selector in ("", f"{EXECUTION_LABEL}={pod.metadata.labels[EXECUTION_LABEL]}")
        ]
        return SimpleNamespace(items=found)

    def _seen(self, name: str) -> Any:
        code = self.processes[name].poll()
        state = SimpleNamespace(running=None, waiting=None, terminated=None)
        if code is None:
            state.running = SimpleNamespace()
        else:
            state.terminated = SimpleNamespace(exit_code=code, message="", reason="")
        container = SimpleNamespace(name="c", state=state, ready=code is None)
        reason = "DeadlineExceeded" if code == 137 else None
        return SimpleNamespace(
            status=SimpleNamespace(
                container_statuses=[container], init_container_statuses=None, reason=reason
            )
        )

    def read_namespaced_pod_log(self, name: str, namespace: str, **_: Any) -> Iterator[bytes]:
        output = self.processes[name].stdout
        assert output
        for line in output:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            yield f"{now} {line}".encode()

    def delete_collection_namespaced_pod(self, namespace: str, label_selector: str) -> None:
        for name, pod in list(self.pods.items()):
            if label_selector == f"{EXECUTION_LABEL}={pod.metadata.labels[EXECUTION_LABEL]}":
                del self.pods[name]
                process = self.processes[name]
                process.kill()
                process.communicate()


@pytest.fixture
def cluster(monkeypatch) -> Kubernetes:
    cluster = Kubernetes()
    monkeypatch.setattr(kubernetes.config, "load_kube_config", lambda **_: None)
    client = DagsterKubernetesClient(None, cluster, lambda _: None, time.sleep, time.time)
    monkeypatch.setattr(DagsterKubernetesClient, "production_client", staticmethod(lambda: client))
    return cluster


@pytest.fixture
def database(stack) -> Iterator[Database]:
    with fresh_database(Settings(stack.variables).database_url) as database:
        yield database


def run(database: Database, instance: dg.DagsterInstance, job_id: uuid.UUID) -> dg.ExecuteInProcessResult:
    pods = Pods(database, NAMESPACE, poll_seconds=0.05)
    job = definitions_of(database, pods).resolve_job_def("command")
    return job.execute_in_process(instance=instance, raise_on_error=False, tags={JOB_TAG: str(job_id)})


def command(*words: str, **more: Any) -> JobSpec:
    return JobSpec(name="a command", image="python:3.11", command=[*words], **more)


def test_a_command_runs_in_a_pod_and_its_lines_are_kept(database, dagster_instance, cluster, capfd):
    program = (
        "import os; print('first'); print(os.environ['COLOUR'], os.environ['DB_PASSWORD']); print('last')"
    )
    spec = command(sys.executable, "-c", program, env={"COLOUR": "red"}, secret_refs=["DB_PASSWORD"])
    job_id = new_job(database, spec=spec)
    assert run(database, dagster_instance, job_id).success
    assert status(database, job_id) == State.SUCCESS
    expected = ["first", "red from a secret", "last"]
    with database.transaction() as connection:
        [execution] = executions.executions_of(connection, job_id)
        lines = log_lines.after(connection, execution["id"])
    assert [line["text"] for line in lines] == expected
    assert capfd.readouterr().out.splitlines() == expected
    assert execution["exit_code"] == 0
    # What has ended is not left behind.
    assert cluster.pods == {}
    [pod] = cluster.made
    assert pod.metadata.labels[EXECUTION_LABEL] == str(execution["id"])
    [secret] = [each for each in pod.spec.containers[0].env if each.name == "DB_PASSWORD"]
    reference = secret.value_from.secret_key_ref
    assert (secret.value, reference.name, reference.key) == (None, "db-password", "value")


def test_a_command_that_fails_is_tried_again_in_another_pod(database, dagster_instance, cluster):
    job_id = new_job(database, spec=command("/bin/sh", "-c", "echo oh; exit 3", retries=1))
    assert not run(database, dagster_instance, job_id).success
    assert attempts(database, job_id) == [("command", State.FAILED)] * 2
    assert len(cluster.made) == 2
    with database.transaction() as connection:
        last = executions.executions_of(connection, job_id)[-1]
    assert (last["exit_code"], last["reason"], last["message"]) == (3, "exit_code", "exit code 3")


def test_a_pod_that_took_too_long_is_said_to_have(database, dagster_instance, cluster):
    job_id = new_job(database, spec=command("/bin/sh", "-c", "exit 137", timeout_ms=2500))
    assert not run(database, dagster_instance, job_id).success
    with database.transaction() as connection:
        [execution] = executions.executions_of(connection, job_id)
    assert (execution["reason"], execution["message"]) == ("timed_out", "it took longer than 2.5 s")


def test_the_pod_of_a_step_that_died_is_replaced(database, dagster_instance, cluster):
    job_id = new_job(database, spec=command("echo", "hello"))
    with database.transaction() as connection:
        released = executions.release(connection, job_id, "command")
        scheduled = executions.schedule(connection, released.id, None)
        assert scheduled
        executions.start(connection, released.id, scheduled.lease)
    assert run(database, dagster_instance, job_id).success
    assert attempts(database, job_id) == [("command", State.FAILED), ("command", State.SUCCESS)]


def test_a_command_without_an_image_says_so(database, dagster_instance, cluster):
    job_id = new_job(database, spec=JobSpec(name="no image", command=["true"]))
    assert not run(database, dagster_instance, job_id).success
    with database.transaction() as connection:
        [execution] = executions.executions_of(connection, job_id)
    assert execution["message"] == "on Kubernetes a command needs an image"
    assert cluster.made == []


def test_what_a_command_asks_for_is_asked_of_kubernetes():
    spec = command("true", resources={"cpu_m": 500, "memory_mb": 256, "gpu": 1}, timeout_ms=90_500)
    said = pod_spec(spec)
    assert said["activeDeadlineSeconds"] == 90
    [container] = said["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "500m", "memory": "256Mi"},
        "limits": {"memory": "256Mi", "nvidia.com/gpu": "1"},
    }


def test_a_secret_is_the_variable_that_it_is_on_a_worker():
    spec = JobSpec(name="score", command=["true"], secret_refs=["warehouse-password"])
    [container] = pod_spec(spec)["containers"]
    [variable] = container["env"]
    assert variable["name"] == "warehouse_password"
    assert variable["valueFrom"]["secretKeyRef"]["name"] == "warehouse-password"
