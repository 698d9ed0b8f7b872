from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mlplatform.domain.jobs.specs import (
    MEMORY_UNITS,
    JobSpec,
    PipelineSpec,
    Stage,
    StageResources,
    Trigger,
    in_order,
)


def stage(name: str, *dependencies: str, **more: Any) -> Stage:
    return Stage.model_validate(
        {"name": name, "commands": ["true"], "dependencies": list(dependencies), **more}
    )


@pytest.mark.parametrize(
    ("cpu", "memory", "cpu_m", "memory_mb"),
    [
        ("2", "2Gi", 2000, 2048),
        ("500m", "512Mi", 500, 512),
        ("0.25", 128, 250, 128),
        (1.5, "1G", 1500, 954),
        (0, "1048576k", 0, 1000),
    ],
)
def test_quantities_are_those_of_kubernetes(cpu: Any, memory: Any, cpu_m: int, memory_mb: int) -> None:
    spec = stage("a", resources={"cpu": cpu, "memory": memory}).spec({})
    assert spec.resources.cpu_m == cpu_m
    assert spec.resources.memory_mb == memory_mb


@given(number=st.integers(0, 999), unit=st.text("kKMGTim", max_size=2))
def test_a_unit_is_one_of_kubernetes_or_refused(number: int, unit: str) -> None:
    given = {"memory": f"{number}{unit}"}
    if unit in MEMORY_UNITS:
        # A number alone is mebibytes, as text too.
        factor = MEMORY_UNITS[unit] if unit else 2**20
        if (expected := number * factor / 2**20) <= 100_000_000:
            assert StageResources.model_validate(given).memory == pytest.approx(expected)
    else:
        with pytest.raises(ValidationError):
            StageResources.model_validate(given)


@given(st.data())
def test_each_stage_comes_after_those_it_depends_on(data: st.DataObject) -> None:
    names = data.draw(st.permutations([f"s{number}" for number in range(6)]))
    stages = [
        stage(
            name,
            *data.draw(st.lists(st.sampled_from(names[:number]), unique=True) if number else st.just([])),
        )
        for number, name in enumerate(names)
    ]
    shuffled = data.draw(st.permutations(stages))
    order = [one.name for one in in_order(shuffled)]
    assert sorted(order) == sorted(names)
    for one in stages:
        assert all(order.index(before) < order.index(one.name) for before in one.dependencies)


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([stage("a"), stage("a")], "two stages are called 'a'"),
        ([stage("a-b"), stage("a_b")], "two stages are called 'a_b'"),
        ([stage("a", "b")], "'a' depends on 'b', which is no stage"),
        ([stage("a", "a")], "wait for each other: a -> a"),
        ([stage("a", "b"), stage("b", "a")], "wait for each other"),
    ],
)
def test_stages_that_cannot_be_ordered_are_refused(stages: list[Stage], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PipelineSpec.model_validate({"name": "p", "stages": stages})


def test_whatever_is_accepted_can_be_made_a_job_and_kept() -> None:
    """A job's spec is made of a pipeline's long after it was accepted: it must not be refused then."""
    longest = stage("a", commands=["x" * 900] * 100, environment={f"S{n}": "" for n in range(1000)})
    pipeline = PipelineSpec.model_validate(
        {"name": "p", "stages": [longest], "environment": {f"P{n}": "" for n in range(1000)}}
    )
    spec = pipeline.stages[0].spec({**pipeline.environment, **{f"J{n}": "" for n in range(1000)}})
    assert JobSpec.model_validate(spec.model_dump(mode="json")) == spec
    with pytest.raises(ValidationError, match="commands"):
        stage("a", commands=["x" * 9000] * 100)


NUL = "a\x00b"


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (JobSpec, {"name": "a", "command": [NUL]}),
        (JobSpec, {"name": "a", "command": ["a"], "env": {"A": NUL}}),
        (JobSpec, {"name": "a", "command": ["a"], "image": NUL}),
        (JobSpec, {"name": NUL, "command": ["a"]}),
        (PipelineSpec, {"name": "a", "description": NUL}),
        (PipelineSpec, {"name": "a", "yaml": NUL}),
        (PipelineSpec, {"name": "a", "environment": {"A": NUL}}),
        (Stage, {"name": "a", "commands": [NUL]}),
        (Stage, {"name": "a", "commands": ["a"], "environment": {"A": NUL}}),
        (Trigger, {"git_push": {"branch": [NUL]}}),
        (Trigger, {"webhook": {NUL: 1}}),
        (Trigger, {"webhook": {"number": float("nan")}}),
        (Trigger, {"webhook": {"half": "\ud800"}}),
        (JobSpec, {"name": "a", "command": ["\ud800"]}),
    ],
)
def test_what_postgresql_and_programs_cannot_take_is_refused(model: Any, given: Any) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(given)
    with pytest.raises(ValidationError):
        model.model_validate_json(json.dumps(given))
