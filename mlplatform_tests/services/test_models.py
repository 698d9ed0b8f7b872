"""The model service as its clients see it: the seed's requests and replies, and none of its defects."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import numpy as np
import pyarrow.dataset as ds
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from mlplatform.domain.families import DEFAULT_FAMILY
from mlplatform.domain.model import Model
from mlplatform.domain.recipes import load_recipes
from mlplatform.io.journal import Entry
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.observation_log import LOG, QUARANTINE
from mlplatform.io.prediction_table import PREDICTIONS
from mlplatform.io.stores import Stores
from mlplatform.io.tables import Table
from mlplatform.local.stack import RunningStack
from mlplatform.services import features, pipeline_models, served
from mlplatform.services.models import SEED_NAMES, application
from mlplatform.services.pipeline_models import PipelineModels
from mlplatform.services.served import Stream
from mlplatform.settings import FIRST_SERVICE_SHARD, ConfigurationError, Settings
from mlplatform_tests.domain.recipe_checks import series
from mlplatform_tests.graphs import Graph, failure_message, pushed, replay
from mlplatform_tests.local.processes import eventually
from mlplatform_tests.services.processes import process
from mlplatform_tests.services.test_learner import changed

RECIPES = load_recipes()
VALUES = series(80).round(3).tolist()
NAMES = ("linear_regression", "ridge_regression")
ERRORS = [f"{name}_{window}" for window in (5, 10, 20) for name in ("mae", "mse", "rmse", "mape")]
SECONDS = 30


@contextmanager
def client(settings: Settings, *names: str) -> Iterator[TestClient]:
    with TestClient(application(settings, names), raise_server_exceptions=False) as opened:
        yield opened


def body(at: int, lags: int = 15, **fields: Any) -> dict[str, Any]:
    """The observation at offset `at`, as the seed's features and ingestion give it."""
    earlier = [*VALUES[:at][::-1], *[0.0] * lags][:lags]
    return {
        "features": {f"in_{lag}": value for lag, value in enumerate(earlier, 1)},
        "target": VALUES[at],
    } | fields


