"""The feature service: what it answered is in the log, each observation once, whatever fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlplatform.domain.families import DEFAULT_LAGS
from mlplatform.domain.observations import Observation
from mlplatform.io import declaration
from mlplatform.io.journal import Entry, Journal
from mlplatform.io.leases import Leases
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.observation_log import LOG, log_rows, log_stream
from mlplatform.io.tables import Table
from mlplatform.local import ports
from mlplatform.local.stack import RunningStack, running_stack
from mlplatform.services.feature_log import FeatureLog, NotOwner
from mlplatform.settings import Settings
from mlplatform_tests.faults.outages import Servers
from mlplatform_tests.local.processes import eventually
from mlplatform_tests.services.feature_services import SHARD, Place, running

SECONDS = 30


@pytest.fixture
def place(stack: RunningStack, tmp_path: Path) -> Place:
    return Place.make(stack.variables, tmp_path)


@pytest.fixture
def client(place: Place) -> Iterator[httpx.Client]:
    with place.client() as client:
        yield client


def add(client: httpx.Client, value: object, series_id: str = "s", **fields: Any) -> dict[str, Any]:
    answer = client.post("/add", json={"series_id": series_id, "value": value, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def key(value: object) -> dict[str, str]:
    return {"Idempotency-Key": str(value)}


def lags(*values: float, count: int = DEFAULT_LAGS) -> dict[str, float]:
    """The features after these values, newest first."""
    return {f"in_{at + 1}": values[at] if at < len(values) else 0.0 for at in range(count)}


def metrics(client: httpx.Client) -> dict[str, float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        sample.name: sample.value for family in families for sample in family.samples if not sample.labels
    }


# The seed's interface


def test_the_seeds_replies(client: httpx.Client) -> None:
    first = client.post("/add", json={"value": 10})
    assert first.status_code == 200
    answer = first.json()
    assert answer.pop("observation_id")
    assert answer == {
        "series_id": "default",
        "features": lags(),
        "target": 10.0,
        "available_lags": 0,
        "offset": 0,
    }
    add(client, 20.5, "default")
    answer = add(client, 30, "default")
    assert (answer["features"], answer["target"], answer["available_lags"]) == (lags(20.5, 10.0), 30.0, 2)
    # Others are not mixed in.
    assert add(client, 1, "another")["features"] == lags()
    assert client.get("/info").json() == {
        "service": "feature_service",
        "max_lags": 28,
        "output_format": "model_ready_in_1_to_in_N",
    }
    assert client.get("/health").json()["status"] == "healthy"
    assert client.get("/health").json()["service"] == "feature_service"
    assert client.post("/add", json={"series_id": "default"}).status_code == 422


def test_so_many_lags_as_the_seeds_variable_says(place: Place) -> None:
    with place.but(N_LAGS="10").client() as client:
        for value in range(12):
            add(client, value)
        answer = add(client, 12)
        assert client.get("/info").json()["max_lags"] == 10
        assert answer["features"] == lags(*range(11, 1, -1), count=10)
        assert answer["available_lags"] == 10
        assert place.redis.read("s") == (12, [float(value) for value in range(12, 2, -1)])


def test_a_series_of_a_family_has_the_lags_of_its_family(client: httpx.Client) -> None:
    monthly = declaration.families().of("CEU42")
    assert len(add(client, 1, "CEU42")["features"]) == monthly.lags != DEFAULT_LAGS


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "redis://there:6379"),
        ({"REDIS_PORT": "7"}, "redis://there:7"),
        # As Kubernetes sets it where a service is called `redis`.
        ({"REDIS_PORT": "tcp://10.0.0.1:7"}, "redis://there:7"),
        ({"MLPLATFORM_REDIS_URL": "redis://here"}, "redis://here"),
    ],
)
def test_redis_is_where_the_seeds_variables_say(variables: dict[str, str], url: str) -> None:
    assert Settings({"REDIS_HOST": "there", **variables}).redis_url == url


def test_redis_has_the_values_where_the_seed_has_them(place: Place, client: httpx.Client) -> None:
    for value in range(3):
        add(client, value, "room/1")
    redis = place.redis._redis
    found = redis.lrange(f"{place.settings.s3.prefix}:series:room/1:values", 0, -1)
    assert found == ["2.0", "1.0", "0.0"]


def test_the_end_of_a_series(client: httpx.Client) -> None:
    add(client, 1, "room/1", observation_id="a", event_time="2026-01")
    add(client, 2, "room/1", observation_id="b", event_time="2026-02-01T01:00:00+01:00")
    expected = {"series_id": "room/1", "offset": 1, "features": lags(2.0, 1.0), "available_lags": 2}
    assert client.get("/series/room/1").json() == {
        **expected,
        "observation_id": "b",
        "event_time": "2026-02-01T00:00:00Z",
    }
    assert client.get("/features/room/1").json() == {**expected, "source": "memory"}
    for path in ("/series/nobody", "/features/nobody"):
        assert client.get(path).status_code == 404


def test_features_of_the_pipelines_series_come_from_redis(place: Place, client: httpx.Client) -> None:
    place.redis.publish([("theirs", 7, [3.0, 2.0])])
    assert client.get("/features/theirs").json() == {
        "series_id": "theirs",
        "features": lags(3.0, 2.0),
        "available_lags": 2,
        "offset": 7,
        "source": "redis",
    }


# Each observation once


def test_a_repetition_gets_the_first_answer(client: httpx.Client) -> None:
    first = add(client, 1, observation_id="a")
    add(client, 2)
    assert add(client, 1, observation_id="a") == first
    assert add(client, 77, observation_id="a") == first
    assert first["observation_id"] == "a"
    # As the ingestion service counts them.
    numbered = add(client, 3, observation_id=7)
    assert add(client, 3, observation_id="7") == numbered
    # The same id in another series is another observation.
    assert add(client, 1, "other", observation_id="a")["offset"] == 0
    assert add(client, 4)["offset"] == 3


def test_a_key_is_as_good_as_an_id(client: httpx.Client) -> None:
    body = {"series_id": "s", "value": 1}
    first = client.post("/add", json=body, headers=key("one")).json()
    assert client.post("/add", json=body, headers=key("one")).json() == first
    assert client.post("/add", json=body, headers=key("two")).json()["offset"] == 1


def test_repeated_at_the_same_time_it_is_taken_once(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda at: add(client, 1, observation_id=str(at // 8)), range(160)))
    assert {answer["observation_id"]: answer["offset"] for answer in answers}.keys() == {
        str(at) for at in range(20)
    }
    assert len({str(answer) for answer in answers}) == 20
    assert sorted({answer["offset"] for answer in answers}) == list(range(20))


def test_a_repetition_after_a_restart_and_a_flush_gets_the_first_answer(place: Place) -> None:
    with place.client() as client:
        first = [add(client, value, observation_id=value) for value in range(3)]
    with place.client() as client:
        assert [add(client, value, observation_id=value) for value in range(3)] == first
        again = add(client, 3)
    # With what it had before.
    assert (again["available_lags"], again["features"]) == (3, lags(2.0, 1.0, 0.0))
    assert [(row["position"], row["offset"], row["value"]) for row in place.log()] == [
        (at, at, float(at)) for at in range(4)
    ]


# Times


def test_times_never_go_back(client: httpx.Client) -> None:
    add(client, 1, observation_id="a", event_time="2026-02-01")
    for late in ("2026-01-31T23:59:59", "2026-02-01"):
        refused = client.post("/add", json={"series_id": "s", "value": 2, "event_time": late})
        assert refused.status_code == 422
        assert "late: the series is already at 2026-02-01" in refused.json()["detail"]
    early = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    refused = client.post("/add", json={"series_id": "s", "value": 2, "event_time": early})
    assert (refused.status_code, "early" in refused.json()["detail"]) == (422, True)
    refused = client.post("/add", json={"series_id": "s", "value": 2, "event_time": "yesterday"})
    assert (refused.status_code, refused.json()["detail"]) == (422, "no event time")
    # A fast clock is believed, and what has no time comes after it.
    fast = datetime.now(UTC) + timedelta(hours=1)
    assert add(client, 2, event_time=fast.isoformat())["offset"] == 1
    assert add(client, 3)["offset"] == 2
    assert datetime.fromisoformat(client.get("/series/s").json()["event_time"]) > fast


# Poison


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("NaN", "not finite"),
        ("Infinity", "not finite"),
        ("-Infinity", "not finite"),
        ("1e31", "too large"),
        ("1" + "0" * 400, "too large"),
        ('"12"', "not a number"),
        ("true", "not a number"),
        ("null", "not a number"),
        ("[1]", "not a number"),
        ("1e9", "absurd"),
    ],
)
def test_poison_is_refused_and_kept_apart(place: Place, value: str, reason: str) -> None:
    with place.client() as client:
        for at in range(13):
            add(client, 100 + at)
        before = client.get("/features/s").json()
        body = f'{{"series_id": "s", "observation_id": "bad", "value": {value}}}'
        refused = client.post("/add", content=body, headers={"Content-Type": "application/json"})
        assert refused.status_code == 422
        assert refused.json()["detail"].startswith(reason)
        assert client.get("/features/s").json() == before
        # The id is free for who sends it right.
        assert add(client, 113, observation_id="bad")["features"] == before["features"]
        assert metrics(client)["features_added_total"] == 14
    [row] = place.quarantine()
    assert (row["series_id"], row["observation_id"], row["source"]) == ("s", "bad", "features")
    assert row["reason"].startswith(reason)
    assert len(place.log()) == 14


def test_the_quarantine_goes_on_where_it_was(place: Place) -> None:
    for _ in range(2):
        with place.client() as client:
            for _ in range(2):
                assert client.post("/add", json={"value": None}).status_code == 422
    assert [row["source_position"] for row in place.quarantine()] == [0, 1, 2, 3]


# Whose series


def test_a_series_of_the_pipeline_is_refused(place: Place) -> None:
    log = Table(LOG, ObjectStore(place.settings.s3))
    theirs = [Observation("theirs", 0, "a", datetime(2026, 1, 1, tzinfo=UTC), 1.0, "pushed")]
    log.append(log_rows(theirs, 0, 0), log_stream(0), 1)
    with place.client() as client:
        assert add(client, 1, "ours")["offset"] == 0
        for _ in range(2):
            refused = client.post("/add", json={"series_id": "theirs", "value": 1})
            assert refused.status_code == 409
            assert "`mlplatform push theirs VALUE`" in refused.json()["detail"]
    assert [row["series_id"] for row in place.log() if row["shard"] == SHARD] == ["ours"]


def test_a_series_of_another_service_is_refused(place: Place, tmp_path: Path) -> None:
    with place.client() as client:
        add(client, 1)
    other = place.but(MLPLATFORM_SERVICE_ORDINAL="1", MLPLATFORM_DATA_DIRECTORY=str(tmp_path / "other"))
    with other.client() as client:
        refused = client.post("/add", json={"series_id": "s", "value": 1})
        assert refused.status_code == 409
        assert "MLPLATFORM_SERVICE_ORDINAL=0" in refused.json()["detail"]
        assert add(client, 1, "t")["offset"] == 0


def test_a_series_that_the_pipeline_replays_is_its_own_before_it_has_read_it(client: httpx.Client) -> None:
    refused = client.post("/add", json={"series_id": "us_retail_employment", "value": 1})
    assert refused.status_code == 409
    assert "mlplatform push" in refused.json()["detail"]


def test_clients_cannot_make_series_without_end(place: Place) -> None:
    with place.but(MLPLATFORM_MOST_SERIES="2").client() as client:

        def status(series_id: str) -> int:
            return client.post("/add", json={"series_id": series_id, "value": 1}).status_code

        assert [status(series_id) for series_id in ("a", "b", "c", "a", "c")] == [200, 200, 409, 200, 409]
        refused = client.post("/add", json={"series_id": "c", "value": 1}).json()["detail"]
        assert "MLPLATFORM_MOST_SERIES" in refused


def test_a_second_disk_waits_for_the_first(place: Place, tmp_path: Path) -> None:
    second = place.but(MLPLATFORM_DATA_DIRECTORY=str(tmp_path / "second"))
    with ExitStack() as first:
        add(first.enter_context(place.client()), 1)
        with second.client(ready=False) as waiting:
            assert eventually(lambda: "belongs to features on" in waiting.get("/ready").text, SECONDS)
            assert waiting.post("/add", json={"value": 1}).status_code == 503
            first.close()
            assert eventually(lambda: waiting.get("/ready").status_code == 200, SECONDS)
            assert add(waiting, 2)["features"] == lags(1.0)


def test_who_sleeps_past_its_lease_writes_nothing_more(place: Place, tmp_path: Path) -> None:
    """Both have an entry for the same position: only the newer owner's gets into the log."""
    second = place.but(MLPLATFORM_DATA_DIRECTORY=str(tmp_path / "second"))
    journals = [Journal(each.journal) for each in (place, second)]
    logs = [
        FeatureLog(each.settings, journal, declaration.families())
        for each, journal in zip((place, second), journals, strict=True)
    ]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for log, journal, value in zip(logs, journals, (1.0, 2.0), strict=True):
        log.recover()
        journal.append([Entry(0, "s", 0, f"{value}", at, value, {"features": {}}, at)])
        if value == 1.0:
            Leases(ObjectStore(place.settings.s3)).release(SHARD, log._owner)
    logs[1].flush(1, [])
    with pytest.raises(NotOwner, match="MLPLATFORM_SERVICE_ORDINAL"):
        logs[0].flush(1, [])
    assert [row["value"] for row in place.log()] == [2.0]
    for log, journal in zip(logs, journals, strict=True):
        log.release()
        journal.close()


