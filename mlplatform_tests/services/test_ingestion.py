"""The ingestion service hands out every observation, each once, also to clients that fail."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from mlplatform.io import cursor, declaration
from mlplatform.services.ingestion import application
from mlplatform.settings import Settings
from mlplatform_tests.io.sources.exchange import Exchange, running_exchange
from mlplatform_tests.local.processes import eventually

ALL = 744
# The last 744 months of the file.
FIRST, LAST = "1957-10", "2019-09"


@contextmanager
def service(folder: Path, exchange_url: str = "http://127.0.0.1:9", **variables: str) -> Iterator[TestClient]:
    settings = Settings({"MLPLATFORM_DATA_DIRECTORY": str(folder), **variables})
    with TestClient(application(settings, exchange_url), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with service(tmp_path) as client:
        yield client


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with running_exchange() as running:
        yield running


def months() -> list[tuple[str, float]]:
    """The last 744 lines of the file."""
    path = declaration.replay("retail_employment").path
    lines = [line.split(",") for line in path.read_text().splitlines()[-ALL:]]
    return [(month, float(value)) for month, value in lines]


def replay_file(folder: Path, *lines: str, header: str = "input,target") -> dict[str, str]:
    path = folder / "replayed.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return {"MLPLATFORM_REPLAY_FILE": str(path)}


def key(value: object) -> dict[str, str]:
    return {"Idempotency-Key": str(value)}


# The seed's interface


def test_the_seeds_replies(client: TestClient) -> None:
    month, value = months()[0]
    assert client.get("/health").json() == {"status": "healthy", "total_observations": ALL}
    assert client.get("/next").json() == {
        "observation_id": 1,
        "input": month,
        "target": value,
        "remaining": ALL - 1,
        "series_id": "us_retail_employment",
    }
    assert client.get("/next").json()["observation_id"] == 2
    assert client.get("/status").json() == {
        "current_index": 2,
        "total_observations": ALL,
        "remaining": ALL - 2,
        "completed": False,
        "series_id": "us_retail_employment",
    }
    reset = client.post("/reset")
    assert reset.status_code == 200
    assert reset.json() == {"message": "Stream reset to beginning", "total_observations": ALL}
    assert client.get("/next").json()["observation_id"] == 1


def test_everything_is_handed_out_and_then_nothing(client: TestClient) -> None:
    told = [client.get("/next").json() for _ in range(ALL)]
    assert [(each["input"], each["target"]) for each in told] == months()
    assert [each["observation_id"] for each in told] == list(range(1, ALL + 1))
    assert [each["remaining"] for each in told] == list(range(ALL))[::-1]
    for _ in range(2):
        end = client.get("/next")
        assert (end.status_code, end.content) == (204, b"")
    status = client.get("/status").json()
    assert (status["completed"], status["remaining"], status["current_index"]) == (True, 0, ALL)


def test_whole_numbers_are_integers(tmp_path: Path) -> None:
    lines = ["1949-01,104", "1949-02,104.0", "1949-03,104.5", "1949-04,1e300", "1949-05,nan", "1949-06,none"]
    with service(tmp_path, **replay_file(tmp_path, *lines)) as client:
        told = [client.get("/next").text for _ in lines]
    assert '"target":104,' in told[0]
    assert '"target":104,' in told[1]
    assert '"target":104.5,' in told[2]
    assert '"target":1e' in told[3]
    assert '"target":null,' in told[4]
    assert '"target":null,' in told[5]


@pytest.mark.parametrize(
    ("times", "inputs"),
    [
        (["1949-01-01", "1949-02-01T00:00:00"], ["1949-01", "1949-02"]),
        (["1949-01-01", "1949-01-02"], ["1949-01-01", "1949-01-02"]),
        (["2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"], ["2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"]),
    ],
)
def test_a_month_is_told_as_a_month_and_other_times_as_the_file_has_them(
    tmp_path: Path, times: list[str], inputs: list[str]
) -> None:
    with service(tmp_path, **replay_file(tmp_path, *(f"{time},1" for time in times))) as client:
        assert [client.get("/next").json()["input"] for _ in times] == inputs


def test_a_file_of_several_series(tmp_path: Path) -> None:
    lines = ["a,1949-01,1", "b,1949-01,2", "a,1949-02,3"]
    variables = replay_file(tmp_path, *lines, header="series_id,timestamp,value")
    with service(tmp_path, **variables) as client:
        assert client.get("/status").json()["series_id"] is None
        told = [client.get("/next").json() for _ in lines]
    assert [(each["series_id"], each["target"]) for each in told] == [("a", 1), ("b", 2), ("a", 3)]


# What the seed lost


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    with service(tmp_path) as client:
        assert [client.get("/next").json()["observation_id"] for _ in range(3)] == [1, 2, 3]
    with service(tmp_path) as client:
        assert client.get("/status").json()["current_index"] == 3
        assert client.get("/next").json()["observation_id"] == 4


def test_a_key_gets_its_observation_again_also_after_a_restart(tmp_path: Path) -> None:
    with service(tmp_path) as client:
        first = client.get("/next", headers=key("one")).json()
        assert client.get("/next").json()["observation_id"] == 2
        assert client.get("/next", headers=key("one")).json() == first
    with service(tmp_path) as client:
        assert client.get("/next", headers=key("one")).json() == first
        assert client.get("/next", headers=key("another")).json()["observation_id"] == 3


def test_a_key_is_of_one_kind_of_request(client: TestClient) -> None:
    assert client.get("/next", headers=key("one")).json()["observation_id"] == 1
    assert "message" in client.post("/reset", headers=key("one")).json()
    for path, method in (("/next", "GET"), ("/reset", "POST"), ("/next/BTC", "GET")):
        assert client.request(method, path, headers=key("")).status_code == 422


def test_so_many_keys_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cursor.KEPT_ANSWERS == 1000
    monkeypatch.setattr(cursor, "KEPT_ANSWERS", 20)
    with service(tmp_path) as client:
        for at in range(30):
            assert client.get("/next", headers=key(at)).json()["observation_id"] == at + 1
        assert client.get("/next", headers=key(10)).json()["observation_id"] == 11
        assert client.get("/next", headers=key(9)).json()["observation_id"] == 31


def test_a_repeated_reset_resets_once(client: TestClient) -> None:
    client.get("/next")
    assert client.post("/reset", headers=key("again")).status_code == 200
    client.get("/next")
    assert client.post("/reset", headers=key("again")).status_code == 200
    assert client.get("/next").json()["observation_id"] == 2


def test_the_end_is_no_answer_that_a_key_keeps(tmp_path: Path) -> None:
    with service(tmp_path, **replay_file(tmp_path, "1949-01,1")) as client:
        client.get("/next")
        assert client.get("/next", headers=key("late")).status_code == 204
        client.post("/reset")
        assert client.get("/next", headers=key("late")).json()["observation_id"] == 1


def test_clients_with_a_place_of_their_own(client: TestClient) -> None:
    page = client.get("/observations", params={"limit": 2}).json()["observations"]
    assert [(each["observation_id"], each["input"], each["target"]) for each in page] == [
        (1, *months()[0]),
        (2, *months()[1]),
    ]
    assert page[0]["event_time"] == f"{months()[0][0]}-01T00:00:00Z"
    page = client.get("/observations", params={"after": ALL - 1}).json()["observations"]
    assert [each["observation_id"] for each in page] == [ALL]
    assert client.get("/observations", params={"after": ALL}).json() == {"observations": []}
    # Nothing was handed out.
    assert client.get("/status").json()["current_index"] == 0
    assert client.get("/observations", params={"limit": 10_000}).status_code == 422


def test_a_file_that_grows_keeps_its_numbers(tmp_path: Path) -> None:
    with service(tmp_path, **replay_file(tmp_path, "1949-01,1", "1949-02,2")) as client:
        assert [client.get("/next").json()["observation_id"] for _ in range(2)] == [1, 2]
        assert client.get("/next").status_code == 204
    with service(tmp_path, **replay_file(tmp_path, "1949-01,1", "1949-02,2", "1949-03,3")) as client:
        told = client.get("/next").json()
    assert (told["observation_id"], told["target"], told["remaining"]) == (3, 3, 0)


def test_each_file_has_its_own_cursor(tmp_path: Path) -> None:
    with service(tmp_path) as client:
        client.get("/next")
    with service(tmp_path, **replay_file(tmp_path, "1949-01,7")) as client:
        assert client.get("/next").json()["target"] == 7
    with service(tmp_path) as client:
        assert client.get("/next").json()["observation_id"] == 2


def test_one_process_has_the_cursor(tmp_path: Path) -> None:
    code = f"""
        import sys
        from fastapi.testclient import TestClient
        from mlplatform.io.cursor import CursorInUse
        from mlplatform.services.ingestion import application
        from mlplatform.settings import Settings
        try:
            with TestClient(application(Settings({{"MLPLATFORM_DATA_DIRECTORY": {str(tmp_path)!r}}}))):
                pass
        except CursorInUse as error:
            print(error)
    """
    with service(tmp_path):
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
        )
    assert "is in use by another process" in ended.stdout


SERVE = textwrap.dedent(
    """
    import sys
    from mlplatform.services.ingestion import application
    from mlplatform.services.server import Service, listening, serve
    from mlplatform.settings import Settings
    services = [Service("ingestion", application(Settings.load()), 0)]
    with listening(services, "127.0.0.1") as sockets:
        print(sockets["ingestion"].getsockname()[1], flush=True)
        serve(services, sockets)
    """
)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    variables = {**os.environ, "MLPLATFORM_DATA_DIRECTORY": str(folder)}
    started = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=variables,
    )
    with started:
        try:
            assert started.stdout is not None
            url = f"http://127.0.0.1:{started.stdout.readline().strip()}"
            assert eventually(lambda: answers(url), 30), "the service does not start"
            yield started, url
        finally:
            started.kill()


def test_killed_in_mid_stream_it_hands_out_each_observation_once(tmp_path: Path) -> None:
    """Three clients that retry with their keys, and a process that is killed while they do."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    told: dict[str, list[int]] = {}
    failures: list[str] = []

    def client(url: str, own: str, done: list[int]) -> None:
        with httpx.Client(base_url=url, timeout=30) as asking:
            while done[0] < 200:
                name = f"{own}-{done[0]}"
                try:
                    answer = asking.get("/next", headers=key(name))
                except httpx.TransportError as error:
                    failures.append(repr(error))
                    return
                assert answer.status_code == 200
                told.setdefault(name, []).append(answer.json()["observation_id"])
                done[0] += 1

    progress = [[0], [0], [0]]
    for life in range(4):
        failures.clear()
        with process(tmp_path) as (started, url), ThreadPoolExecutor(3) as clients:
            running = [clients.submit(client, url, str(at), done) for at, done in enumerate(progress)]
            if life < 3:
                goal = sum(done[0] for done in progress) + chance.randrange(20, 120)
                while sum(done[0] for done in progress) < goal and not all(each.done() for each in running):
                    time.sleep(0.001)
                started.send_signal(signal.SIGKILL)
            for each in running:
                each.result()
    assert failures == [], f"seed {seed}"
    assert progress == [[200]] * 3, f"seed {seed}"
    # Each key has one observation, whatever it was told before; together they have all, each once.
    assert all(len(set(each)) == 1 for each in told.values()), f"seed {seed}"
    assert sorted(each[0] for each in told.values()) == list(range(1, 601)), f"seed {seed}"


