"""G8 and G3: a store that is lost, full or slow is named, and nothing is lost with it."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from mlplatform.components.online_learning import component
from mlplatform.components.online_learning.component import SourceModel
from mlplatform.io.online_store import OnlineStoreUnavailable
from mlplatform.io.sources.price import PriceSource
from mlplatform.local import ports
from mlplatform.local.stack import running_stack
from mlplatform.settings import Settings
from mlplatform_tests.faults.harness import differences, run_in_child, what_is_left
from mlplatform_tests.faults.outages import STEPS, Servers, offline, online, run_in_child_while
from mlplatform_tests.graphs import PUSHED, Graph, checks, failure_message, pushed, replay
from mlplatform_tests.io.sources.exchange import running_exchange
from mlplatform_tests.local.processes import environment

MODELS = ["ridge", "linear"]
# Nobody listens on the port of "discard".
DEAD = "127.0.0.1:9"
STALE = "lag_features:online_store"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A stack of its own: what is killed here is missed by nobody else."""
    variables = {
        "MLPLATFORM_DATA_DIRECTORY": str(tmp_path_factory.mktemp("outages")),
        "MLPLATFORM_STACK_SERVICES": "s3,redis",
        # The graph needs no database.
        "MLPLATFORM_DATABASE_URL": f"postgresql+psycopg2://nobody@{DEAD}/none",
    }
    # Not the default ones: another stack takes those while a killed server is away.
    redis = ports.choose(set())
    with running_stack(Settings(variables), {"redis": redis, "s3": ports.choose({redis})}):
        yield Servers(variables)


@pytest.fixture
def fresh(servers: Servers):
    """Makes a graph with objects and series of its own."""

    def make(sources: list[SourceModel], **variables: str) -> Graph:
        own = {"MLPLATFORM_S3_PREFIX": uuid.uuid4().hex, "MLPLATFORM_LEASE_SECONDS": "0.5"}
        return Graph({**servers.variables, **own, **variables}, sources, MODELS)

    return make


def test_a_run_without_redis_learns_and_says_that_online_features_are_stale(servers, fresh):
    series = uuid.uuid4().hex
    graph = fresh([replay(last=40, series_id=series)])
    assert graph.run(10).success
    with servers.without("redis"):
        result = graph.run(10)
        assert result.success, failure_message(result)
        assert not checks(result)[STALE]
        [stale] = [each for each in result.get_asset_check_evaluations() if each.check_name == "online_store"]
        assert "stale until the next run" in stale.description
        assert "look at `mlplatform status`" in stale.description
        # Who asks meanwhile gets an error, not zeros.
        with pytest.raises(OnlineStoreUnavailable):
            graph.stores.online.read(series)
    # Older values than the log's, perhaps, but values: the second run's are missing, not zero.
    offset, values = graph.stores.online.read(series) or (9, offline(graph)[series][1][10:])
    assert offset == 9
    assert values == offline(graph)[series][1][10:]
    result = graph.run(10)
    assert result.success
    assert checks(result)[STALE]
    assert online(graph) == offline(graph)


def test_redis_killed_in_mid_stream_is_healed_by_the_next_run(servers, fresh):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    one, two = uuid.uuid4().hex, uuid.uuid4().hex
    graph = fresh([PUSHED])
    for month in range(2):
        graph.push(*(pushed(series, month, 20.0 + month) for series in (one, two)))
        told = run_in_child_while(graph, None, lambda: servers.kill("redis"), chance.uniform(0.0, 1.5))
        assert told.success, f"seed {seed}: {told.failure}"
        servers.wait_for("redis")
    # Nothing new is needed for it.
    assert checks(graph.run())[STALE]
    assert online(graph) == offline(graph), f"seed {seed}"
    assert set(online(graph)) == {one, two}