def test_who_was_taken_over_takes_nothing_more(place: Place, tmp_path: Path) -> None:
    with place.but(MLPLATFORM_FLUSH_SECONDS="0.1").client() as client:
        add(client, 1)
        assert eventually(lambda: metrics(client)["features_journal_entries"] == 0, SECONDS)
        Table(LOG, ObjectStore(place.settings.s3)).append(
            log_rows([Observation("t", 0, "x", datetime(2026, 1, 1, tzinfo=UTC), 1.0, "x")], SHARD, 1),
            log_stream(SHARD),
            2,
        )
        assert eventually(lambda: client.get("/ready").status_code == 503, SECONDS)
        refused = client.post("/add", json={"series_id": "s", "value": 1})
        assert refused.status_code == 503
        assert "was written by another process" in refused.json()["detail"]


# What is kept where


def test_a_flush_whose_answer_was_lost_is_not_done_again(place: Place) -> None:
    journal = Journal(place.journal)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    both = [FeatureLog(place.settings, journal, declaration.families()) for _ in range(2)]
    for log in both:
        log.recover()
    journal.append([Entry(n, "s", n, str(n), at + n * timedelta(1), float(n), {}, at) for n in range(3)])
    forget, journal.forget = journal.forget, lambda position: None
    both[0].flush(3, [])
    journal.forget = forget
    journal.append([Entry(3, "s", 3, "3", at + 3 * timedelta(1), 3.0, {}, at)])
    # The snapshot was written behind its back, which it learns from the store.
    assert eventually(lambda: flushed(both[1], 4), SECONDS)
    assert [row["offset"] for row in place.log()] == [0, 1, 2, 3]
    assert (journal.forgotten, journal.since(0)) == (4, [])
    both[1].release()
    journal.close()