def test_two_at_once_never_get_the_same(client: TestClient) -> None:
    with ThreadPoolExecutor(8) as clients:
        told = list(clients.map(lambda _: client.get("/next").json()["observation_id"], range(200)))
    assert sorted(told) == list(range(1, 201))


# Live prices


def test_a_live_price(tmp_path: Path, exchange: Exchange) -> None:
    with service(tmp_path, exchange.url) as client:
        told = client.get("/next/btc")
    assert told.status_code == 200
    assert told.json() == {
        "observation_id": "BTC_live",
        "input": "BTC",
        "target": 97123.45,
        "remaining": "live",
        "series_id": "BTC-USD",
    }
    assert exchange.asked == ["/v2/prices/BTC-USD/spot"]


def test_a_key_gets_its_price_again(tmp_path: Path, exchange: Exchange) -> None:
    with service(tmp_path, exchange.url) as client:
        first = client.get("/next/BTC", headers=key("one")).json()
    exchange.body = exchange.body.replace(b"97123.45", b"1.5")
    with service(tmp_path, exchange.url) as client:
        assert client.get("/next/BTC", headers=key("one")).json() == first
        assert client.get("/next/BTC", headers=key("two")).json()["target"] == 1.5
        # The key of a price is none of the replay's.
        assert client.get("/next", headers=key("one")).json()["observation_id"] == 1


