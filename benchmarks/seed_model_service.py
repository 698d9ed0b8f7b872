"""A model service as the seed describes it: state in memory, synchronous routes, River's default engines, and
rolling metrics that each call updates.
"""

from __future__ import annotations

import os

from fastapi import FastAPI
from pydantic import BaseModel
from river import ensemble, forest, linear_model, metrics, neighbors, preprocessing, utils

ENGINES = {
    "linear_regression": lambda: linear_model.LinearRegression(),
    "bagging_regressor": lambda: ensemble.BaggingRegressor(linear_model.LinearRegression(l2=1.0), n_models=3),
    "knn_regressor": lambda: neighbors.KNNRegressor(n_neighbors=5),
    "amf_regressor": lambda: forest.AMFRegressor(),
}
WINDOWS = (5, 10, 20)


class Observation(BaseModel):
    features: dict[str, float]
    target: float


class Features(BaseModel):
    features: dict[str, float]


app = FastAPI()
model = preprocessing.StandardScaler() | ENGINES[os.environ["MODEL_NAME"]]()
errors = [
    utils.Rolling(metric(), window)
    for metric in (metrics.MAE, metrics.MSE, metrics.RMSE, metrics.MAPE)
    for window in WINDOWS
]


@app.post("/predict_learn")
def predict_learn(observation: Observation) -> dict[str, float]:
    # Its forest says None at first, at which the seed's service fails.
    prediction = float(model.predict_one(observation.features) or 0.0)
    model.learn_one(observation.features, observation.target)
    for error in errors:
        error.update(observation.target, prediction)
    return {"prediction": prediction}


@app.post("/predict")
def predict(given: Features) -> dict[str, float]:
    return {"prediction": float(model.predict_one(given.features) or 0.0)}


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}