def told(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    # What is no JSON number would be read all the same.
    return json.loads(response.text, parse_constant=pytest.fail)


def learn(service: TestClient, start: int, end: int, path: str = "", **fields: Any) -> list[float]:
    return [
        told(service.post(f"{path}/predict_learn", json=body(at, **fields)))["prediction"]
        for at in range(start, end)
    ]


def expected(recipe: str, end: int) -> tuple[list[float], Model]:
    """What a model says that has all its lags, as in the pipeline, and the model."""
    from mlplatform.domain.lags import lag_matrix

    values = np.array(VALUES[:end])
    lags, available = lag_matrix([], values, DEFAULT_FAMILY.lags)
    model = Model(RECIPES[recipe], DEFAULT_FAMILY)
    return model.fold(np.arange(end), lags, available, values).tolist(), model


# The seed's requests and replies


@pytest.mark.parametrize("name", SEED_NAMES)
def test_the_replies_have_the_seeds_shapes(settings: Settings, name: str) -> None:
    recipe = SEED_NAMES[name]
    with client(changed(settings, MODEL_NAME=name)) as service:
        before = told(service.get("/model_metrics"))
        assert before["message"] == "No predictions available yet"
        assert set(before) == {"message", "model_info"}
        assert set(before["model_info"]) == {"model_type", "model_name", "model_str", "model_attributes"}
        assert before["model_info"]["model_name"] == name
        assert told(service.get("/health"))["status"] == "ok"
        first = told(service.post("/predict_learn", json=body(0)))
        assert first["prediction"] == 0.0
        assert set(first) == {"prediction", "series_id", "observation_id", "offset"}
        assert (first["series_id"], first["offset"]) == ("default", 0)
        nothing_counted = told(service.get("/model_metrics"))["default"]
        assert (nothing_counted["count"], nothing_counted["mae_5"]) == (1, None)
        said = [0.0, *learn(service, 1, 30)]
        predictions, model = expected(recipe, 30)
        assert said == predictions
        after = told(service.get("/model_metrics"))
        assert set(after) == {"default", "model_info"}
        of = after["default"]
        assert list(of) == ["count", *ERRORS, "last_prediction", "last_actual", "last_error", "forecast"]
        assert (of["count"], of["last_prediction"], of["last_actual"]) == (30, said[-1], VALUES[29])
        assert of["last_error"] == abs(VALUES[29] - said[-1])
        assert of["mae_5"] == pytest.approx(np.abs(np.array(VALUES[25:30]) - said[25:]).mean(), abs=1e-6)
        assert of["forecast"] == [round(value, 6) for value in model.forecast(5)]
        ahead = told(service.post("/predict_many", json={"features": body(30)["features"]}))
        assert ahead == {"forecast": [{"step": at, "value": v} for at, v in enumerate(of["forecast"], 1)]}
        assert told(service.get("/health")) == {"status": "ok", "model_loaded": True, "degraded": None}


@pytest.mark.parametrize(
    "sent",
    [
        {"features": {"in_1": 1.0}},
        {"features": {"in_1": 1.0}, "target": "many"},
        {"features": {"in_1": 1.0}, "target": None},
        {"target": 1.0},
        {"features": {"in_1": "many"}, "target": 1.0},
        [],
    ],
)
def test_a_body_that_is_none_is_refused(settings: Settings, sent: object) -> None:
    with client(settings) as service:
        assert service.post("/predict_learn", json=sent).status_code == 422
        assert "message" in told(service.get("/model_metrics"))


def test_a_model_that_is_none_is_a_mistake_of_configuration(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match=r"'nearest'.* there are linear_regression, .*, arima"):
        application(changed(settings, MODEL_NAME="nearest"))


def test_without_a_name_it_is_the_seeds_default_and_our_names_do_too(settings: Settings) -> None:
    for names, said in (((), "linear_regression"), (("knn",), "knn_regressor"), (("arima",), "arima")):
        with client(settings, *names) as service:
            [model] = told(service.get("/models"))["models"]
            assert model["name"] == said


# What the seed's services did wrong


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"features": {"in_1": 1.0, "in_3": 1.0}}, "'in_2' is missing"),
        ({"features": {"in_0": 1.0}}, "in_0"),
        ({"features": {"in_1": 1.0, "lag": 1.0}}, "lag"),
        ({"features": {"in_01": 1.0}}, "in_01"),
        ({"features": {"in_1": float("nan")}}, "finite"),
        ({"features": {"in_1": 1e31}}, "too large"),
        ({"target": float("inf")}, "finite"),
        ({"target": -2e30}, "too large"),
        ({"target": 1e7}, "absurd"),
    ],
)
def test_what_would_spoil_the_model_is_refused_and_leaves_it_as_it_was(
    settings: Settings, wrong: dict[str, Any], reason: str
) -> None:
    """G9."""
    with client(settings) as service:
        learn(service, 0, 20)
        before = told(service.get("/model_metrics?history=true"))
        sent = json.dumps(body(20) | wrong)
        refused = service.post("/predict_learn", content=sent, headers={"Content-Type": "application/json"})
        assert refused.status_code == 422
        assert reason in refused.json()["detail"]
        assert told(service.get("/model_metrics?history=true")) == before
        assert learn(service, 20, 30) == expected("linear", 30)[0][20:]
    [row] = Stores(settings).table(QUARANTINE.name).read().to_pylist()
    assert row["source"] == "services/linear"
    assert reason in row["reason"]


@pytest.mark.parametrize(
    "wrong",
    [
        *[{"series_id": name} for name in ("", "model_info", "message", "a\nb", "x" * 201)],
        *[{"observation_id": name} for name in ("", "a\x00b", "x" * 201)],
        *[{"event_time": time} for time in ("2020-01-01T00:00:00", "0001-01-01T00:00:00+14:00")],
    ],
)
def test_names_and_times_that_nobody_can_keep_are_refused(settings: Settings, wrong: dict[str, Any]) -> None:
    with client(settings) as service:
        assert service.post("/predict_learn", json=body(0, **wrong)).status_code == 422
        assert "message" in told(service.get("/model_metrics"))


def test_a_call_that_is_made_again_gets_its_first_answer(settings: Settings) -> None:
    """G1: by its id in the body or in the header, also after a restart."""
    with client(settings) as service:
        first = told(service.post("/predict_learn", json=body(0, observation_id="a")))
        by_header = told(service.post("/predict_learn", json=body(1), headers={"Idempotency-Key": "b"}))
        learn(service, 2, 10)
    with client(settings) as service:
        assert told(service.post("/predict_learn", json=body(0), headers={"Idempotency-Key": "a"})) == first
        assert told(service.post("/predict_learn", json=body(5, observation_id="b"))) == by_header
        assert by_header["observation_id"] == "b"
        assert told(service.get("/model_metrics"))["default"]["count"] == 10
        assert learn(service, 10, 30) == expected("linear", 30)[0][10:]


