"""The steps of a pipeline: what each takes from the others, and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlplatform.domain.batch.pipeline import Pipeline


@dataclass(frozen=True)
class Step:
    """One asset op, one pod. `inputs` and `outputs` name artefacts."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


LOAD_DATA = Step("load_data", (), ("raw_data",))
LOAD_CHECKED_DATA = Step("load_data", (), ("raw_data", "refused_rows"))
SPLIT_DATA = Step("split_data", ("raw_data",), ("train_set", "test_set"))
FEATURE_SELECTION = Step("feature_selection", ("train_set",), ("selected_features",))
TRAIN_MODEL = Step("train_model", ("train_set",), ("model", "train_metrics"))
TRAIN_SELECTED = Step("train_model", ("train_set", "selected_features"), TRAIN_MODEL.outputs)
EVALUATE = Step("evaluate", ("model", "test_set"), ("eval_metrics", "eval_plots"))
LOG_RUN = Step("log_run", ("model", "train_set", "train_metrics", "eval_metrics", "eval_plots"), ("run_id",))

LOAD_SCORING_DATA = Step("load_scoring_data", (), ("scoring_data",))
LOAD_MODEL = Step("load_model", (), ("model", "model_metadata"))
APPLY_TRANSFORMS = Step("apply_transforms", ("scoring_data", "model"), ("transformed_data", "refused_rows"))
PREDICT = Step("predict", ("model", "transformed_data"), ("predictions",))
PUBLISH = Step("publish", ("predictions", "model_metadata"), ("output",))


def steps_of(pipeline: Pipeline) -> tuple[Step, ...]:
    """The steps in an order in which they can run."""
    if pipeline.serving:
        return (LOAD_SCORING_DATA, LOAD_MODEL, APPLY_TRANSFORMS, PREDICT, PUBLISH)
    checks, selection = pipeline.training.data_checks, pipeline.training.feature_selection
    load = LOAD_CHECKED_DATA if any(each.on_failure == "skip_row" for each in checks) else LOAD_DATA
    if selection and selection.enabled:
        return (load, SPLIT_DATA, FEATURE_SELECTION, TRAIN_SELECTED, EVALUATE, LOG_RUN)
    return (load, SPLIT_DATA, TRAIN_MODEL, EVALUATE, LOG_RUN)


def parents(steps: Sequence[Step]) -> dict[str, list[str]]:
    """For each step, those whose artefacts it takes."""
    makers = {artefact: step.name for step in steps for artefact in step.outputs}
    return {step.name: sorted({makers[artefact] for artefact in step.inputs}) for step in steps}


def batches(parents: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The steps in batches; those of one batch can run side by side.

    Raises:
        ValueError: steps wait for each other, or for one that there is not.
    """
    done: set[str] = set()
    result = []
    while len(done) < len(parents):
        ready = [name for name, wanted in parents.items() if name not in done and done.issuperset(wanted)]
        if not ready:
            raise ValueError(f"these steps can never run: {', '.join(sorted(parents.keys() - done))}")
        result.append(ready)
        done.update(ready)
    return result
