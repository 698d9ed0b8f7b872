"""What Dagit says of each artefact."""

from __future__ import annotations

from mlplatform.domain.batch.manifest import Manifest

DESCRIPTIONS = {
    "raw_data": "Labels joined with their features, one row for each label.",
    "train_set": "What the model learns from.",
    "test_set": "What the model is judged on; the same customers stay here when others are added.",
    "selected_features": "The features that were chosen, with their scores.",
    "model": "The model with its fitted transforms in one signed bundle.",
    "train_metrics": "What the framework says of its training.",
    "eval_metrics": "Metrics on the test set with bootstrap intervals, and the champion's on the same rows.",
    "eval_plots": "Curves on the test set.",
    "run_id": (
        "The trained model as tracked and registered in MLflow. It becomes the champion unless the one there "
        "is is better on the same test set by more than one standard error."
    ),
    "scoring_data": "What is to be scored, as it is in the table.",
    "model_metadata": "Which model scores: its run, version and features.",
    "transformed_data": "Rows that can be scored, with the columns and types that the model learned from.",
    "refused_rows": "Quarantine: rows that went no further, with the reason.",
    "predictions": "One row for each scored row: class and probability.",
    "output": "The published scores, one row for each scored key and serving run.",
}
DOCUMENTS = {
    "selected_features",
    "train_metrics",
    "eval_metrics",
    "eval_plots",
    "model_metadata",
    "output",
    "run_id",
}


def kinds_of(manifest: Manifest, artefact: str) -> set[str]:
    """The technologies that Dagit shows on the asset."""
    target = manifest.target
    framework = {"h2o_automl": "h2o", "sklearn": "scikitlearn"}.get(
        manifest.pipeline.training.model_training.framework, "python"
    )
    match artefact:
        case "run_id":
            return {"mlflow", framework}
        case "output":
            return {"postgres" if target.data_connector.type == "postgres" else "csv"}
        case "model":
            return {framework, target.storage.type}
    form = "json" if artefact in DOCUMENTS else "parquet"
    return {form, target.storage.type}