@pytest.mark.parametrize(
    ("features", "target"),
    [
        ({"in_1": VALUES[29]}, 1e9),
        ({"in_1": 1e9}, VALUES[30]),
        ({}, -1e9),
        ({"in_1": 1.0, "in_2": -1e9}, 100.0),
    ],
)
def test_what_the_series_has_never_been_near_is_refused_whatever_the_client_says_was_before(
    settings: Settings, features: dict[str, float], target: float
) -> None:
    with client(settings) as service:
        learn(service, 0, 30)
        refused = service.post("/predict_learn", json={"features": features, "target": target})
        assert refused.status_code == 422
        assert "absurd" in refused.json()["detail"]
        few = service.post("/predict_learn", json={"features": {"in_1": VALUES[29]}, "target": VALUES[30]})
        assert few.status_code == 200


def test_a_series_that_the_pipeline_replays_is_its_own_before_it_has_read_it(settings: Settings) -> None:
    with client(settings) as service:
        refused = service.post("/predict_learn", json=body(0, series_id="us_retail_employment"))
        assert refused.status_code == 409
        assert service.post("/predict", json={"series_id": "us_retail_employment"}).is_success


def test_times_of_a_series_do_not_go_back(settings: Settings) -> None:
    """G6, and no clock that is fast makes everything after it late."""
    soon = datetime.now(UTC) + timedelta(hours=1)

    def tell(opened: TestClient, at: int, **fields: Any) -> tuple[int, str]:
        reply = opened.post("/predict_learn", json=body(at, **fields))
        return reply.status_code, str(reply.json().get("detail", ""))[:5]

    with client(settings) as opened:
        first = body(0, event_time="2020-02-01T00:00:00Z", observation_id="first")
        answer = opened.post("/predict_learn", json=first).json()
        assert tell(opened, 1, event_time="2020-01-01T00:00:00Z") == (422, "late:")
        assert tell(opened, 1, event_time="2020-02-01T01:00:00+01:00") == (422, "late:")
        assert tell(opened, 1, event_time=(soon + timedelta(days=1)).isoformat()) == (422, "early")
        assert tell(opened, 1, event_time=soon.isoformat()) == (200, "")
        assert tell(opened, 2) == (200, "")
        assert opened.post("/predict_learn", json=first).json() == answer
    with client(settings) as again:
        assert tell(again, 3, event_time=soon.isoformat()) == (422, "late:")
        assert tell(again, 3) == (200, "")


def test_clients_cannot_make_series_without_end(settings: Settings) -> None:
    with client(changed(settings, MLPLATFORM_MOST_SERIES="2")) as service:

        def status(series_id: str) -> int:
            return service.post("/predict_learn", json=body(0, series_id=series_id)).status_code

        assert [status(series_id) for series_id in ("a", "b", "c", "a", "c")] == [200, 200, 409, 200, 409]
        refused = service.post("/predict_learn", json=body(0, series_id="c")).json()["detail"]
        assert "MLPLATFORM_MOST_SERIES" in refused


def test_asking_changes_nothing(settings: Settings) -> None:
    with client(settings) as service:
        learn(service, 0, 30)
        before = told(service.get("/model_metrics?history=true"))
        (ahead,) = expected("linear", 30)[1].forecast(1)
        for asked in ({}, {"features": body(30)["features"]}, {"features": None}):
            assert told(service.post("/predict", json=asked)) == {"prediction": ahead}
        assert told(service.post("/predict", json={"series_id": "unheard"})) == {"prediction": 0.0}
        hundred = told(service.post("/predict_many?steps=100", json={}))["forecast"]
        assert [each["step"] for each in hundred] == list(range(1, 101))
        assert service.post("/predict_many?steps=0", json={}).status_code == 422
        assert service.post("/predict_many?steps=101", json={}).status_code == 422
        assert service.post("/predict", json={"features": {"other": 1.0}}).status_code == 422
        assert service.post("/predict", json={"features": {"in_1": -1e31}}).status_code == 422
        assert told(service.get("/model_metrics?history=true")) == before
        assert [row["series_id"] for row in told(service.get("/series"))["series"]] == ["default"]


