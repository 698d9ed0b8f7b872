"""Runs whose process is gone, as run monitoring sees them."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from types import SimpleNamespace

import dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._grpc.types import StartRunResult

from mlplatform.resources.run_launcher import WatchedRunLauncher

HERE = SimpleNamespace(host="localhost", port=None, socket="/gone", use_ssl=False)
_LOCATION = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name=__name__))
ORIGIN = RemoteJobOrigin(RemoteRepositoryOrigin(_LOCATION, "__repository__"), "nothing")
_POINTER = RepositoryPythonOrigin("python", ModuleCodePointer(__name__, "nothing", None))
CODE = JobPythonOrigin("nothing", _POINTER)
ELSEWHERE = SimpleNamespace(host="another", port=4000, socket=None, use_ssl=False)


@dg.job
def nothing() -> None:
    pass


def status(instance: dg.DagsterInstance, process: int | None, server: SimpleNamespace) -> WorkerStatus:
    """Of a run that a code server has started as a process."""
    launcher = WatchedRunLauncher()
    launcher.register_instance(instance)
    run = instance.create_run_for_job(nothing, remote_job_origin=ORIGIN, job_code_origin=CODE)
    started = StartRunResult(success=True, message=None, serializable_error_info=None)
    server.start_run = lambda _: dg.serialize_value(started)
    launcher.launch_run_from_grpc_client(instance, run, server)
    if process is not None:
        data = EngineEventData.in_process(process)
        instance.report_engine_event("Started process for run", run, data)
    launched = instance.get_run_by_id(run.run_id)
    assert launched
    return launcher.check_run_worker_health(launched).status


def test_a_run_whose_process_is_gone_has_failed(dagster_instance):
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    process.start()
    assert process.pid
    assert status(dagster_instance, process.pid, HERE) is WorkerStatus.RUNNING
    os.kill(process.pid, 9)
    # Nobody has asked how it ended yet: the kernel keeps its number.
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT) is None:
        continue
    assert status(dagster_instance, process.pid, HERE) is WorkerStatus.FAILED
    process.join()
    assert status(dagster_instance, process.pid, HERE) is WorkerStatus.FAILED


def test_the_number_of_another_process_is_no_run(dagster_instance):
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            assert status(dagster_instance, other.pid, HERE) is WorkerStatus.FAILED
        finally:
            other.kill()


def test_what_cannot_be_seen_from_here_counts_as_running(dagster_instance):
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert status(dagster_instance, gone.pid, ELSEWHERE) is WorkerStatus.RUNNING
    assert status(dagster_instance, None, HERE) is WorkerStatus.RUNNING
