"""What another version has left is never misread: it is refused, or made again from the log (G11)."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from mlplatform.local.stack import RunningStack
from mlplatform.services import features, ingestion, learner, models
from mlplatform.settings import Settings
from mlplatform_tests.cli.serving import on_stack
from mlplatform_tests.services.feature_services import wait_until_ready
from mlplatform_tests.services.processes import Process

OTHER_FORMAT = 99


@pytest.fixture
def settings(stack: RunningStack, tmp_path: Path) -> Settings:
    own = on_stack(Settings(stack.variables), tmp_path, uuid.uuid4().hex)
    return Settings({**own, "MLPLATFORM_SNAPSHOT_KEY": "key", "MLPLATFORM_FLUSH_SECONDS": "1000"})


def ask_ingestion(client: TestClient, at: int) -> dict[str, Any]:
    return client.get("/next", headers={"Idempotency-Key": str(at)}).raise_for_status().json()


def ask_features(client: TestClient, at: int) -> dict[str, Any]:
    body = {"series_id": "s", "value": 100 + at % 7, "observation_id": str(at)}
    return client.post("/add", json=body).raise_for_status().json()


def ask_model(client: TestClient, at: int) -> dict[str, Any]:
    body = {"series_id": "s", "features": {}, "target": 100 + at % 7, "observation_id": str(at)}
    return client.post("/predict_learn", json=body).raise_for_status().json()


Ask = Callable[[TestClient, int], dict[str, Any]]
SERVICES = [
    pytest.param("ingestion", ingestion.application, ask_ingestion, "ingestion-1000.db", id="ingestion"),
    pytest.param("features", features.application, ask_features, "features-1000.db", id="features"),
    pytest.param("models", models.application, ask_model, "linear-1000.db", id="models"),
]


def answers(app: FastAPI, ask: Ask, start: int, end: int) -> list[dict[str, Any]]:
    with TestClient(app) as client:
        wait_until_ready(client)
        return [ask(client, at) for at in range(start, end)]


@pytest.mark.parametrize(("name", "application", "ask", "file"), SERVICES)
def test_a_file_of_another_format_is_refused_and_left_as_it_is(
    settings: Settings, name: str, application: Callable[[Settings], FastAPI], ask: Ask, file: str
) -> None:
    settings = other(settings, MODEL_NAME="linear_regression")
    first = answers(application(settings), ask, 0, 5)
    path = settings.data_directory / "services" / file
    (known,) = formatted(path, OTHER_FORMAT)
    service = Process(settings, name)
    service.start()
    try:
        assert service.wait() == 1
    finally:
        service.kill()
    said = f"format {OTHER_FORMAT}, and this mlplatform knows {known}: start "
    assert said in service.said.read_text()
    # The version that wrote it finds all of it.
    assert formatted(path, known) == (OTHER_FORMAT,)
    assert answers(application(settings), ask, 0, 6)[:5] == first


def formatted(path: Path, number: int) -> tuple[int]:
    """Gives the file a format; what it was before."""
    with closing(sqlite3.connect(path)) as database:
        before = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {number}")
    return before


@pytest.mark.parametrize("changed", ["version", "key"])
def test_models_that_another_version_or_key_has_kept_are_learned_again(
    settings: Settings, changed: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uninterrupted = answers(
        models.application(
            other(settings, MLPLATFORM_S3_PREFIX=uuid.uuid4().hex, MLPLATFORM_SERVICE_ORDINAL="1")
        ),
        ask_model,
        0,
        40,
    )
    answers(models.application(settings), ask_model, 0, 30)
    if changed == "version":
        monkeypatch.setattr(learner, "FORMAT", "another")
    else:
        settings = other(settings, MLPLATFORM_SNAPSHOT_KEY="another")
    caplog.clear()
    # Those from before are answered as they were, and the next as if nothing had changed.
    assert answers(models.application(settings), ask_model, 25, 40) == uninterrupted[25:]
    assert "learns its whole log again" in caplog.text
    caplog.clear()
    answers(models.application(settings), ask_model, 39, 40)
    assert "learns its whole log again" not in caplog.text


def other(settings: Settings, **variables: str) -> Settings:
    return Settings({**settings.variables, **variables})
