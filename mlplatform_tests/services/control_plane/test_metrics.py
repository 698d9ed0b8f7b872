from __future__ import annotations

from mlplatform.io.control_plane import executions, jobs
from mlplatform.io.control_plane.database import Database
from mlplatform.local.stack import RunningStack
from mlplatform_tests.local.processes import eventually
from mlplatform_tests.services.control_plane.serving import command, control_plane


def test_prometheus_is_told_what_waits_and_who_is_there(stack: RunningStack, database: Database) -> None:
    with control_plane(stack, database) as client:
        made = [client.post("/api/v1/jobs", json=command()).json()["id"] for _ in range(3)]
        client.post(f"/api/v1/jobs/{made[0]}/cancel").raise_for_status()
        client.post("/api/v1/workers", json={"type": "rust"}).raise_for_status()
        with database.transaction() as connection:
            executions.release(connection, made[1], jobs.COMMAND)

        def told() -> dict[str, float]:
            lines = client.get("/metrics").raise_for_status().text.splitlines()
            return {
                name: float(value)
                for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
            }

        found = told()
        assert found['control_plane_jobs{status="Pending"}'] == 2
        assert found['control_plane_jobs{status="Running"}'] == 0
        assert not any("Cancelled" in name for name in found)
        assert found['control_plane_workers{status="Available"}'] == 1
        assert found["control_plane_executions_waiting"] == 1
        assert 0 < found["control_plane_longest_wait_seconds"] < 60
        assert found["control_plane_events"] == 6
        assert found['control_plane_duty_troubled{duty="placing"}'] == 0
        # Nobody listens where Dagit should be.
        assert eventually(lambda: told()['control_plane_duty_troubled{duty="launching"}'] == 1)
        degraded = {"launching", "reloading"}
        assert eventually(lambda: set(client.get("/health").json()["degraded"]) == degraded)