def test_each_series_has_its_own_model_and_history(settings: Settings) -> None:
    with client(settings) as service:
        for at in range(25):
            for series_id in ("a", "b"):
                told(
                    service.post("/predict_learn", json=body(at, series_id=series_id, observation_id=str(at)))
                )
        metrics = told(service.get("/model_metrics?history=true"))
        assert metrics["a"] == metrics["b"]
        assert [each["actual"] for each in metrics["a"]["history"]] == VALUES[5:25]
        assert [each["prediction"] for each in metrics["a"]["history"]] == expected("linear", 25)[0][5:]
        owned = told(service.get("/series"))["series"]
        assert [(each["series_id"], each["next_offset"], each["last_observation_id"]) for each in owned] == [
            ("a", 25, "24"),
            ("b", 25, "24"),
        ]


def test_several_models_are_in_one_process(settings: Settings) -> None:
    names = ["linear_regression", "amf_regressor"]
    with client(settings, *names) as service:
        said = learn(service, 0, 20, "/models/linear_regression")
        assert said == expected("linear", 20)[0]
        assert learn(service, 0, 5, "/models/amf") == expected("amf", 5)[0]
        listed = told(service.get("/models"))["models"]
        assert [(each["name"], each["offset"], each["series"]) for each in listed] == [
            ("linear_regression", 20, 1),
            ("amf_regressor", 5, 1),
        ]
        for name, count in zip(names, (20, 5), strict=True):
            metrics = told(service.get(f"/models/{name}/model_metrics"))
            assert metrics["default"]["count"] == count
            assert metrics["model_info"]["model_name"] == name
            assert told(service.get(f"/models/{name}/metrics")) == metrics
        assert service.get("/models/knn_regressor/metrics").status_code == 404
        assert service.post("/predict_learn", json=body(0)).status_code == 404
        assert told(service.get("/health"))["model_loaded"]


# Metrics


def samples(service: TestClient) -> dict[tuple[str, ...], float]:
    """Each sample of /metrics by its name and the values of its labels."""
    answer = service.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (
            sample.name,
            *(sample.labels[label] for label in ("model", "series", "step") if label in sample.labels),
        ): (sample.value)
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_prometheus_reads_it_before_and_after_the_first_prediction(settings: Settings) -> None:
    with client(settings, "knn_regressor", "ridge_regression") as service:
        assert ("model_degraded", "knn_regressor") in samples(service)
        learn(service, 0, 20, "/models/knn_regressor")
        metrics = told(service.get("/models/knn_regressor/model_metrics"))["default"]
        found = samples(service)
        label = ("knn_regressor", "default")
        for name in ERRORS:
            assert found[f"ml_model_{name}", *label] == pytest.approx(metrics[name], abs=1e-4)
        for name in ("last_prediction", "last_actual", "last_error"):
            assert found[f"ml_model_{name}", *label] == metrics[name]
        assert found["ml_model_predictions_total", *label] == 20
        for step in range(1, 6):
            assert found["ml_model_forecast", *label, str(step)] == pytest.approx(
                metrics["forecast"][step - 1]
            )
        assert not any(name == "ml_model_mae_5" and rest[0] == "ridge_regression" for name, *rest in found)


def test_labels_are_as_many_as_the_setting_says(settings: Settings) -> None:
    with client(changed(settings, MLPLATFORM_LABELLED_SERIES="3")) as service:
        for name in range(6):
            learn(service, 0, name + 1, series_id=f"s{name}")
        found = samples(service)
    model = "linear_regression"
    counted = {key[2]: value for key, value in found.items() if key[0] == "ml_model_predictions_total"}
    assert counted == {"s0": 1, "s1": 2, "s2": 3, "other": 4 + 5 + 6}
    assert {key[2] for key in found if key[0] == "ml_model_last_actual"} == {"s0", "s1", "s2"}
    assert found["model_refused_total", model] == 0


def test_a_series_that_is_called_as_the_rest_is_is_told_with_the_rest(settings: Settings) -> None:
    with client(changed(settings, MLPLATFORM_LABELLED_SERIES="2"), *NAMES) as service:
        for name in ("other", "b", "c"):
            learn(service, 0, 2, "/models/champion", series_id=name)
        lines = [line.rpartition(" ")[0] for line in service.get("/metrics").text.splitlines()]
        found = samples(service)
    told_of = [line for line in lines if not line.startswith("#")]
    assert len(told_of) == len(set(told_of))
    assert found["ml_model_predictions_total", "linear_regression", "other"] == 4
    assert found["ml_champion_changes_total", "other"] == 0


