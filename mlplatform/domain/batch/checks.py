"""The checks that the steps of a pipeline make: declared here, so that Dagit knows them before a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mlplatform.domain.batch.pipeline import DataCheck, Pipeline


@dataclass(frozen=True)
class Check:
    """A check of an artefact. A blocking one that fails ends the run before the next step."""

    name: str
    artefact: str
    description: str
    blocking: bool = True


def checks_of(pipeline: Pipeline) -> dict[str, tuple[Check, ...]]:
    """The checks of each step that makes any."""
    if pipeline.serving:
        return {
            "load_scoring_data": (Check("keys", "scoring_data", "No key is repeated."),),
            "load_model": (
                Check("asked_for", "model", "It is the model that the pipeline names.", blocking=False),
            ),
            "apply_transforms": (
                Check("columns", "transformed_data", "The columns that the model learned from are there."),
                Check(
                    "drift",
                    "transformed_data",
                    "The population stability index of each feature against the training data is below 0.2.",
                    blocking=False,
                ),
                Check(
                    "refused", "refused_rows", "Every row can be scored; a few that cannot are no failure."
                ),
                *_declared(pipeline.serving.data_checks, "transformed_data"),
            ),
            "predict": (
                Check("scores", "predictions", "One score for each row; probabilities lie between 0 and 1."),
            ),
            "publish": (Check("rows", "output", "As many rows are published as were scored."),),
        }
    return {
        "load_data": (
            Check("keys", "raw_data", "Every row has a key of its own, and a label."),
            Check("enough_rows", "raw_data", "There are enough rows to learn from and to test on."),
            *(
                [Check("classes", "raw_data", "Every class is there, the rarest often enough.")]
                if pipeline.project.problem_type != "regression"
                else []
            ),
            *_declared(pipeline.training.data_checks, "raw_data"),
        ),
        "train_model": (
            Check("reproducible", "model", "The same data gives the same model again.", blocking=False),
        ),
        "log_run": (
            Check("beats_champion", "run_id", "On the same test set the champion is not clearly better."),
        ),
    }


def names_of(checks: Sequence[DataCheck]) -> list[str]:
    """A name for each: its kind, with a number if there are several of a kind."""
    seen: Counter[str] = Counter()
    names = []
    for check in checks:
        seen[check.name] += 1
        names.append(check.name if seen[check.name] == 1 else f"{check.name}_{seen[check.name]}")
    return names


def _declared(checks: Sequence[DataCheck], artefact: str) -> list[Check]:
    return [
        Check(
            name,
            artefact,
            f"{check.name.replace('_', ' ').capitalize()} of {', '.join(check.columns) or check.function};"
            f" on failure: {check.on_failure}.",
            # One that skips rows ends the run where no row can be blamed, such as for a column that is gone.
            blocking=check.on_failure != "warn",
        )
        for name, check in zip(names_of(checks), checks, strict=True)
    ]
