"""`mlplatform e2e` against the services, and against such as fail."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from mlplatform.cli import e2e
from mlplatform.cli.main import main
from mlplatform.cli.serve import DEFAULT_MODELS
from mlplatform.local import ports
from mlplatform.settings import Settings
from mlplatform_tests.cli.serving import StandIn, on_stack, serving, standing_in
from mlplatform_tests.graphs import environment

START, COMPLETE, FAILED = (f"=== E2E PIPELINE {word} ===" for word in ("START", "COMPLETE", "FAILED"))
STEPS = ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
EXHAUSTED = "INFO: No more observations available - stream exhausted"
TOKEN = "a-token-that-nobody-may-read"
PROGRAMS = ("bash", "curl", "jq")
# As its README has it.
SEEDS_CHAIN = r"""
OBS=$(curl -s http://localhost:8002/next)
FEAT=$(echo "$OBS" | jq '{series_id: "manual", value: .target}' | \
curl -sX POST -H "Content-Type: application/json" --data-binary @- http://localhost:8001/add)
curl -sX POST -H "Content-Type: application/json" \
--data "{\"features\": $(echo "$FEAT" | jq '.features'), \"target\": $(echo "$FEAT" | jq '.target')}" \
http://localhost:8010/predict_learn
"""


@pytest.fixture(scope="module")
def services(stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The addresses of all services, on stores of their own."""
    directory = tmp_path_factory.mktemp("services")
    variables = on_stack(Settings(stack.variables), directory, uuid.uuid4().hex)
    with serving(variables, "ingestion", "features", *DEFAULT_MODELS) as addresses:
        yield addresses


@pytest.fixture
def series() -> str:
    return f"e2e-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives no answer is not waited for as long as a job would."""
    monkeypatch.setattr(e2e, "SECONDS", 1.0)


def run(services: dict[str, str], *arguments: str, **variables: str) -> Result:
    """The job on these services: `ingestion`, `features`, and all others are models."""
    options = ["--ingestion-url", services["ingestion"], "--features-url", services["features"]]
    for name, url in services.items():
        if name not in ("ingestion", "features"):
            options += ["--model", f"{name}={url}"]
    with environment(variables):
        return CliRunner().invoke(main, ["e2e", *options, *arguments])


def said(result: Result) -> list[str]:
    """The lines without their times."""
    lines = []
    for line in result.output.splitlines():
        time, _, rest = line.partition(" ")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", time), line
        lines.append(rest)
    return lines


def learned(services: dict[str, str], series: str) -> dict[str, int]:
    """How many observations of the series each model has learned."""
    counts = {}
    for name in DEFAULT_MODELS:
        told = httpx.get(f"{services[name]}/model_metrics", trust_env=False).json()
        counts[name] = told.get(series, {"count": 0})["count"]
    return counts


def every(count: int) -> dict[str, int]:
    return dict.fromkeys(DEFAULT_MODELS, count)


def position(services: dict[str, str]) -> int:
    return httpx.get(f"{services['ingestion']}/status", trust_env=False).json()["current_index"]


# All is well


def test_one_observation_is_learned_by_all_models(services, series):
    before = position(services)
    result = run(services, "--series-id", series)
    assert result.exit_code == 0, result.output
    lines = said(result)
    assert lines[0] == START
    assert lines[-1] == COMPLETE
    assert [line.split()[0] for line in lines if line.startswith("[")] == STEPS
    assert position(services) == before + 1
    assert learned(services, series) == every(1)
    for name in DEFAULT_MODELS:
        told = [line for line in lines if line.strip().startswith(f"{name}: ")]
        assert len(told) == 2
        assert re.search(r"predicted -?[\d.]+, actual [\d.]+ \(\d+ ms\)", told[0])
        assert "1 learned, mae_20 " in told[1]
        assert len(re.search(r"forecast (.+) \(", told[1])[1].split(", ")) == 5
    # The features, each on a line.
    assert len([line for line in lines if re.fullmatch(r"  in_\d+: [\d.]+", line)]) >= 10


def test_a_token_with_the_scopes_of_the_job_is_enough(stack, tmp_path, series):
    scopes = ["ingestion:write", "features:write", "models:write", "models:read"]
    tokens = {
        hashlib.sha256(token.encode()).hexdigest(): allowed
        for token, allowed in ((TOKEN, scopes), ("a-reader", ["models:read"]))
    }
    variables = on_stack(Settings(stack.variables), tmp_path, uuid.uuid4().hex)
    variables["MLPLATFORM_API_TOKENS"] = json.dumps(tokens)
    with serving(variables, "ingestion", "features", "linear_regression") as services:
        for token, refusal in (("", "401: a bearer token"), ("a-reader", "403: "), (TOKEN, None)):
            result = run(services, "--series-id", series, MLPLATFORM_TOKEN=token)
            assert result.exit_code == bool(refusal), result.output
            assert (refusal or COMPLETE) in result.output
            assert TOKEN not in result.output


def test_the_observations_of_several_runs_are_each_other_s_lags(services, series):
    for _ in range(3):
        last = run(services, "--series-id", series, "--steps", "3")
        assert last.exit_code == 0, last.output
    assert learned(services, series) == every(3)
    observations = httpx.get(
        f"{services['ingestion']}/observations",
        params={"after": position(services) - 3, "limit": 3},
        trust_env=False,
    ).json()["observations"]
    first, second, third = (each["target"] for each in observations)
    lags = {name: float(value) for name, value in re.findall(r"  (in_\d+): ([\d.]+)", last.output)}
    assert (lags["in_1"], lags["in_2"], lags["in_3"]) == (second, first, 0)
    assert f"target: {third}, lags known: 2" in last.output
    for forecast in re.findall(r"forecast (.+) \(", last.output):
        assert len(forecast.split(", ")) == 3


def test_a_job_that_is_tried_again_learns_once(services, series):
    before = position(services)
    key = uuid.uuid4().hex
    results = [run(services, "--series-id", series, "--key", key) for _ in range(2)]
    assert [result.exit_code for result in results] == [0, 0]
    assert learned(services, series) == every(1)
    assert position(services) == before + 1
    # The second one gets the first one's answers.
    first, second = ([line for line in said(result) if "predicted" in line] for result in results)
    assert {line.partition(" (")[0] for line in first} == {line.partition(" (")[0] for line in second}


def test_runs_at_the_same_time_with_one_key_learn_once(services, series):
    key = uuid.uuid4().hex
    command = ["--series-id", series, "--key", key]
    before = position(services)
    # Each a process of its own, as the pods of a job that is tried again.
    processes = [start(services, *command) for _ in range(3)]
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    assert learned(services, series) == every(1)
    assert position(services) == before + 1


@pytest.mark.parametrize("step", STEPS)
def test_a_job_that_was_killed_learns_once_when_it_is_tried_again(services, series, step):
    key = uuid.uuid4().hex
    before = position(services)
    process = start(services, "--series-id", series, "--key", key)
    assert process.stdout is not None
    assert any(step in line for line in process.stdout)
    process.kill()
    process.communicate()
    again = run(services, "--series-id", series, "--key", key)
    assert again.exit_code == 0, again.output
    assert learned(services, series) == every(1)
    assert position(services) == before + 1


def start(services: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    models = ",".join(f"{name}={services[name]}" for name in DEFAULT_MODELS)
    variables = {
        "MLPLATFORM_E2E_INGESTION_URL": services["ingestion"],
        "MLPLATFORM_E2E_FEATURES_URL": services["features"],
        "MLPLATFORM_E2E_MODELS": models,
    }
    return subprocess.Popen(
        [sys.executable, "-c", "from mlplatform.cli.main import main; main()", "e2e", *arguments],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_every_option_can_be_a_variable(services, series):
    models = f"knn_regressor={services['knn_regressor']}, mine={services['linear_regression']}"
    variables = {
        "MLPLATFORM_E2E_INGESTION_URL": services["ingestion"],
        "MLPLATFORM_E2E_FEATURES_URL": services["features"] + "/",
        "MLPLATFORM_E2E_MODELS": models,
        "MLPLATFORM_E2E_SERIES_ID": series,
        "MLPLATFORM_E2E_KEY": "2026-01-31T12:00",
        "MLPLATFORM_E2E_STEPS": "2",
    }
    with environment(variables):
        result = CliRunner().invoke(main, ["e2e"])
    assert result.exit_code == 0, result.output
    assert f"run 2026-01-31T12:00: series {series}, models knn_regressor, mine" in result.output
    assert learned(services, series) == {**every(0), "knn_regressor": 1, "linear_regression": 1}


@pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason="needs bash, curl and jq")
def test_the_manual_chain_of_the_seed_works_unchanged(services):
    chain = SEEDS_CHAIN
    for port, name in {8002: "ingestion", 8001: "features", 8010: "linear_regression"}.items():
        chain = chain.replace(f"http://localhost:{port}", services[name])
    before = learned(services, "default")["linear_regression"]
    script = f'set -e -o pipefail\n{chain}\necho && echo "$OBS" && echo "$FEAT"'
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    predicted, observation, featured = map(json.loads, ended.stdout.split("\n", 2))
    assert featured["series_id"] == "manual"
    assert featured["target"] == observation["target"]
    assert set(featured["features"]) >= {f"in_{lag}" for lag in range(1, 11)}
    assert isinstance(predicted["prediction"], float)
    assert learned(services, "default")["linear_regression"] == before + 1


# Somebody fails


def test_a_model_that_fails_fails_the_job_and_no_other_model(services, series):
    with standing_in(predict_learn=[(500, {"detail": "it is broken"})]) as broken:
        result = run(services | {"amf_regressor": broken.url}, "--series-id", series)
    assert result.exit_code == 1
    lines = said(result)
    assert lines[-2:] == ["ERROR: amf_regressor failed; 3 models have learned it", FAILED]
    assert COMPLETE not in lines
    [told] = [line for line in lines if line.strip().startswith("amf_regressor: ")]
    assert "ERROR: POST " in told
    assert "/predict_learn answered 500: it is broken" in told
    # What is no error of the network is not tried again, and it was not asked what it cannot know.
    assert [path for path, _, _ in broken.asked] == ["/predict_learn"]
    assert learned(services, series) == {**every(1), "amf_regressor": 0}


def test_when_the_job_is_tried_again_only_the_model_that_had_failed_learns(services, series):
    key = uuid.uuid4().hex
    with standing_in(predict_learn=[(500, {"detail": "it is broken"})]) as broken:
        failed = run(services | {"amf_regressor": broken.url}, "--series-id", series, "--key", key)
    again = run(services, "--series-id", series, "--key", key)
    assert (failed.exit_code, again.exit_code) == (1, 0)
    assert learned(services, series) == every(1)


def test_a_model_that_is_away_fails_the_job_in_time(services, series, hurried):
    nobody = f"http://127.0.0.1:{ports.choose(set())}"
    result = run(services | {"knn_regressor": nobody}, "--series-id", series)
    assert result.exit_code == 1
    assert (
        f"knn_regressor: ERROR: POST {nobody}/predict_learn gave no answer within 1 seconds" in result.output
    )
    assert "ConnectError" in result.output
    assert learned(services, series) == {**every(1), "knn_regressor": 0}


def test_a_stream_that_is_exhausted_is_no_failure(tmp_path):
    replay = tmp_path / "two.csv"
    replay.write_text("input,target\n1949-01,104\n")
    variables = {"MLPLATFORM_DATA_DIRECTORY": str(tmp_path), "MLPLATFORM_REPLAY_FILE": str(replay)}
    with (
        serving(variables, "ingestion") as addresses,
        standing_in(**WELL) as rest,
    ):
        services = addresses | {"features": rest.url, "linear_regression": rest.url}
        first, second = run(services), run(services)
    assert first.exit_code == 0, first.output
    assert EXHAUSTED not in first.output
    assert second.exit_code == 0, second.output
    assert said(second)[-1] == EXHAUSTED
    assert COMPLETE not in second.output
    assert len(rest.requests("/add")) == len(rest.requests("/predict_learn")) == 1


# Everything answered by stand-ins: what the services do only when they are in trouble


OBSERVATION = {"observation_id": 7, "input": "1949-07", "target": 148, "remaining": 737, "series_id": "air"}
FEATURED = {"series_id": "s", "features": {"in_1": 135.0, "in_2": 0.0}, "target": 148, "available_lags": 1}
METRICS = {"argo_e2e_pipeline": {"count": 1, "mae_20": 2.5}, "model_info": {}}
WELL: dict[str, list[Any]] = {
    "next": [(200, OBSERVATION)],
    "add": [(200, FEATURED)],
    "predict_learn": [(200, {"prediction": 140.5})],
    "model_metrics": [(200, METRICS)],
    "predict_many": [(200, {"forecast": [{"step": 1, "value": 150.25}]})],
}


@pytest.fixture
def all_in_one() -> Iterator[StandIn]:
    with standing_in(**{path: list(answers) for path, answers in WELL.items()}) as stand_in:
        yield stand_in


def ask(stand_in: StandIn, *arguments: str, **variables: str) -> Result:
    url = stand_in.url
    return run({"ingestion": url, "features": url, "linear_regression": url}, *arguments, **variables)


def test_each_call_says_which_run_and_which_observation_it_is_of(all_in_one):
    assert ask(all_in_one, "--key", "noon").exit_code == 0
    for path in ("/next", "/add", "/predict_learn"):
        [(headers, _)] = all_in_one.requests(path)
        assert headers["Idempotency-Key"] == "noon"
    [(_, added)] = all_in_one.requests("/add")
    assert added == {"series_id": "argo_e2e_pipeline", "value": 148, "observation_id": "air:7"}
    [(_, learned)] = all_in_one.requests("/predict_learn")
    assert learned == {
        "series_id": "argo_e2e_pipeline",
        "features": FEATURED["features"],
        "target": 148,
        "observation_id": "air:7",
    }


def test_runs_without_a_key_have_keys_of_their_own(all_in_one):
    for _ in range(2):
        assert ask(all_in_one).exit_code == 0
    first, second = (headers["Idempotency-Key"] for headers, _ in all_in_one.requests("/next"))
    assert first != second


@pytest.mark.parametrize("trouble", [(503, {"detail": "not yet"}), (429, {"detail": "too often"}), (0, b"")])
@pytest.mark.parametrize("path", WELL)
def test_what_passes_by_itself_is_waited_for(all_in_one, path, trouble, monkeypatch):
    monkeypatch.setattr(e2e, "FIRST_PAUSE", 0.01)
    all_in_one.answers[f"/{path}"] = [trouble, trouble, *WELL[path]]
    result = ask(all_in_one)
    assert result.exit_code == 0, result.output
    asked = all_in_one.requests(f"/{path}")
    assert len(asked) == 3
    # The same request each time, so that it has its effect once.
    assert len({headers.get("Idempotency-Key") for headers, _ in asked}) == 1
    assert all(body == asked[0][1] for _, body in asked)


@pytest.mark.parametrize("path", WELL)
def test_what_does_not_pass_ends_the_job_in_time(all_in_one, path, hurried):
    all_in_one.answers[f"/{path}"] = [(503, {"detail": "the disk is full"}, {"Retry-After": "1"})]
    result = ask(all_in_one)
    assert result.exit_code == 1
    assert f"/{path} gave no answer within 1 seconds, but 503: the disk is full" in result.output
    assert said(result)[-1] == FAILED


@pytest.mark.parametrize("path", WELL)
@pytest.mark.parametrize(
    "answer",
    [
        (500, {"detail": "broken"}),
        (422, {"detail": [{"loc": ["body", "value"], "msg": "not a number"}]}),
        (404, b"<html>\nnot here"),
        (302, b"", {"Location": "http://127.0.0.1:9/"}),
        (200, b"<html>"),
        (200, b""),
        (200, b'{"prediction": NaN, "features": NaN, "target": NaN, "observation_id": NaN, "forecast": NaN}'),
        (200, [1, 2]),
        (200, {}),
        (200, b"garbage", {"Content-Encoding": "gzip"}),
    ],
    ids=["500", "422", "404", "302", "html", "empty", "NaN", "list", "nothing in it", "garbage"],
)
def test_an_answer_that_is_none_fails_the_job_and_is_told_on_one_line(all_in_one, path, answer):
    all_in_one.answers[f"/{path}"] = [answer]
    result = ask(all_in_one)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    lines = said(result)
    assert lines[-1] == FAILED
    assert any("ERROR: " in line for line in lines[:-1])
    assert len(all_in_one.requests(f"/{path}")) == 1
    # Nobody after it is asked.
    after = list(WELL)[list(WELL).index(path) + 1 :]
    assert [asked for asked, _, _ in all_in_one.asked if asked.strip("/") in after] == []


def test_a_service_that_never_answers_is_given_up(hurried):
    hold = threading.Event()
    with standing_in(next=[(200, OBSERVATION)]) as slow:
        answer = slow.answer
        slow.answer = lambda path: (hold.wait(30), answer(path))[1]
        result = ask(slow)
        hold.set()
    assert result.exit_code == 1
    assert "/next gave no answer within 1 seconds" in result.output


def test_the_token_is_shown_to_every_service_and_to_nobody_else(all_in_one):
    result = ask(all_in_one, MLPLATFORM_TOKEN=TOKEN + "\n")
    assert result.exit_code == 0, result.output
    assert len(all_in_one.asked) == 5
    assert {headers["Authorization"] for _, headers, _ in all_in_one.asked} == {f"Bearer {TOKEN}"}
    assert TOKEN not in result.output


@pytest.mark.parametrize("token", [f"{TOKEN}\nX-Other: 1", f"{TOKEN}é"])
def test_a_token_that_no_header_can_have_is_refused_and_not_told(all_in_one, token):
    result = ask(all_in_one, "--token", token)
    assert result.exit_code == 2
    assert "the token has characters that no header can have" in result.output
    assert TOKEN not in result.output
    assert all_in_one.asked == []


def test_without_a_token_none_is_shown(all_in_one):
    assert ask(all_in_one, MLPLATFORM_TOKEN="").exit_code == 0
    assert not any("Authorization" in headers for _, headers, _ in all_in_one.asked)


def test_a_password_in_an_address_is_not_told(all_in_one, hurried):
    all_in_one.answers["/next"] = [(500, b"broken")]
    url = all_in_one.url.replace("http://", f"http://someone:{TOKEN}@")
    result = run({"ingestion": url, "features": url, "linear_regression": url})
    assert result.exit_code == 1
    assert all_in_one.url in result.output
    assert TOKEN not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ingestion-url", "localhost:8002"], "'localhost:8002' is not a URL"),
        (["--features-url", "http://"], "'http://' is not a URL"),
        (["--features-url", "http://a:99999"], "'http://a:99999' is not a URL"),
        (["--features-url", "http://["], "'http://[' is not a URL"),
        (["--features-url", "ftp://a"], "'ftp://a' is not a URL"),
        (["--features-url", "http://a?b=c"], "'http://a?b=c' is not a URL"),
        (["--model", "linear_regression"], "'linear_regression' is not NAME=URL"),
        (["--model", "a=http://b", "--model", "a=http://c"], "'a=http://c' is not NAME=URL with a name of"),
        (["--key", "x" * 201], "at most 200 printable ASCII characters"),
        (["--key", "ä"], "at most 200 printable ASCII characters"),
        (["--steps", "0"], "0 is not in the range"),
    ],
)
def test_options_that_cannot_be_are_refused(arguments, message):
    result = CliRunner().invoke(main, ["e2e", *arguments])
    assert result.exit_code == 2
    assert message in result.output


def test_the_usual_addresses_are_those_of_the_seed():
    with environment({}), e2e.e2e.make_context("e2e", []) as context:
        asked = context.params
    assert asked["ingestion_url"] == "http://127.0.0.1:8002"
    assert asked["features_url"] == "http://127.0.0.1:8001"
    assert asked["models"] == {
        "linear_regression": "http://127.0.0.1:8010",
        "bagging_regressor": "http://127.0.0.1:8011",
        "knn_regressor": "http://127.0.0.1:8012",
        "amf_regressor": "http://127.0.0.1:8013",
    }
    assert (asked["series_id"], asked["steps"]) == ("argo_e2e_pipeline", 5)
