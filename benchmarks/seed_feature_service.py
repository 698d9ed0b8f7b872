"""A feature service as the seed describes it: synchronous routes, and the newest values in Redis alone."""

from __future__ import annotations

import os

import redis
from fastapi import FastAPI
from pydantic import BaseModel

LAGS = 15


class Observation(BaseModel):
    series_id: str = "default"
    value: float


app = FastAPI()
store = redis.Redis.from_url(os.environ["MLPLATFORM_REDIS_URL"], decode_responses=True)


@app.post("/add")
def add(observation: Observation) -> dict:
    key = f"seed:series:{observation.series_id}:values"
    before = [float(each) for each in store.lrange(key, 0, LAGS - 1)]
    store.lpush(key, observation.value)
    store.ltrim(key, 0, LAGS - 1)
    padded = before + [0.0] * (LAGS - len(before))
    return {
        "series_id": observation.series_id,
        "features": {f"in_{lag}": value for lag, value in enumerate(padded, start=1)},
        "target": observation.value,
        "available_lags": len(before),
    }


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "healthy"}