@pytest.mark.parametrize(
    ("upstream", "body", "status"), [(404, b"", 404), (429, b"", 503), (500, b"", 502), (200, b"{}", 502)]
)
def test_what_the_exchange_refuses(
    tmp_path: Path, exchange: Exchange, upstream: int, body: bytes, status: int
) -> None:
    exchange.status, exchange.body = upstream, body
    exchange.headers = {"Retry-After": "17"}
    with service(tmp_path, exchange.url) as client:
        refused = client.get("/next/BTC")
        assert refused.status_code == status
        assert "price of BTC" in refused.json()["detail"]
        assert refused.headers.get("Retry-After") == ("17" if upstream == 429 else None)
        # It hurts nobody else, and nothing of it is kept.
        assert client.get("/next").status_code == 200
        exchange.status, exchange.body = 200, b'{"data": {"amount": "2"}}'
        assert client.get("/next/BTC").json()["target"] == 2


def test_no_network(tmp_path: Path) -> None:
    with service(tmp_path) as client:
        refused = client.get("/next/BTC")
    assert refused.status_code == 503
    assert "cannot be reached" in refused.json()["detail"]


@pytest.mark.parametrize("name", ["B", "BTC-EUR", "toolongacurrency", "%20", "B%2FC", "Ⅷ"])
def test_no_currency(tmp_path: Path, exchange: Exchange, name: str) -> None:
    with service(tmp_path, exchange.url) as client:
        assert client.get(f"/next/{name}").status_code == 404
    assert exchange.asked == []


# Operation


def test_metrics_are_valid_and_say_what_is_left(client: TestClient) -> None:
    client.get("/next")
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    [handed_out] = [
        each for each in families["ingestion_observations"].samples if each.name.endswith("total")
    ]
    assert (handed_out.labels, handed_out.value) == ({"source": "replay"}, 1)
    assert families["ingestion_remaining"].samples[0].value == ALL - 1


def test_a_disk_that_is_full_hands_out_nothing(client: TestClient) -> None:
    database = client.app.state.ingestion._cursor._database  # type: ignore[union-attr]
    for at in range(20):
        client.get("/next", headers=key(f"{at}" + "x" * 190))
    database.execute("PRAGMA max_page_count = 1")
    refused = [client.get("/next", headers=key(f"full {at}" + "x" * 180)) for at in range(40)][-1]
    assert refused.status_code == 503
    assert "full" in refused.json()["detail"]
    at = client.get("/status").json()["current_index"]
    database.execute("PRAGMA max_page_count = 100000")
    assert client.get("/next").json()["observation_id"] == at + 1
