from __future__ import annotations

import pytest

from mlplatform.domain.batch.graph import batches, parents, steps_of
from mlplatform.domain.batch.pipeline import Pipeline
from mlplatform_tests.domain.batch.test_pipeline import SERVING, changed

SELECTION = {"enabled": True, "methods": [{"name": "variance_threshold", "threshold": 0.1}]}


@pytest.mark.parametrize("changes", [{}, {"serving": SERVING}, {"training__feature_selection": SELECTION}])
def test_steps_come_after_those_whose_artefacts_they_take(changes) -> None:
    steps = steps_of(Pipeline.model_validate(changed(**changes)))
    made: set[str] = set()
    for step in steps:
        assert made.issuperset(step.inputs), step
        assert made.isdisjoint(step.outputs), step
        made.update(step.outputs)
    order = [name for batch in batches(parents(steps)) for name in batch]
    assert sorted(order) == sorted(step.name for step in steps)


def test_what_does_not_depend_on_each_other_runs_side_by_side() -> None:
    steps = steps_of(Pipeline.model_validate(changed(serving=SERVING)))
    assert batches(parents(steps)) == [
        ["load_scoring_data", "load_model"],
        ["apply_transforms"],
        ["predict"],
        ["publish"],
    ]


def test_selection_is_a_step_only_when_it_is_enabled() -> None:
    selected = changed(training__feature_selection={**SELECTION, "enabled": False})
    assert "feature_selection" not in {step.name for step in steps_of(Pipeline.model_validate(selected))}


def test_steps_that_wait_for_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="can never run: a, b"):
        batches({"a": ["b"], "b": ["a"], "c": []})
