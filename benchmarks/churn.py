"""How well churn is told: area under the ROC curve on a held-back fifth of the Telco customers.

Less is better in the table, so it shows what the area lacks to 1. Ours is the platform's own way, from the
table to the bundle that is scored; beside it, on the same rows, plain scikit-learn models.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlplatform.defs
from benchmarks.measure import Row, Session, say
from mlplatform.domain.batch.metrics import Predictions, evaluate, intervals
from mlplatform.domain.batch.pipeline import Training
from mlplatform.domain.batch.promotion import contest
from mlplatform.domain.batch.splitting import held_back_rows
from mlplatform.io.model_bundle import fit_model, load_model
from mlplatform.io.plugins.frameworks import TrainingEnvironment
from mlplatform.io.signing import Signer

DATA = Path(mlplatform.defs.__path__[0], "churn/data/telco_churn.csv")
KEY, LABEL = "customer_id", "churned"
METRIC = "roc_auc"
OURS: dict[str, dict[str, Any]] = {
    "scikit-learn": {"framework": "sklearn", "config": {"model": "GradientBoostingClassifier"}},
    "H2O AutoML": {
        "framework": "h2o_automl",
        "config": {"max_models": 4, "sort_metric": "AUC", "seed": 42, "nfolds": 5},
    },
}
# The seed's number of models.
FULL_MODELS = 10
PLAIN = {
    "plain gradient boosting": GradientBoostingClassifier(random_state=42),
    "plain logistic regression": make_pipeline(StandardScaler(), LogisticRegression()),
}


def measure(session: Session) -> Iterator[Row]:
    """Each of ours against each plain model."""
    train, test = _customers()
    say(f"{len(train):,} customers to learn from, {len(test):,} held back")
    others = {}
    for name, model in PLAIN.items():
        columns = [column for column in train if column not in (KEY, LABEL)]
        model.fit(train[columns].to_numpy(), train[LABEL].to_numpy())
        others[name] = _predictions(test, model.predict_proba(test[columns].to_numpy()))
        _tell(name, others[name])
    for name, block in OURS.items():
        if block["framework"] == "h2o_automl":
            if find_spec("h2o") is None:
                say("h2o is not installed: its AutoML is left out")
                continue
            if session.full:
                block = {**block, "config": {**block["config"], "max_models": FULL_MODELS}}
        ours = _predictions(test, _trained(train, test, block, session.directory / block["framework"]))
        _tell(f"ours, {name}", ours)
        for other, predictions in others.items():
            say(f"  against {other}: {contest(METRIC, ours, predictions).reason}")
            lacking = [1 - _value(each) for each in (ours, predictions)]
            yield Row(f"1 − AUC, ours by {name}, against {other}", lacking[0], lacking[1], "area", 1.0)


def _customers() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Those to learn from, and those held back as the platform does it."""
    # Customers of tenure 0 have not been charged yet.
    customers = pd.read_csv(DATA).fillna({"total_charges": 0.0})
    held_back = held_back_rows(customers, KEY, LABEL)
    return customers[~held_back], customers[held_back]


def _trained(train: pd.DataFrame, test: pd.DataFrame, block: dict[str, Any], directory: Path) -> np.ndarray:
    """(n, 2) what a bundle says of the test rows that was trained, saved and loaded."""
    training = Training.model_validate(
        {
            "data_source": {"label_table": "customers"},
            "schema": {
                "target": {"label_column": LABEL, "classes": [0, 1], "positive_class": 1},
                "identifiers": {"primary_key": KEY},
            },
            "model_training": block,
        }
    )
    (directory / "work").mkdir(parents=True)
    environment = TrainingEnvironment(lambda line: say(f"  {line}"), directory / "work")
    signer = Signer(b"benchmark")
    fit_model(train, training, "binary_classification", environment).save(directory / "bundle", signer)
    return load_model(directory / "bundle", signer).predict(test)


def _predictions(test: pd.DataFrame, scores: np.ndarray) -> Predictions:
    return Predictions("binary_classification", test[LABEL].to_numpy(), scores)


def _value(predictions: Predictions) -> float:
    return evaluate([METRIC], predictions)[METRIC]


def _tell(name: str, predictions: Predictions) -> None:
    interval = intervals([METRIC], predictions)[METRIC]
    say(f"{name}: {METRIC} {interval.value:.4f}, 95 % from {interval.lower:.4f} to {interval.upper:.4f}")
