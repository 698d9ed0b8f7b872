"""`mlplatform demo` and `mlplatform dev`, each as a process of its own from start to end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from mlplatform.domain.recipes import load_recipes
from mlplatform.local import ports
from mlplatform_tests.local.processes import COMMAND, environment, eventually, lives

DEMO_SECONDS, START_SECONDS, END_SECONDS = 280, 150, 40


def variables(directory: Path, **more: str) -> dict[str, str]:
    mine = environment(directory, **more)
    mine.pop("DAGSTER_HOME", None)
    return mine


def processes_of(directory: Path) -> dict[int, str]:
    """Living processes that name the directory in their command line, environment or folder."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            said += os.fsencode((entry / "cwd").readlink())
            if os.fsencode(directory) in said and lives(int(entry.name)):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().decode().replace("\0", " ")
    return found


def demo(directory: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "demo"],
        # All servers, MLflow too.
        env=variables(directory, MLPLATFORM_STACK_SERVICES="", **more),
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
    )


def test_demo_shows_its_progress_and_what_every_model_learned(tmp_path):
    ended = demo(tmp_path)
    said = ended.stdout
    assert ended.returncode == 0, said + ended.stderr
    # Each step as it begins, counted to the last.
    online, churn = said.split("Running the job training_churn_model_v1")
    steps = re.findall(r"^ +\[ *(\d+)/(\d+)\] (\w+)$", online, re.MULTILINE)
    assert [int(at) for at, _, _ in steps] == list(range(1, len(steps) + 1))
    assert {int(of) for _, of, _ in steps} == {len(steps)}
    models = [recipe.name for recipe in load_recipes().values() if not recipe.baseline]
    assert {name for _, _, name in steps} >= {
        "observations",
        "lag_features",
        "baselines",
        "champion",
        *models,
    }
    assert "assets materialised" in said
    # Both tables have a line for every model and baseline, the same one marked in both.
    errors, ahead = said.split("the next 5 values")
    lines = {
        name: re.findall(rf"^ *(\*?) +{name} +([\d.,% ]+?) *$", said, re.MULTILINE) for name in load_recipes()
    }
    for name, found in lines.items():
        assert len(found) == 2, f"{name}: {found}\n{said}"
        (_, metrics), (_, forecasts) = found
        assert metrics.split()[0] == "744"
        assert len(metrics.split()) == 13
        assert len(forecasts.split()) == 5
    marked = {name for name, found in lines.items() if found[0][0] == found[1][0] == "*"}
    assert len(marked) == 1
    assert marked <= set(models)
    assert "* champion since observation" in ahead
    assert "errors of predictions made before learning" in errors
    # The batch pipelines: a model in MLflow, and as many scores as there are customers to score.
    assert re.search(r"MLflow run [0-9a-f]{32}, version 1 of churn_model", churn)
    asked = re.search(r"customers and ([\d,]+) to score", churn)
    assert asked
    assert f"{asked[1]} rows written to churn_predictions" in churn
    assert f"{asked[1]} customers scored" in churn
    assert "everything that was started has stopped" in said
    assert processes_of(tmp_path) == {}


def test_a_demo_that_fails_says_why_and_leaves_nothing_running(tmp_path):
    ended = demo(tmp_path, MLPLATFORM_SOURCES="nowhere")
    assert ended.returncode == 1
    assert "The run ended as FAILURE" in ended.stderr
    assert "no source nowhere; there are retail_employment" in ended.stderr
    assert f"The run's log: {tmp_path / 'demo' / 'online_learning.log'}" in ended.stderr
    assert "everything that was started has stopped" not in ended.stdout
    assert processes_of(tmp_path) == {}


class Home:
    """A folder with the files of the repository's root that `run` needs, and a `run` in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = ports.choose(set())
        for name in ("workspace.yaml", "dagster.yaml"):
            shutil.copy(name, directory)
        self.process = self.start("--port", str(self.port))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, "dev", *arguments],
            cwd=self.directory,
            env=variables(self.directory / ".mlplatform", MLPLATFORM_REPLAY_PRIMED="0.1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ask(self, query: str) -> dict[str, Any]:
        """What Dagit answers; nothing before it answers."""
        try:
            answer = requests.post(f"http://127.0.0.1:{self.port}/graphql", json={"query": query}, timeout=10)
        except requests.RequestException:
            return {}
        return answer.json()["data"]

    def runs(self) -> list[dict[str, Any]]:
        tags = "runsOrError { ... on Runs { results { status jobName tags { key value } } } }"
        return self.ask("{ " + tags + " }").get("runsOrError", {}).get("results", [])


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    try:
        yield home
    finally:
        home.process.kill()
        home.process.communicate()


def test_run_lets_the_sensor_learn_until_ctrl_c_ends_everything(home):
    finished = eventually(
        lambda: any(run["status"] in ("SUCCESS", "FAILURE") for run in home.runs()), START_SECONDS
    )
    dagit_log = home.directory / ".mlplatform" / "dagit.log"
    assert finished, dagit_log.read_text()
    [run] = home.runs()
    assert run["status"] == "SUCCESS"
    assert run["jobName"] == "online_learning"
    assert {"key": "dagster/sensor_name", "value": "poll_sources"} in run["tags"]

    log = (home.directory / ".mlplatform" / "services.log").read_text()
    served = dict(re.findall(r"^(\w+) +(http://127\.0\.0\.1:\d+)$", log, re.MULTILINE))
    assert served.keys() >= {"ingestion", "features", "linear_regression", "amf_regressor"}
    assert all(requests.get(f"{url}/ready", timeout=10).ok for url in served.values())

    second = home.start()
    assert second.wait(END_SECONDS) == 1
    refused, _ = second.communicate()
    assert "runs here already" in refused

    home.process.send_signal(signal.SIGINT)
    said, _ = home.process.communicate(timeout=END_SECONDS)
    assert home.process.returncode == 0, said
    assert f"http://127.0.0.1:{home.port}" in said
    for service in ("s3", "redis", "postgresql"):
        assert re.search(rf"^{service} .* ready ", said, re.MULTILINE), said
    assert eventually(lambda: processes_of(home.directory) == {}), processes_of(home.directory)


def test_run_elsewhere_than_in_the_repository_says_where(tmp_path):
    ended = subprocess.run(
        [*COMMAND, "dev"], cwd=tmp_path, env=variables(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert "run it from the root of the repository" in ended.stderr
    assert list(tmp_path.iterdir()) == []
