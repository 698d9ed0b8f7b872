"""Lag features in Feast: makes a repository in a directory, and tells what a push and a read take.

Run by an interpreter that has Feast, and nothing of ours.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource
from feast.types import Float64
from feast.value_type import ValueType

NAMES = [f"in_{lag}" for lag in range(1, 16)]
FEATURES = [f"lags:{name}" for name in NAMES]
SERIES, PUSHES, READS = 10, 200, 1000
# What `feast init` writes for one machine.
CONFIGURATION = """
project: lags
provider: local
registry: registry.db
online_store: {type: sqlite, path: online.db}
offline_store: {type: file}
entity_key_serialization_version: 3
"""


def made(directory: Path) -> FeatureStore:
    (directory / "feature_store.yaml").write_text(CONFIGURATION)
    table = directory / "lags.parquet"
    row(0, 0).to_parquet(table)
    store = FeatureStore(repo_path=str(directory))
    series = Entity(name="series", join_keys=["series_id"], value_type=ValueType.STRING)
    source = FileSource(name="lags_file", path=str(table), timestamp_field="event_timestamp")
    schema = [Field(name=name, dtype=Float64) for name in NAMES]
    view = FeatureView(
        name="lags",
        entities=[series],
        ttl=timedelta(0),
        schema=schema,
        source=PushSource(name="pushed", batch_source=source),
    )
    store.apply([series, view])
    return store


def row(series: int, number: int) -> pd.DataFrame:
    time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    values = {name: [float(number - lag)] for lag, name in enumerate(NAMES)}
    return pd.DataFrame({"series_id": [f"series-{series}"], "event_timestamp": [time], **values})


def main(directory: Path) -> None:
    store = made(directory)
    pushed, read = [], []
    for number in range(PUSHES):
        frame = row(number % SERIES, number)
        began = time.perf_counter()
        store.push("pushed", frame)
        pushed.append(time.perf_counter() - began)
    for number in range(READS):
        asked = [{"series_id": f"series-{number % SERIES}"}]
        began = time.perf_counter()
        found = store.get_online_features(features=FEATURES, entity_rows=asked).to_dict()
        read.append(time.perf_counter() - began)
    if None in found["in_1"]:
        raise SystemExit("Feast does not have what was pushed")
    print(json.dumps({"push": median(pushed), "read": median(read)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
