"""The steps of batch pipelines: functions from artefacts to artefacts, alike under Dagster and without it."""

from mlplatform.steps.serving import apply_transforms, load_model, load_scoring_data, predict, publish
from mlplatform.steps.training import evaluate, feature_selection, load_data, log_run, split_data, train_model

__all__ = [
    "apply_transforms",
    "evaluate",
    "feature_selection",
    "load_data",
    "load_model",
    "load_scoring_data",
    "log_run",
    "predict",
    "publish",
    "split_data",
    "train_model",
]