def flushed(log: FeatureLog, upto: int) -> bool:
    from mlplatform.io.object_store import Conflict

    try:
        log.flush(upto, [])
    except Conflict:
        return False
    return True


def test_without_a_snapshot_the_log_is_read_again(place: Place) -> None:
    with place.client() as client:
        for value in range(3):
            add(client, value)
    ObjectStore(place.settings.s3).delete(f"snapshots/features/{SHARD}")
    with place.client() as client:
        assert add(client, 3)["features"] == lags(2.0, 1.0, 0.0)


def test_other_lags_are_read_again_from_the_log(place: Place) -> None:
    with place.but(N_LAGS="2").client() as client:
        for value in range(20):
            add(client, value)
    with place.but(N_LAGS="20").client() as client:
        assert add(client, 20)["features"] == lags(*range(19, -1, -1), count=20)


def test_a_lost_disk_is_restored_from_the_log(place: Place) -> None:
    with place.client() as client:
        first = [add(client, value, observation_id=value) for value in range(20)]
    # Redis had more than the log has: what was answered and not flushed when the disk was lost.
    place.redis.publish([("s", 25, [9.0] * DEFAULT_LAGS)])
    shutil.rmtree(place.settings.data_directory)
    with place.client() as client:
        assert [add(client, value, observation_id=value) for value in range(20)] == first
        assert place.redis.read("s") == (19, [float(value) for value in range(19, 4, -1)])
        assert add(client, 20)["offset"] == 20
    assert [row["offset"] for row in place.log()] == list(range(21))


