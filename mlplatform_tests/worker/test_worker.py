from __future__ import annotations

from mlplatform_tests.worker.plane import Plane


def test_first(control_plane: Plane) -> None:
    with control_plane.worker() as worker:
        job = control_plane.job("sh", "-c", "echo one; echo two >&2; pwd; env; exit 3")
        attempt = control_plane.ended(job)
        print(dict(attempt)); print(control_plane.lines(attempt))
        assert worker.end() == 0
        print(worker.lines())
        assert 0
