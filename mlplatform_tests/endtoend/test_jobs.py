"""What a user does with jobs and pipelines, and what becomes of them."""

from __future__ import annotations

import uuid
from itertools import islice

import pytest

from mlplatform.client import ApiError, Client
from mlplatform.domain.jobs.states import State
from mlplatform_tests.endtoend import data
from mlplatform_tests.endtoend.configuration import SECONDS, Deployment
from mlplatform_tests.endtoend.dagit import run_of
from mlplatform_tests.local.processes import eventually


def told(client: Client, job_id: uuid.UUID) -> list[str]:
    """The states that a job went through; its events are complete and in order."""
    events = list(client.jobs.events(job_id))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.id for event in events] == sorted(event.id for event in events)
    return [event.type.removeprefix("job.") for event in events if event.type.startswith("job.")]


def test_a_command_succeeds_and_its_log_is_told_while_it_runs(client: Client, deployment: Deployment) -> None:
    job = client.jobs.create(
        data.saying("one", "two", "three"), name=data.unique("success"), timeout_ms=60_000
    )
    lines = [line for _, line in client.jobs.follow_logs(job.id)]
    assert sorted((line.stream, line.message) for line in lines) == [
        ("stderr", "three"),
        ("stdout", "one"),
        ("stdout", "two"),
    ]
    ended = client.jobs.wait(job.id, SECONDS)
    assert ended.status == State.SUCCESS, ended
    assert told(client, job.id) == ["pending", "scheduled", "running", "success"]
    [execution] = client.jobs.executions(job.id)
    assert (execution.status, execution.exit_code) == (State.SUCCESS, 0)
    run = run_of(deployment, ended, lambda run: run.get("status") == "SUCCESS")
    assert {"key": "mlplatform/job_id", "value": str(job.id)} in run["tags"]


def test_a_command_that_fails_says_how_and_is_retried_by_hand(client: Client) -> None:
    name = data.unique("failure")
    job = client.jobs.create(data.saying("bad", "luck", exit_code=7), name=name)
    failed = client.jobs.wait(job.id, SECONDS)
    assert (failed.status, failed.reason) == (State.FAILED, "exit_code"), failed
    assert [each.exit_code for each in client.jobs.executions(job.id)] == [7]
    again = client.jobs.retry(job.id)
    assert again.round == 2
    assert client.jobs.wait(job.id, SECONDS).status == State.FAILED
    assert [each.attempt for each in client.jobs.executions(job.id)] == [1, 2]
    assert told(client, job.id) == 2 * ["pending", "scheduled", "running", "failed"]


def test_a_command_that_fails_is_run_again_as_often_as_it_says(client: Client) -> None:
    name = data.unique("retried")
    # Each machine of several lets it fail once.
    job = client.jobs.create(data.failing_once(name), name=name, retries=9)
    ended = client.jobs.wait(job.id, SECONDS)
    assert ended.status == State.SUCCESS, ended
    attempts = client.jobs.executions(job.id)
    assert len(attempts) > 1
    assert [each.status for each in attempts] == [*[State.FAILED] * (len(attempts) - 1), State.SUCCESS]
    assert told(client, job.id) == ["pending", "scheduled", "running", "success"]


def test_stages_are_run_in_the_order_of_what_they_need(client: Client, deployment: Deployment) -> None:
    pipeline = client.pipelines.create(data.three_stages(data.unique("pipeline")))
    job = client.pipelines.run(pipeline.id, env={"DAY": "sunday"})
    ended = client.jobs.wait(job.id, SECONDS)
    assert ended.status == State.SUCCESS, ended
    ran = {each.stage: each for each in client.jobs.executions(job.id)}
    assert ran.keys() == {"fetch", "train", "report"}
    for first, second in (("fetch", "train"), ("train", "report")):
        ended_at, began_at = ran[first].finished_at, ran[second].started_at
        assert ended_at
        assert began_at
        assert ended_at <= began_at
    said = {stage: [line.message for line in client.executions.logs(each.id)] for stage, each in ran.items()}
    # The stage knows better than the job.
    assert said == {"fetch": ["fetched monday"], "train": ["trained"], "report": ["one", "two"]}
    # Dagit shows a step for each stage, in the same order.
    run = run_of(deployment, ended, lambda run: run.get("status") == "SUCCESS")
    steps = sorted(run["stepStats"], key=lambda step: step["startTime"])
    assert [step["status"] for step in steps] == 3 * ["SUCCESS"]
    names = [step["stepKey"] for step in steps]
    assert [next(stage for stage in ran if stage in name) for name in names] == ["fetch", "train", "report"]


def test_a_request_that_is_made_again_has_its_effect_once(client: Client) -> None:
    key, name = uuid.uuid4().hex, data.unique("once")
    command = data.saying("one", "two")
    first, again = (client.jobs.create(command, name=name, key=key) for _ in range(2))
    assert first.id == again.id
    client.jobs.cancel(first.id)
    with pytest.raises(ApiError, match="was used for another request"):
        client.jobs.create(command, name=f"{name}-other", key=key)
    assert [job.id for job in islice(client.jobs.list(), 100) if job.name == name] == [first.id]


def test_what_is_not_there_is_404_and_what_is_wrong_422(client: Client) -> None:
    nobody = uuid.uuid4()
    for ask in (client.jobs.get, client.jobs.cancel, client.pipelines.get, client.executions.get):
        with pytest.raises(ApiError) as missing:
            ask(nobody)
        assert (missing.value.status, bool(missing.value.correlation_id)) == (404, True)
    cyclic = data.three_stages(data.unique("cyclic"))
    cyclic["stages"][0]["dependencies"] = ["report"]
    for wrong in ({}, {"name": ""}, {"name": "a", "unknown": 1}, cyclic):
        with pytest.raises(ApiError) as refused:
            client.pipelines.create(wrong)
        assert refused.value.status == 422
    assert not client.pipelines.validate(cyclic).valid


def test_a_running_command_is_cancelled_and_events_come_as_they_happen(client: Client) -> None:
    job = client.jobs.create(data.forever("begun"), name=data.unique("cancelled"))
    following = client.jobs.follow_events(job.id)
    heard = [next(following)]
    while heard[-1].type != "job.running":
        heard.append(next(following))
    # Nothing has ended, and all of it has been told.
    assert next(client.jobs.follow_logs(job.id))[1].message == "begun"
    assert client.jobs.cancel(job.id).status == State.CANCELLED
    heard += following
    assert heard == list(client.jobs.events(job.id))
    assert told(client, job.id) == ["pending", "scheduled", "running", "cancelled"]
    # Whoever was cut off goes on.
    middle = heard[len(heard) // 2]
    assert list(client.jobs.follow_events(job.id, after=middle.id)) == heard[heard.index(middle) + 1 :]
    everything = client.events.follow(after=heard[0].id - 1)
    assert next(event for event in everything if event.job_id == job.id) == heard[0]
    # Its worker has let go of it.
    [execution] = client.jobs.executions(job.id)
    assert execution.status == State.CANCELLED
    if worker_id := execution.worker_id:
        assert eventually(lambda: client.workers.get(worker_id).executions == 0, SECONDS)