def test_a_journal_of_another_log_is_refused(place: Place) -> None:
    with place.client() as client:
        add(client, 1)
    elsewhere = place.but(MLPLATFORM_S3_PREFIX=f"test-{uuid.uuid4().hex}")
    with elsewhere.client(ready=False) as client:
        assert eventually(lambda: "prefix" in client.get("/ready").text, SECONDS)
        assert client.post("/add", json={"value": 1}).status_code == 503
    with place.client() as client:
        assert add(client, 2)["offset"] == 1


def test_a_torn_journal_loses_only_what_was_not_answered(place: Place) -> None:
    with running(place) as service, httpx.Client(base_url=service.url, timeout=SECONDS) as client:
        first = [add(client, value, observation_id=value) for value in range(30)]
        service.kill()
    log = Path(f"{place.journal}-wal")
    # Of the last commit, only a part reached the disk.
    os.truncate(log, log.stat().st_size - 1000)
    with place.client() as client:
        assert client.get("/series/s").json()["offset"] == 28
        again = [add(client, value, observation_id=value) for value in range(30)]
    assert again == first
    assert [row["observation_id"] for row in place.log()] == [str(value) for value in range(30)]


def test_a_full_disk_takes_nothing(place: Place) -> None:
    with place.client() as client:
        add(client, 1)
        database = client.app.state.features._journal._database  # type: ignore[attr-defined]
        database.execute("PRAGMA max_page_count = 1")
        body = {"series_id": "s", "value": 2}
        with ThreadPoolExecutor(8) as clients:
            refused = list(
                clients.map(
                    lambda at: client.post("/add", json={**body, "observation_id": f"{at}" + "x" * 150}),
                    range(100),
                )
            )
        taken = [each.json()["offset"] for each in refused if each.status_code == 200]
        assert {each.status_code for each in refused} <= {200, 503}
        assert refused[-1].status_code == 503
        assert any("full" in each.json().get("detail", "") for each in refused)
        assert client.get("/series/s").json()["offset"] == len(taken)
        database.execute("PRAGMA max_page_count = 1000000")
        assert add(client, 3)["offset"] == len(taken) + 1
    assert [row["offset"] for row in place.log()] == list(range(len(taken) + 2))