@pytest.mark.parametrize("told_so", ["no", "yes"])
def test_the_seeds_form_of_forecasts_is_a_setting(settings: Settings, told_so: str) -> None:
    with client(changed(settings, MLPLATFORM_FORECASTS_IN_A_LABEL=told_so)) as service:
        learn(service, 0, 20)
        values = ",".join(str(each) for each in told(service.get("/model_metrics"))["default"]["forecast"])
        assert (f'values="{values}"' in service.get("/metrics").text) == (told_so == "yes")


# Tokens


def test_outside_local_a_token_must_have_the_scope(settings: Settings) -> None:
    tokens = {hashlib.sha256(b"reader").hexdigest(): ["models:read"]}
    closed = changed(settings, MLPLATFORM_ENV="compose", MLPLATFORM_API_TOKENS=json.dumps(tokens))
    with client(closed) as service:
        reader = {"Authorization": "Bearer reader"}
        assert service.post("/predict", json={}, headers=reader).status_code == 200
        assert service.post("/predict_learn", json=body(0), headers=reader).status_code == 403
        assert service.get("/model_metrics").status_code == 401
        assert service.get("/health").status_code == 200
    with client(closed, *NAMES) as service:
        for name in ("champion", *NAMES):
            for kind in ("application/json", "application/json; charset=utf-8"):
                sent = {"content": json.dumps(body(0)), "headers": {**reader, "Content-Type": kind}}
                assert service.post(f"/models/{name}/predict_learn", **sent).status_code == 403
                assert service.post(f"/models/{name}/predict", **sent).status_code == 200


# The pipeline's series


