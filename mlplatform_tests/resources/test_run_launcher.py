"""Runs whose process is gone, as run monitoring sees them."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import time

import dagster as dg
from dagster._core.launcher import WorkerStatus

from mlplatform.resources.run_launcher import WatchedRunLauncher

HERE = {"dagster/grpc_info": json.dumps({"host": "localhost", "socket": "/gone"})}
ELSEWHERE = {"dagster/grpc_info": json.dumps({"host": "another", "port": 4000})}


@dg.job
def nothing() -> None:
    pass


def status(instance: dg.DagsterInstance, process: int | None, tags: dict[str, str]) -> WorkerStatus:
    launcher = WatchedRunLauncher()
    launcher.register_instance(instance)
    run = instance.create_run_for_job(nothing, tags=tags)
    if process is not None:
        started = dg._core.events.EngineEventData.in_process(process)
        instance.report_engine_event("Started process for run", run, started)
    return launcher.check_run_worker_health(run).status


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
