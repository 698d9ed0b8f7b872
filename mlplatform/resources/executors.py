"""Where the steps of a run are executed."""

from __future__ import annotations

import dagster as dg

from mlplatform.settings import Executor


def executor_for(executor: Executor) -> dg.ExecutorDefinition:
    """How the steps of a run are executed: in its process, in processes, or each in its own pod."""
    if executor == "kubernetes":
        from dagster_k8s import k8s_job_executor

        return k8s_job_executor
    return dg.multiprocess_executor if executor == "multiprocess" else dg.in_process_executor
