"""Several models behind one name: all of them learn, one of them answers, and always the same one again."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from mlplatform.domain.champion import Contest
from mlplatform.io.champion_journal import ChampionJournal, Standing
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.prediction_table import PREDICTIONS
from mlplatform.io.tables import Table
from mlplatform.local.stack import RunningStack
from mlplatform.services import learner as learner_module
from mlplatform.services.champion import Challenger, Champion
from mlplatform.services.learner import Call
from mlplatform.services.models import application
from mlplatform.settings import ConfigurationError, Settings
from mlplatform_tests.domain.recipe_checks import series
from mlplatform_tests.graphs import Graph, failure_message, replay
from mlplatform_tests.local.processes import eventually
from mlplatform_tests.services.processes import SECONDS, process
from mlplatform_tests.services.test_learner import changed
from mlplatform_tests.services.test_models import body, client, expected, samples, told

PATH = "/models/champion"
NAMES = ("linear_regression", "ridge_regression")


def learn(service: TestClient, start: int, end: int, **fields: Any) -> list[dict[str, Any]]:
    return [
        told(service.post(f"{PATH}/predict_learn", json=body(at, observation_id=str(at), **fields)))
        for at in range(start, end)
    ]


def counts(service: TestClient, series_id: str = "default") -> dict[str, int]:
    """How many observations each model has learned."""
    return {
        name: told(service.get(f"/models/{name}/model_metrics")).get(series_id, {}).get("count", 0)
        for name in service.app.state.served
    }


def test_every_model_learns_what_one_of_them_answers(settings: Settings) -> None:
    with client(settings, *NAMES) as service:
        assert "message" in told(service.get(f"{PATH}/model_metrics"))
        answers = learn(service, 0, 50)
        assert list(answers[0]) == [
            "prediction",
            "series_id",
            "observation_id",
            "offset",
            "model",
            "shadow",
        ]
        alone = dict(zip(NAMES, (expected(recipe, 50)[0] for recipe in ("linear", "ridge")), strict=True))
        for at, answer in enumerate(answers):
            assert {**answer, "series_id": "default", "observation_id": str(at), "offset": at} == answer
            assert len(answer["shadow"]) == 1
            assert said(answer) == {name: alone[name][at] for name in NAMES}
        assert counts(service) == dict.fromkeys(NAMES, 50)
        # What the champion is asked, the model that serves says.
        for path, asked in (("predict", {}), ("predict_many?steps=3", {}), ("predict", body(50))):
            answer = told(service.post(f"{PATH}/{path}", json=asked))
            model = answer.pop("model")
            assert answer == told(service.post(f"/models/{model}/{path}", json=asked))
        own = told(service.get(f"/models/{model}/model_metrics"))["default"]
        metrics = told(service.get(f"{PATH}/model_metrics"))
        assert metrics == told(service.get(f"{PATH}/metrics"))
        assert metrics["default"] | own == metrics["default"]
        assert metrics["default"]["model"] == metrics["default"]["champion"] == model
        assert told(service.get("/models"))["champion"] == {
            "undecided": 0,
            "champion_of": dict.fromkeys(NAMES, 0) | {model: 1},
            "challenger": None,
        }


def test_the_title_changes_hands_when_another_model_is_clearly_better(settings: Settings) -> None:
    """A line with a season becomes a parabola of the value before, which no line can follow."""
    names = ("linear_regression", "amf_regressor")
    values = [*series(40).tolist(), *parabola(40)]
    contest = Contest()

    def tell(service: TestClient, start: int, end: int) -> None:
        for at in range(start, end):
            lags = [*values[:at][::-1], *[0.0] * 15][:15]
            sent = {"features": {f"in_{lag}": each for lag, each in enumerate(lags, 1)}, "target": values[at]}
            answer = told(service.post(f"{PATH}/predict_learn", json=sent))
            if at:
                assert answer["model"] == contest.predict(said(answer), set(names))[0]
                contest.learn(at, values[at], said(answer), set(names))

    with client(settings, *names) as service:
        tell(service, 0, 50)
        found = samples(service)
        assert found["ml_champion", "linear_regression", "default"] == 1
        # The first is no change of champion.
        assert found["ml_champion_changes_total", "default"] == 0
    # A contest goes on where it was.
    with client(settings, *names) as service:
        assert samples(service)["ml_champion", "linear_regression", "default"] == 1
        tell(service, 50, 80)
        metrics = told(service.get(f"{PATH}/model_metrics"))["default"]
        assert [(each["champion"], each["previous"]) for each in metrics["changes"]] == [
            ("linear_regression", None),
            ("amf_regressor", "linear_regression"),
        ]
        assert metrics["contest_errors"] == contest.errors
        found = samples(service)
        assert found["ml_champion", "amf_regressor", "default"] == 1
        assert ("ml_champion", "linear_regression", "default") not in found
        assert found["ml_champion_changes_total", "default"] == 1
        assert told(service.post(f"{PATH}/predict", json={}))["model"] == "amf_regressor"


def parabola(count: int) -> list[float]:
    values = [0.3]
    while len(values) < count:
        values.append(3.9 * values[-1] * (1 - values[-1]))
    return (100 + 20 * np.array(values)).tolist()


def test_a_baseline_is_compared_with_and_never_answers(settings: Settings) -> None:
    """Of a walk at random, the last value is the best prediction there is."""
    names = ("linear_regression", "naive")
    with client(settings, *names) as service:
        for value in 100 + np.random.default_rng(1).normal(size=40).cumsum():
            sent = {"features": {}, "target": value}
            answer = told(service.post(f"{PATH}/predict_learn", json=sent))
            assert (answer["model"], list(answer["shadow"])) == ("linear_regression", ["naive"])
        errors = service.app.state.champion.standings["default"].contest.errors
        assert errors["naive"] < errors["linear_regression"]


# A share of the observations


def test_a_challenger_answers_its_share_and_wins_no_title(settings: Settings) -> None:
    with_challenger = changed(settings, MLPLATFORM_CHALLENGER="amf:0.3")
    names = ("linear_regression", "amf_regressor")
    with client(with_challenger, *names) as service:
        told_before = [
            told(service.post(f"{PATH}/predict", json={"observation_id": str(at)})) for at in range(60)
        ]
        # Who has learned nothing yet takes no share.
        assert {each["model"] for each in told_before} == {"linear_regression"}
        answers = []
        for at in range(60):
            asked = told(service.post(f"{PATH}/predict", json=body(at, observation_id=str(at))))
            answers += learn(service, at, at + 1)
            if at:
                assert asked == {name: answers[at][name] for name in ("prediction", "model")}
        by = Counter(each["model"] for each in answers)
        assert 60 * 0.15 < by["amf_regressor"] < 60 * 0.45
        listed = told(service.get("/models"))["champion"]
        assert listed["champion_of"] == {"linear_regression": 1, "amf_regressor": 0}
        assert listed["challenger"] == {"name": "amf_regressor", "share": 0.3}
        found = samples(service)
        by_role = {sample.labels["role"]: sample.value for sample in answered_by_role(service)}
        assert by_role == {"champion": by["linear_regression"], "challenger": by["amf_regressor"]}
        assert ("ml_champion", "amf_regressor", "default") not in found
        assert counts(service) == dict.fromkeys(names, 60)
    # Whatever the share is by now, an observation that was answered has its answer.
    for share in (0, 1):
        with client(changed(settings, MLPLATFORM_CHALLENGER=f"amf_regressor:{share}"), *names) as service:
            assert learn(service, 0, 60) == answers
            after = told(service.post(f"{PATH}/predict_learn", json=body(60, series_id=f"s{share}")))
            after = told(service.post(f"{PATH}/predict_learn", json=body(61, series_id=f"s{share}")))
            assert after["model"] == names[share]


def answered_by_role(service: TestClient) -> list[Any]:
    from prometheus_client.parser import text_string_to_metric_families

    families = text_string_to_metric_families(service.get("/metrics").text)
    [found] = [family for family in families if family.name == "ml_champion_answers"]
    return found.samples


def test_a_share_is_that_of_the_observations_and_always_of_the_same() -> None:
    for share in (0.0, 0.1, 0.5, 1.0):
        one = Challenger("m", share)
        taken = {name for name in map(str, range(5_000)) if one.takes("s", name)}
        assert len(taken) / 5_000 == pytest.approx(share, abs=0.02)
        # Who takes more takes what it took before: a share may grow while clients try again.
        assert all(Challenger("m", min(share + 0.1, 1.0)).takes("s", name) for name in taken)
    assert {name for name in map(str, range(99)) if one.takes("s", name)} != {
        name for name in map(str, range(99)) if Challenger("m", 0.5).takes("other", name)
    }


def test_the_champion_that_is_made_the_challenger_has_no_title_any_more(settings: Settings) -> None:
    with client(settings, *NAMES) as service:
        learn(service, 0, 40)
        [champion] = [n for n, k in told(service.get("/models"))["champion"]["champion_of"].items() if k]
    [other] = set(NAMES) - {champion}
    with client(changed(settings, MLPLATFORM_CHALLENGER=f"{champion}:0"), *NAMES) as service:
        assert told(service.get("/models"))["champion"]["champion_of"][champion] == 0
        assert {each["model"] for each in learn(service, 40, 45)} == {other}
        assert told(service.get("/models"))["champion"]["champion_of"][other] == 1


@pytest.mark.parametrize(
    ("given", "names", "said"),
    [
        ("amf_regressor", NAMES, "is no model with its share"),
        ("amf_regressor:2", NAMES, "is no model with its share"),
        ("amf_regressor:nan", NAMES, "is no model with its share"),
        (":0.5", NAMES, "is no model with its share"),
        ("amf_regressor:0.1", NAMES, "one of several models"),
        ("linear_regression:0.1", NAMES[:1], "one of several models"),
    ],
)
def test_a_challenger_that_is_none_is_a_mistake_of_configuration(
    given: str, names: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"MLPLATFORM_CHALLENGER=.*{said}"):
        application(Settings({"MLPLATFORM_CHALLENGER": given}), names)


# What fails


def test_where_one_model_fails_nobody_is_answered_and_who_has_learned_does_not_again(
    settings: Settings, monkeypatch
) -> None:
    """G10."""
    monkeypatch.setattr(learner_module, "REST_SECONDS", 0.0)
    with client(settings, *NAMES) as service:
        learn(service, 0, 30)
        database = service.app.state.served["ridge_regression"].learner._journal._database
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")
        # Until the disk of one model is full.
        for given in range(30, 200):
            reply = service.post(f"{PATH}/predict_learn", json=body(given % 40, series_id="x" * 200))
            if not reply.is_success:
                break
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        detail = reply.json()["detail"]
        assert "(ridge_regression: " in detail
        assert "full" in detail
        # Made by the service, and told to who has to give it again.
        observation_id = detail.split("observation_id '")[1].split("'")[0]
        database.execute("PRAGMA max_page_count = 1000000")
        before = counts(service, "x" * 200)
        assert before["linear_regression"] == before["ridge_regression"] + 1 == given - 30 + 1
        again = body(30, series_id="x" * 200, observation_id=observation_id)
        answer = told(service.post(f"{PATH}/predict_learn", json=again))
        assert answer["offset"] == given - 30
        assert told(service.post(f"{PATH}/predict_learn", json=again)) == answer
        assert counts(service, "x" * 200) == dict.fromkeys(NAMES, given - 30 + 1)
        learners = [each.learner for each in service.app.state.served.values()]
        # Of one time, so that none of them finds the next observation late.
        assert len({learner.state.last["x" * 200].event_time for learner in learners}) == 1
        assert [each["offset"] for each in learn(service, 30, 40)] == list(range(30, 40))


def test_an_answer_that_cannot_be_kept_does_not_go_out_and_counts_once(settings: Settings) -> None:
    with client(settings, *NAMES) as service:
        learn(service, 0, 30)
        database = service.app.state.champion._journal._database
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")
        for given in range(30, 80):
            reply = service.post(f"{PATH}/predict_learn", json=body(given))
            if not reply.is_success:
                break
        assert reply.status_code == 503
        observation_id = reply.json()["detail"].split("observation_id '")[1].split("'")[0]
        database.execute("PRAGMA max_page_count = 1000000")
        answer = told(service.post(f"{PATH}/predict_learn", json=body(given, observation_id=observation_id)))
        assert answer["offset"] == given
        assert counts(service) == dict.fromkeys(NAMES, given + 1)
        contest = service.app.state.champion.standings["default"].contest
        # All but the first, of which nobody could know anything.
        assert contest.counts == dict.fromkeys(NAMES, given)


def test_a_client_that_leaves_leaves_no_half_of_the_models_behind(settings: Settings) -> None:
    """Nor when the service ends at that moment."""

    async def leave(champion: Champion) -> None:
        told = asyncio.create_task(champion.learn(Call("default", (), 7.0, "left")))
        await asyncio.sleep(0)
        told.cancel()
        await asyncio.wait([told])

    with client(settings, *NAMES) as service:
        service.portal.call(leave, service.app.state.champion)
    with client(settings, *NAMES) as service:
        assert counts(service) == dict.fromkeys(NAMES, 1)
        assert service.app.state.champion.standings["default"].next_offset == 1


def test_an_answer_is_kept_with_its_contest_or_not_at_all(tmp_path: Path) -> None:
    journal = ChampionJournal(tmp_path / "champion.db")
    answer = {"series_id": "s", "observation_id": "o", "prediction": 1.0}
    refuse = "CREATE TRIGGER refuse BEFORE INSERT ON contests BEGIN SELECT RAISE(ABORT, 'no'); END"
    journal._database.execute(refuse)
    with pytest.raises(sqlite3.IntegrityError):
        journal.append(answer, Standing(Contest(), 1))
    assert journal.answer("s", "o") is None
    journal.close()


def test_with_its_disk_a_service_loses_who_was_champion_and_nothing_else(settings: Settings) -> None:
    with client(settings, *NAMES) as service:
        first = learn(service, 0, 30)
    shutil.rmtree(settings.data_directory / "services")
    with client(settings, *NAMES) as service:
        again = learn(service, 0, 30)
        # And even that, to who gives it all again.
        assert again == first
        assert counts(service) == dict.fromkeys(NAMES, 30)
        assert [each["offset"] for each in learn(service, 30, 40)] == list(range(30, 40))


def said(answer: dict[str, Any]) -> dict[str, float]:
    """What each model said."""
    return {answer["model"]: answer["prediction"]} | answer["shadow"]


def test_what_no_model_may_learn_is_refused_in_the_words_of_one(settings: Settings) -> None:
    with client(settings, *NAMES) as service:
        learn(service, 0, 20)
        for wrong, reason in (
            ({"features": {"in_2": 1.0}}, "'in_1' is missing"),
            ({"target": 1e7}, "absurd"),
            ({"series_id": ""}, "series_id must have"),
            ({"observation_id": ""}, "observation_id must have"),
        ):
            refused = service.post(f"{PATH}/predict_learn", json=body(20) | wrong)
            assert refused.status_code == 422
            assert reason in refused.json()["detail"]
            assert "Give it again" not in refused.json()["detail"]
            asked = service.post(f"{PATH}/predict", json={"features": {}} | wrong)
            assert asked.status_code == (200 if "target" in wrong else 422)
        assert counts(service) == dict.fromkeys(NAMES, 20)


@pytest.mark.filterwarnings("ignore::dagster.PreviewWarning")
def test_a_series_that_the_pipeline_has_of_one_model_is_learned_by_none(
    settings: Settings, stack: RunningStack
) -> None:
    graph = Graph(
        {**settings.variables, "MLPLATFORM_REDIS_URL": Settings(stack.variables).redis_url},
        [replay(last=30)],
        models=["ridge"],
    )
    result = graph.run()
    assert result.success, failure_message(result)
    with client(settings, *NAMES) as service:
        for path in ("predict_learn", "predict", "predict_many"):
            refused = service.post(f"{PATH}/{path}", json=body(0, series_id="retail"))
            assert refused.status_code == 409, path
            assert "belongs to the pipeline" in refused.json()["detail"]
        assert counts(service, "retail")["linear_regression"] == 0


# Metrics


def test_labels_are_as_many_as_the_setting_says(settings: Settings) -> None:
    with client(changed(settings, MLPLATFORM_LABELLED_SERIES="2"), *NAMES) as service:
        for name in "dcba":
            learn(service, 0, 26, series_id=name)
        found = samples(service)
    assert {key[2] for key in found if key[0] == "ml_champion"} == {"d", "c"}
    assert {key[1] for key in found if key[0] == "ml_champion_changes_total"} == {"d", "c", "other"}


def test_requests_are_counted_by_the_model_that_they_are_for(settings: Settings) -> None:
    with client(settings, *NAMES) as service:
        for name in ("champion", *NAMES):
            told(service.post(f"/models/{name}/predict_many", json={}))
        text = service.get("/metrics").text
        for name in ("champion", *NAMES):
            counted = (
                f'http_requests_total{{method="POST",route="/models/{name}/predict_many",status="200"}} 1.0'
            )
            assert counted in text


def test_how_late_a_series_is_can_be_seen(settings: Settings) -> None:
    with client(settings, *NAMES) as service:
        learn(service, 0, 1, event_time="2026-03-01T12:00:00Z")
        found = samples(service)
        for name in NAMES:
            assert found["ml_model_last_event_timestamp_seconds", name, "default"] == 1772366400


# Real processes

CLIENTS = 6


def test_a_call_that_is_made_again_has_its_first_answer_whatever_is_killed(settings: Settings) -> None:
    """G1, G4, G10: decided from what the clients have recorded, and from the table."""
    seed = random.randrange(10**6)
    recorded: list[tuple[str, dict[str, Any]]] = []
    ended = threading.Event()

    def call(number: int) -> None:
        chosen, given = random.Random(f"{seed} {number}"), 0
        with httpx.Client(base_url=service.address, trust_env=False, timeout=SECONDS) as caller:
            while not ended.is_set():
                again = chosen.random() < 0.3
                owner = chosen.randrange(CLIENTS) if again else number
                name = f"{owner}-{chosen.randrange(given + 1) if again else given}"
                given += not again
                while (answer := answered(caller, name)) is None:
                    time.sleep(0.02)
                recorded.append((name, answer))

    def answered(caller: httpx.Client, name: str) -> dict[str, Any] | None:
        sent = {"features": {}, "target": sum(name.encode()) / 7, "series_id": f"s{sum(name.encode()) % 3}"}
        try:
            reply = caller.post(f"{PATH}/predict_learn", json=sent | {"observation_id": name})
        except httpx.TransportError:
            return None
        return None if reply.status_code == 503 else told(reply)

    quick = changed(settings, MLPLATFORM_FLUSH_SECONDS="0.2", MLPLATFORM_CHALLENGER="ridge:0.5")
    chosen = [word for name in NAMES for word in ("--model", name)]
    with process(quick, "models", *chosen) as service, ThreadPoolExecutor(CLIENTS) as callers:
        calling = [callers.submit(call, number) for number in range(CLIENTS)]
        try:
            assert eventually(lambda: len(recorded) > 100, SECONDS), seed
            service.kill()
            before = len(recorded)
            service.start()
            service.wait_until_ready()
            assert eventually(lambda: len(recorded) > before + 100, SECONDS), seed
        finally:
            ended.set()
        for each in calling:
            each.result()
        service.kill()
    answers: dict[str, list[dict[str, Any]]] = {}
    for name, answer in recorded:
        answers.setdefault(name, []).append(answer)
    assert len(recorded) > len(answers)
    # With another share, after one more kill.
    with client(changed(settings, MLPLATFORM_CHALLENGER="ridge:0"), *NAMES) as caller:
        for name, given in answers.items():
            assert [answered(caller, name)] * len(given) == given, seed
    models = Counter(given[0]["model"] for given in answers.values())
    assert set(models) == set(NAMES)
    table = Table(PREDICTIONS, ObjectStore(settings.s3)).read().to_pylist()
    for name, recipe in zip(NAMES, ("linear", "ridge"), strict=True):
        rows = {row["observation_id"]: row for row in table if row["model"] == recipe}
        assert len(rows) == sum(row["model"] == recipe for row in table)
        assert set(rows) == set(answers), seed
        for observation_id, row in rows.items():
            assert said(answers[observation_id][0])[name] == row["prediction"], seed
