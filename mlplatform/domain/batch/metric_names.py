"""The metrics by which a model of each kind of problem can be judged."""

from __future__ import annotations

from mlplatform.domain.batch.pipeline import ProblemType

METRICS: dict[ProblemType, tuple[str, ...]] = {
    "binary_classification": (
        "roc_auc",
        "average_precision",
        "accuracy",
        "f1",
        "precision",
        "recall",
        "log_loss",
        "brier_score",
        "balanced_accuracy",
        "matthews_corrcoef",
    ),
    "multiclass_classification": (
        "accuracy",
        "f1_macro",
        "f1",
        "precision",
        "recall",
        "log_loss",
        "roc_auc",
        "balanced_accuracy",
    ),
    "regression": ("rmse", "mse", "mae", "r2", "mape"),
}
