"""Whatever is asked of a service, its answer is one that its OpenAPI document knows, and it does not fail."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import hypothesis
import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from mlplatform.local.stack import RunningStack
from mlplatform.services import features, ingestion, models
from mlplatform.settings import Settings
from mlplatform_tests.cli.serving import on_stack
from mlplatform_tests.io.sources.exchange import running_exchange
from mlplatform_tests.local.processes import eventually

EXAMPLES = 10
SECONDS = 30
TOKEN = "token"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
SCOPES = [
    f"{service}:{verb}" for service in ("ingestion", "features", "models") for verb in ("read", "write")
]


@pytest.fixture
def settings(stack: RunningStack, tmp_path: Path) -> Settings:
    own = on_stack(Settings(stack.variables), tmp_path, uuid.uuid4().hex)
    tokens = {hashlib.sha256(TOKEN.encode()).hexdigest(): [*SCOPES, "metrics:read"]}
    return Settings({**own, "MLPLATFORM_SNAPSHOT_KEY": "key", "MLPLATFORM_API_TOKENS": json.dumps(tokens)})


def test_ingestion(settings: Settings) -> None:
    with running_exchange() as exchange:
        ask_everything(ingestion.application(settings, exchange.url), 8, crypto="BTC")
        assert exchange.asked


def test_features(settings: Settings) -> None:
    ask_everything(features.application(settings), 7, series_id="default")


def test_models(settings: Settings) -> None:
    app = models.application(settings, ["linear_regression", "knn_regressor"])
    ask_everything(app, 12, name="knn_regressor")


def ask_everything(app: FastAPI, operations: int, **known: str) -> None:
    """Asks what the document allows, and what it does not; an answer that is not in it is an error.

    Args:
        operations: how many there are at least.
        known: parts of paths that lead somewhere, which nobody finds by chance.
    """
    with served(app) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        # A stream has no end.
        found = schema.exclude(path_regex="/predictions/stream$").get_all_operations()
        asked = [ask(each.ok(), known) for each in found]
    assert len(asked) >= operations


def ask(
    operation: APIOperation,
    known: Mapping[str, str],
    headers: Mapping[str, str] = AUTHORIZED,
    examples: int = EXAMPLES,
) -> None:
    """Asks for one operation, rightly and wrongly."""
    fixed = {name: value for name, value in known.items() if f"{{{name}}}" in operation.path}
    allowed = operation.as_strategy(path_parameters=fixed)

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=allowed | operation.as_strategy() | operation.as_strategy(GenerationMode.NEGATIVE))
    def holds(case: schemathesis.Case) -> None:
        # Others are none of ours, and may not be HTTP at all.
        case.headers = {name: value for name, value in case.headers.items() if name == "Idempotency-Key"}
        case.call_and_validate(
            headers=dict(headers),
            # No schema can say what is absurd or late, or what waits for what; parameters that nobody knows
            # do no harm.
            excluded_checks=[positive_data_acceptance, negative_data_rejection],
        )

    holds()


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The application behind a real server in a thread of this process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            assert eventually(lambda: is_ready(url), SECONDS)
            yield url
        finally:
            server.should_exit = True
            thread.join()


def is_ready(url: str) -> bool:
    return httpx.get(f"{url}/ready", trust_env=False, timeout=SECONDS).status_code == 200
