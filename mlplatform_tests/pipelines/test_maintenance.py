"""The maintenance job: it makes things smaller and changes nothing that anybody reads."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from mlplatform.definitions import resources
from mlplatform.defs.platform import maintenance
from mlplatform_tests.faults.harness import differences, what_is_left
from mlplatform_tests.graphs import Graph, environment, replay


@pytest.fixture
def graph(stack) -> Graph:
    own = {"MLPLATFORM_S3_PREFIX": uuid.uuid4().hex, "MLPLATFORM_LEASE_SECONDS": "2"}
    return Graph({**stack.variables, **own}, [replay(last=40)], ["ridge"])


def _maintain(graph: Graph, instance: dg.DagsterInstance, **retention: int) -> dg.ExecuteInProcessResult:
    ops = {name: {"config": retention} for name in ("compact_tables", "delete_old_runs")}
    with environment(graph.variables):
        return maintenance.maintenance.execute_in_process(
            resources=resources(), instance=instance, run_config={"ops": ops}
        )


def test_compaction_leaves_fewer_files_with_the_same_content(graph):
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(4):
            assert graph.run(limit=5, instance=instance).success
        before = what_is_left(graph)
        files = len(graph.stores.table("predictions").open().file_uris())
        assert _maintain(graph, instance).success
        assert len(graph.stores.table("predictions").open().file_uris()) < files
        assert differences(before, what_is_left(graph)) == []
        assert graph.run(limit=5, instance=instance).success


def test_only_old_runs_of_the_minute_job_are_deleted(graph):
    with dg.DagsterInstance.ephemeral() as instance:
        assert graph.run(limit=5, instance=instance).success
        assert _maintain(graph, instance).success
        assert instance.get_runs_count(dg.RunsFilter(job_name="online_learning")) == 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(maintenance, "datetime", Later)
            assert _maintain(graph, instance, keep_runs_hours=1).success
        assert instance.get_runs_count(dg.RunsFilter(job_name="online_learning")) == 0
        assert instance.get_runs_count(dg.RunsFilter(job_name="maintenance")) == 2


class Later(datetime):
    """The time in two hours."""

    @classmethod
    def now(cls, tz=UTC):
        return datetime.now(tz) + timedelta(hours=2)