def test_a_redis_that_was_never_there_is_filled_once_it_is(servers, fresh):
    own = uuid.uuid4().hex
    missing = fresh([replay(last=20, series_id=own)], MLPLATFORM_REDIS_URL=f"redis://{DEAD}/0")
    result = missing.run()
    assert result.success, failure_message(result)
    assert not checks(result)[STALE]
    found = Graph({**missing.variables, "MLPLATFORM_REDIS_URL": ""}, [replay(last=20, series_id=own)], MODELS)
    assert found.stores.online.read(own) is None
    assert found.run().success
    assert online(found) == offline(found)


def test_an_object_store_killed_again_and_again_loses_nothing(servers, fresh):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    sources = [replay(last=60)]
    whole, struck = fresh(sources), fresh(sources)
    for _ in range(3):
        told = run_in_child_while(struck, 10, lambda: servers.kill("s3"), chance.uniform(0.0, 2.0))
        if not told.success:
            assert "object store http://127.0.0.1:" in told.failure, f"seed {seed}: {told.failure}"
        servers.wait_for("s3")
    for graph in (whole, struck):
        assert run_in_child(graph, limit=1000, runs=None).exit_code == 0, f"seed {seed}"
    assert differences(what_is_left(whole), what_is_left(struck)) == [], f"seed {seed}"


def test_a_run_without_an_object_store_fails_and_names_it(servers, fresh, monkeypatch):
    for step in STEPS:
        # Every attempt waits for the store on its own account; one is enough to be told.
        monkeypatch.setattr(step, "RETRY", None)
    sources = [replay(last=30)]
    whole, struck = fresh(sources), fresh(sources)
    assert struck.run(10).success
    with servers.without("s3"):
        result = struck.run(10)
        assert not result.success
        assert f"object store {Settings(servers.variables).s3.endpoint_url}" in failure_message(result)
        assert "look at `mlplatform status`" in failure_message(result)
    for graph in (whole, struck):
        assert run_in_child(graph, limit=1000, runs=None).exit_code == 0
    assert differences(what_is_left(whole), what_is_left(struck)) == []


NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def refusal_to_mount(directory: Path) -> str | None:
    """Why no small disk can be made here; None if one can."""
    mount = ["mount", "-t", "tmpfs", "none", str(directory)]
    try:
        tried = subprocess.run([*NAMESPACE, *mount], capture_output=True, text=True)
    except FileNotFoundError as error:
        return str(error)
    return tried.stderr if tried.returncode else None


def test_a_full_disk_fails_the_run_loudly_and_the_next_ones_complete_once_there_is_room(tmp_path):
    if refusal := refusal_to_mount(tmp_path):
        pytest.skip(f"a small disk needs a mount in a user namespace: {refusal}")
    ended = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "mlplatform_tests.faults.full_disk", str(tmp_path)],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ended.returncode == 0
    found = json.loads(ended.stdout)
    assert found["before"]
    assert not found["while_full"]
    assert "object store http://127.0.0.1:" in found["failure"]
    assert "look at `mlplatform status`" in found["failure"]
    assert re.search(r"only \d+ MiB are free on the disk of .*: make room", found["status"]["s3"])
    assert found["freed"], found["last_failure"]
    assert found["exit_codes"] == [0, 0]
    assert found["differences"] == []


def test_a_source_that_hangs_is_named_and_the_others_lose_nothing(fresh, monkeypatch):
    monkeypatch.setattr(component, "PriceSource", partial(PriceSource, timeout=0.3))
    with running_exchange() as exchange:
        bitcoin = SourceModel(name="bitcoin", type="price", currency="BTC", endpoint_url=exchange.url)
        graph = fresh([PUSHED, bitcoin])
        graph.push(*(pushed("room", month, 20.0 + month) for month in range(3)))
        exchange.delay_before = 1
        result = graph.run()
        assert not result.success
        assert "source 'bitcoin': price of BTC: no answer within 0.3 s" in failure_message(result)
        exchange.delay_before = 0
        result = graph.run()
        assert result.success, failure_message(result)
    log = graph.stores.table("observations").read(["series_id", "offset"]).to_pylist()
    offsets = {
        name: [row["offset"] for row in log if row["series_id"] == name] for name in ("room", "BTC-USD")
    }
    assert offsets == {"room": [0, 1, 2], "BTC-USD": [0]}
