"""`mlplatform pipelines` and `mlplatform schedules` against a control plane."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlplatform_tests.cli.control_plane import CommandLine
from mlplatform_tests.client.conftest import address, database, nothing_set

__all__ = ["address", "database", "nothing_set"]
NIGHTLY = """
name: nightly
stages:
  - name: fetch
    commands: [echo fetching]
  - name: train
    commands: [echo training]
    dependencies: [fetch]
    resources: {cpu: 500m, memory: 1Gi}
triggers:
  - schedule: {cron: "30 2 * * *"}
"""


@pytest.fixture
def mlplatform(address: str) -> CommandLine:
    return CommandLine(address)


def written(folder: Path, text: str) -> str:
    file = folder / "nightly.yaml"
    file.write_text(text)
    return str(file)


def test_a_pipeline_is_kept_listed_run_and_taken_away(mlplatform: CommandLine, tmp_path: Path) -> None:
    pipeline_id = mlplatform("pipelines", "create", written(tmp_path, NIGHTLY)).stdout.strip()
    [kept] = mlplatform.json("pipelines", "list")
    assert (kept["id"], [stage["name"] for stage in kept["stages"]]) == (pipeline_id, ["fetch", "train"])
    assert kept["stages"][1]["resources"] == {"cpu": 0.5, "memory": 1024, "disk": 0, "gpu": 0}
    assert mlplatform("pipelines", "list").stdout.splitlines()[1].split()[1:5] == [
        "nightly",
        "1",
        "fetch",
        "train",
    ]
    ran = mlplatform("pipelines", "run", "nightly", "--priority", "3").stdout.strip()
    submitted = mlplatform("jobs", "submit", "--pipeline", "nightly", "--env", "A=1").stdout.strip()
    listed = mlplatform.json("jobs", "list", "--pipeline", "nightly")
    assert [(job["id"], job["priority"]) for job in listed] == [(submitted, 0), (ran, 3)]
    for job_id in (ran, submitted):
        mlplatform("jobs", "cancel", job_id)
    assert mlplatform("pipelines", "delete", pipeline_id).stdout == "nightly is gone.\n"
    assert "there is no pipeline 'nightly'" in mlplatform("pipelines", "run", "nightly", code=3).stderr


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (NIGHTLY.replace("commands: [echo training]", "comands: [echo training]"), 3, "comands"),
        (NIGHTLY.replace("[fetch]", "[fetched]"), 3, "which is no stage"),
        ("- a\n- b\n", 1, "is no pipeline"),
        ("name: [\n", 1, "cannot be read"),
    ],
)
def test_what_is_no_pipeline_is_told(
    mlplatform: CommandLine, tmp_path: Path, text: str, code: int, said: str
) -> None:
    file = written(tmp_path, text)
    refused = mlplatform("pipelines", "create", file, code=code).stderr
    assert said in refused
    assert file in refused
    assert mlplatform.json("pipelines", "list") == []


def test_the_yaml_of_a_batch_pipeline_is_told_by_its_places(mlplatform: CommandLine, tmp_path: Path) -> None:
    file = written(tmp_path, "project:\n  name: churn\n  problem_typ: binary_classification\n")
    refused = mlplatform("pipelines", "create", file, code=3).stderr
    assert f"{file}:3:" in refused
    assert "problem_typ" in refused


def test_a_schedule_is_paused_resumed_and_taken_away(mlplatform: CommandLine, address: str) -> None:
    from mlplatform.client import Client
    from mlplatform.domain.jobs.specs import JobSpec

    with Client(address) as client:
        made = client.schedules.create(JobSpec(name="nightly", command=["true"]), cron="30 2 * * *")
    assert mlplatform("schedules", "list").stdout.splitlines()[1].split()[:3] == [
        str(made.id),
        "nightly",
        "scheduled",
    ]
    assert mlplatform("schedules", "pause", "nightly").stdout == "nightly is paused.\n"
    assert (
        json.loads(mlplatform("schedules", "resume", "--json", str(made.id)).stdout)["status"] == "scheduled"
    )
    assert mlplatform("schedules", "delete", "nightly").stdout == "nightly is gone.\n"
    assert mlplatform.json("schedules", "list") == []
