"""G3: a graph that is killed and started again ends where an uninterrupted one does."""

from __future__ import annotations

import random
import signal
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlplatform.components.online_learning.component import SourceModel
from mlplatform_tests.faults.harness import differences, run_in_child, what_is_left
from mlplatform_tests.graphs import Graph, replay

MODELS = ["ridge", "linear"]
LIMIT = 3


@pytest.fixture
def fresh(stack):
    """Makes a graph with objects of its own on the session's servers."""

    def make(sources: list[SourceModel]) -> Graph:
        own = {"MLPLATFORM_S3_PREFIX": uuid.uuid4().hex, "MLPLATFORM_LEASE_SECONDS": "0.5"}
        return Graph({**stack.variables, **own}, sources, MODELS)

    return make


def test_a_kill_at_every_write_changes_nothing(fresh, tmp_path):
    """One run after the other is killed, each right after the next write that there is."""
    path = tmp_path / "series.csv"
    path.write_text(_with_a_bad_value(months=150))
    sources = [SourceModel(name="replay", type="replay", path=str(path), series_id="retail")]
    whole, killed = fresh(sources), fresh(sources)
    assert run_in_child(whole, limit=LIMIT, runs=2).exit_code == 0
    points = [point for point in run_in_child(whole, limit=LIMIT).passed if "leases" not in point]
    assert len(points) >= 20
    # The first write of all is also left out once: whatever comes after it is as good as not begun.
    outcome = run_in_child(killed, limit=LIMIT, kill_before="append observations#0")
    assert outcome.exit_code == -signal.SIGKILL
    for point in points:
        outcome = run_in_child(killed, limit=LIMIT, kill_after=point)
        assert outcome.exit_code == -signal.SIGKILL, point
    for graph in (whole, killed):
        assert run_in_child(graph, limit=1000, runs=None).exit_code == 0
    assert differences(what_is_left(whole), what_is_left(killed)) == []


def test_kills_at_random_moments_change_nothing(fresh):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    whole, killed = fresh([replay(last=60)]), fresh([replay(last=60)])
    kills = 0
    for _ in range(15):
        outcome = run_in_child(killed, limit=LIMIT, runs=None, kill_after_seconds=chance.uniform(0.1, 2.5))
        kills += outcome.exit_code == -signal.SIGKILL
    for graph in (whole, killed):
        assert run_in_child(graph, limit=1000, runs=None).exit_code == 0
    assert kills, f"no run was killed, seed {seed}"
    assert differences(what_is_left(whole), what_is_left(killed)) == [], f"seed {seed}"


def test_two_runs_that_race_learn_every_observation_once(fresh):
    whole, raced = fresh([replay(last=40)]), fresh([replay(last=40)])
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda _: run_in_child(raced, limit=10, runs=None), range(2)))
    assert any(outcome.exit_code == 0 for outcome in outcomes)
    for graph in (whole, raced):
        assert run_in_child(graph, limit=1000, runs=None).exit_code == 0
    assert differences(what_is_left(whole), what_is_left(raced)) == []


def _with_a_bad_value(months: int) -> str:
    """A replay in which every third value is none, so that every run writes to quarantine too."""
    lines = ["timestamp,value"]
    for month in range(months):
        value = "lost" if month % 3 == 1 else f"{100 + month + 10 * (month % 12)}"
        lines.append(f"{1990 + month // 12}-{month % 12 + 1:02d},{value}")
    return "\n".join(lines) + "\n"