def test_flushes_come_by_themselves(place: Place) -> None:
    with place.but(MLPLATFORM_FLUSH_SECONDS="0.1").client() as client:
        add(client, 1)
        assert eventually(lambda: len(place.log()) == 1, SECONDS)
        assert eventually(lambda: metrics(client)["features_journal_entries"] == 0, SECONDS)
        assert metrics(client)["features_degraded"] == 0
        assert metrics(client)["redis_up"] == 1
        assert 0 <= metrics(client)["features_flush_age_seconds"] < SECONDS
        # A service's own memory is enough for what is next.
        assert add(client, 2)["features"] == lags(1.0)


# Run in a process of its own: what this one has imported says nothing.
EVERYTHING = """
import json, shutil, sys
from mlplatform_tests.services.feature_services import Place, eventually

place = Place(json.loads(sys.argv[1]))

def add(client, **body):
    return client.post("/add", json=body).json()

with place.client() as client:
    first = add(client, value=1, observation_id="a")
    assert "not a number" in add(client, value=None)["detail"]
    assert eventually(lambda: "features_journal_entries 0.0" in client.get("/metrics").text, 30)
    # The log is there now, in which it is looked up.
    assert add(client, value=1, series_id="new")["offset"] == 0
assert len(place.quarantine()) == 1
shutil.rmtree(place.settings.data_directory)
with place.client() as client:
    assert add(client, value=1, observation_id="a") == first
    assert client.get("/features/default").json()["source"] == "memory"
print(json.dumps(sorted({"numpy", "pandas", "pyarrow"} & set(sys.modules))))
"""