@pytest.mark.filterwarnings("ignore::dagster.PreviewWarning")
def test_what_the_pipeline_learned_is_asked_and_not_taught(
    settings: Settings, stack: RunningStack, monkeypatch
) -> None:
    monkeypatch.setattr(pipeline_models, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(served.declaration, "families", lambda: families)
    graph = Graph(
        {**settings.variables, "MLPLATFORM_REDIS_URL": Settings(stack.variables).redis_url},
        [replay(last=60)],
        models=["linear"],
    )
    families = graph.graph.families
    with client(settings) as service:
        learn(service, 0, 10)
        assert set(told(service.get("/model_metrics"))) == {"default", "model_info"}
        for learned in (40, 60):
            result = graph.run(limit=40)
            assert result.success, failure_message(result)
            theirs = graph.stores.frames.read("forecasts/linear/0")["value"].to_pylist()
            metrics = told(service.get("/model_metrics"))["retail"]
            assert (metrics["count"], metrics["forecast"]) == (learned, [round(each, 6) for each in theirs])
            assert told(service.post("/predict", json={"series_id": "retail"})) == {"prediction": theirs[0]}
        refused = service.post("/predict_learn", json=body(0, series_id="retail"))
        assert refused.status_code == 409
        assert "belongs to the pipeline" in refused.json()["detail"]
        assert told(service.get("/models"))["models"][0]["pipeline_series"] == 1
    # What the service learned does not reach what the pipeline makes of predictions.
    assert graph.run(config={"linear": {"config": {"rebuild": ["retail"]}}}).success
    mine = Table(PREDICTIONS, ObjectStore(settings.s3)).read(where=ds.field("shard") >= 1000)
    assert len(mine) == 10
    assert {row["series_id"] for row in graph.stores.frames.read("champion/0").to_pylist()} == {"retail"}


def test_what_a_service_learned_is_not_learned_by_the_pipeline(
    settings: Settings, stack: RunningStack
) -> None:
    """Nor what the feature service has: a series has one owner."""
    everywhere = changed(settings, MLPLATFORM_REDIS_URL=Settings(stack.variables).redis_url)
    with TestClient(features.application(everywhere)) as service:
        assert eventually(
            lambda: service.post("/add", json={"series_id": "added", "value": 1.0}).is_success, 30
        )
    with client(settings) as service:
        learn(service, 0, 1)
    graph = Graph(everywhere.variables, models=["linear"])
    graph.push(*(pushed(series_id, 0, 2.0) for series_id in ("added", "default", "room")))
    result = graph.run()
    assert result.success
    [check] = [each for each in result.get_asset_check_evaluations() if each.check_name == "nothing_refused"]
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert check.metadata["series_of_services"].value == "added, default"
    refused = Stores(settings).table(QUARANTINE.name).read().to_pylist()
    assert sorted((row["series_id"], row["reason"][:9]) for row in refused) == [
        ("added", "elsewhere"),
        ("default", "elsewhere"),
    ]
    log = Stores(settings).table(LOG.name).read(where=ds.field("shard") < FIRST_SERVICE_SHARD)
    assert log["series_id"].to_pylist() == ["room"]


def test_a_snapshot_that_cannot_be_read_still_says_whose_the_series_are(
    settings: Settings, monkeypatch, stack: RunningStack
) -> None:
    graph = Graph(
        {**settings.variables, "MLPLATFORM_REDIS_URL": Settings(stack.variables).redis_url},
        [replay(last=30)],
        models=["linear"],
    )
    assert graph.run().success
    # The graph has other families than this service.
    with client(settings) as service:
        assert service.post("/predict_learn", json=body(0, series_id="retail")).status_code == 409
        refused = service.post("/predict", json={"series_id": "retail"})
        assert refused.status_code == 503
        assert "another version" in refused.json()["detail"]


def test_nothing_is_taken_before_it_was_seen_what_the_pipeline_has(settings: Settings, monkeypatch) -> None:
    monkeypatch.setattr(pipeline_models, "PATIENCE_SECONDS", 0.0)
    read, allowed = PipelineModels._read, threading.Event()

    def slow(self: PipelineModels) -> Any:
        assert allowed.wait(SECONDS)
        return read(self)

    monkeypatch.setattr(PipelineModels, "_read", slow)
    with client(settings) as service:
        refused = service.post("/predict_learn", json=body(0))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "is not known yet" in refused.json()["detail"]
        allowed.set()
        assert eventually(lambda: service.post("/predict_learn", json=body(0)).is_success, SECONDS)


def test_a_model_that_is_made_again_has_a_forecast_of_its_own(tmp_path: Path) -> None:
    """As after a commit that failed, where another value was given in the place of the one that was lost."""
    one = served.Served("m", RECIPES["naive"], Stores(Settings({"MLPLATFORM_DATA_DIRECTORY": str(tmp_path)})))
    for value in (7.0, 8.0):
        model = Model(RECIPES["naive"], DEFAULT_FAMILY)
        model.fold(np.array([0]), np.zeros((1, DEFAULT_FAMILY.lags)), np.array([0]), np.array([value]))
        assert one.forecast("s", model)[0] == value


# The stream


def entry(position: int) -> Entry:
    now = datetime.now(UTC)
    return Entry(position, "s", position, f"o{position}", now, 1.0, {"prediction": 0.5}, now, ())


def test_who_listens_too_slowly_hears_how_much_was_lost(monkeypatch) -> None:
    monkeypatch.setattr(served, "LONGEST_STREAM", 3)

    async def story() -> list[str]:
        stream = Stream()
        events = stream.events()
        heard = [await anext(events)]
        for position in range(10):
            stream.tell(entry(position))
        heard += [await anext(events) for _ in range(2)]
        stream.tell(entry(10))
        heard += [await anext(events) for _ in range(3)]
        stream.end()
        heard += [each async for each in events]
        return heard

    heard = asyncio.run(story())
    assert [each.splitlines()[0] for each in heard] == [
        "retry: 1000",
        "event: prediction",
        "event: lost",
        *["event: prediction"] * 3,
    ]
    assert json.loads(heard[2].splitlines()[1].removeprefix("data: ")) == {"count": 7}
    assert [each.splitlines()[1] for each in heard if "prediction" in each] == [
        "id: 0",
        "id: 1",
        "id: 2",
        "id: 10",
    ]


def test_who_begins_to_listen_when_the_service_ends_is_let_go() -> None:
    async def story() -> list[str]:
        stream = Stream()
        stream.end()
        async with asyncio.timeout(SECONDS):
            return [each async for each in stream.events()]

    assert asyncio.run(story()) == ["retry: 1000\n\n"]


# Real processes


def test_a_stream_tells_what_is_learned_and_lets_the_service_end(settings: Settings) -> None:
    with (
        process(settings, "models", "--model", "linear_regression") as service,
        httpx.Client(base_url=service.address, trust_env=False) as caller,
        caller.stream("GET", "/predictions/stream", timeout=SECONDS) as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines) == "retry: 1000"
        first = told(httpx.post(f"{service.address}/predict_learn", json=body(0), trust_env=False))
        heard = [next(lines) for _ in range(4)]
        assert heard[1:3] == ["event: prediction", "id: 0"]
        event = json.loads(heard[3].removeprefix("data: "))
        assert event | first == event
        assert event["actual"] == VALUES[0]
        began = time.monotonic()
        assert service.end() == 0
        # Not after the time that a request may take to be answered.
        assert time.monotonic() - began < 15
        assert [line for line in lines if line] == []