def test_a_service_has_no_need_of_what_takes_more_memory_than_itself(place: Place) -> None:
    variables = json.dumps({**place.variables, "MLPLATFORM_FLUSH_SECONDS": "0.05"})
    done = subprocess.run(
        [sys.executable, "-c", EVERYTHING, variables], capture_output=True, text=True, timeout=2 * SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


# Lost stores


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A stack of its own: what is killed here is missed by nobody else."""
    directory = str(tmp_path_factory.mktemp("outages"))
    variables = {"MLPLATFORM_DATA_DIRECTORY": directory, "MLPLATFORM_STACK_SERVICES": "s3,redis"}
    redis = ports.choose(set())
    with running_stack(Settings(variables), {"redis": redis, "s3": ports.choose({redis})}):
        yield Servers(variables)


@pytest.fixture
def struck(servers: Servers, tmp_path: Path) -> Place:
    return Place.make(servers.variables, tmp_path)


def degraded(client: httpx.Client) -> bool:
    return client.get("/health").json()["degraded"]


def test_without_redis_answers_stay_right_and_it_is_filled_when_it_is_back(
    servers: Servers, struck: Place
) -> None:
    place = struck.but(MLPLATFORM_FLUSH_SECONDS="0.2")
    with running(place) as service, httpx.Client(base_url=service.url, timeout=SECONDS) as client:
        for value in range(5):
            add(client, value)
        add(client, 5, "quiet")
        place.redis.publish([("theirs", 0, [1.0])])
        assert not degraded(client)
        assert client.get("/features/theirs").json()["source"] == "redis"
        with servers.without("redis"):
            for value in range(5, 20):
                answer = add(client, value)
                assert answer["available_lags"] == min(value, DEFAULT_LAGS)
                assert answer["features"] == lags(*map(float, range(value - 1, max(value - 16, -1), -1)))
            assert client.get("/features/s").json()["source"] == "memory"
            assert client.get("/features/s").json()["features"] == lags(*map(float, range(19, 4, -1)))
            assert client.get("/features/theirs").status_code == 503
            assert eventually(lambda: degraded(client), SECONDS)
            assert metrics(client)["redis_up"] == 0
            assert metrics(client)["features_degraded"] == 1
        assert eventually(lambda: not degraded(client), SECONDS)
        assert place.redis.read("s") == (19, [float(value) for value in range(19, 4, -1)])
        # It came back empty: also what did not change meanwhile is there again.
        assert place.redis.read("quiet") == (0, [5.0])
        assert add(client, 20)["offset"] == 20
        service.end()
    said = "\n".join(service.log)
    assert said.index("REDIS CONNECTED") < said.index("REDIS UNAVAILABLE") < said.rindex("REDIS CONNECTED")
    assert [row["value"] for row in place.log() if row["series_id"] == "s"] == list(map(float, range(21)))
    newest = [row["value"] for row in place.log() if row["series_id"] == "s"][::-1][:DEFAULT_LAGS]
    assert place.redis.read("s") == (20, newest)


def test_without_an_object_store_it_answers_and_hands_over_later(servers: Servers, struck: Place) -> None:
    place = struck.but(MLPLATFORM_FLUSH_SECONDS="0.2")
    with place.client() as client:
        add(client, 0)
        with servers.without("s3"):
            for value in range(1, 10):
                assert add(client, value, observation_id=value)["offset"] == value
            assert eventually(lambda: degraded(client), 2 * SECONDS)
            assert metrics(client)["features_journal_entries"] >= 9
            assert add(client, 9, observation_id=9)["offset"] == 9
            refused = client.post("/add", json={"series_id": "new", "value": 1})
            assert refused.status_code == 503
            assert "object store" in refused.json()["detail"]
        assert eventually(lambda: not degraded(client), 2 * SECONDS)
        assert eventually(lambda: metrics(client)["features_journal_entries"] == 0, SECONDS)
        assert add(client, 1, "new")["offset"] == 0
    assert [row["offset"] for row in place.log() if row["series_id"] == "s"] == list(range(10))


def test_started_without_an_object_store_it_waits_for_it(servers: Servers, struck: Place) -> None:
    with struck.client() as client:
        add(client, 1)
    with servers.without("s3"), struck.client(ready=False) as client:
        assert eventually(lambda: "object store" in client.get("/ready").text, 2 * SECONDS)
        assert client.post("/add", json={"value": 1}).status_code == 503
        assert degraded(client)
