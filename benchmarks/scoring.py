"""Scores of many customers: MOJO in this process, against H2OFrame and predict, and against PredictCsv.

Each way runs in a process of its own, whose peak memory counts (with that of its H2O server). The clock
starts when models and servers are ready, and stops when the scores are in a frame: writing them is another
matter.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import mlplatform.defs
from benchmarks.measure import Row, Session, say
from mlplatform.io.h2o.java import jar, java, java_home
from mlplatform.io.plugins.frameworks.h2o_automl import MODEL_FILE, H2OAutoMLFramework
from mlplatform.local import ports

TELCO = Path(mlplatform.defs.__path__[0], "churn/data/telco_churn.csv")
FEATURES = ["tenure", "monthly_charges", "total_charges"]
LABEL = "churned"
CUSTOMERS, FEWER_CUSTOMERS = 1_000_000, 100_000
CHUNK = 50_000
H2O_MEMORY = "2G"
MODELS = {"GBM": "single", "StackedEnsemble": "stacked ensemble"}
# Ours may differ from H2O's by the last digits of a sum.
TOLERANCE = 1e-9


def measure(session: Session) -> Iterator[Row]:
    count = CUSTOMERS if session.full else FEWER_CUSTOMERS
    folder = session.directory / "scoring"
    folder.mkdir()
    write_customers(folder / "customers.parquet", count)
    say("training the models (H2O AutoML)")
    run("train", folder)
    for model, name in MODELS.items():
        ways = {way: run(way, folder, model) for way in WAYS}
        for way in ("h2oframe", "predict_csv"):
            difference = np.abs(scores(folder, model, "ours") - scores(folder, model, way)).max()
            if difference > TOLERANCE:
                raise AssertionError(f"{way} and ours differ by {difference} for the {name} model")
        for way, result in ways.items():
            say(
                f"{name}, {way}: {count / result['seconds']:,.0f} rows/s, {result['bytes'] / 1024**2:,.0f} MB"
            )
        ours = ways["ours"]
        for way, label in (("h2oframe", "H2OFrame, predict"), ("predict_csv", "PredictCsv")):
            what = f"{count:,} customers scored by a {name} model, against {label}"
            yield Row(what, ours["seconds"], ways[way]["seconds"])
            yield Row(f"{what}: peak memory", ours["bytes"], ways[way]["bytes"], "bytes")


def write_customers(file: Path, count: int) -> None:
    """The Telco customers again and again, with noise, a row group for each chunk."""
    known, random = pd.read_csv(TELCO).fillna({"total_charges": 0.0}), np.random.default_rng(1)
    rows = known[FEATURES].take(random.integers(0, len(known), count)).reset_index(drop=True)
    for name in ("monthly_charges", "total_charges"):
        rows[name] = (rows[name] * random.normal(1, 0.02, count)).clip(lower=0).round(2)
    rows.insert(0, "customer_id", [f"C{number:08d}" for number in range(count)])
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), file, row_group_size=CHUNK)


def chunks(file: Path) -> Iterator[pd.DataFrame]:
    for batch in pq.ParquetFile(file).iter_batches(CHUNK):
        yield batch.to_pandas()


def by_mojo(folder: Path, model: str) -> Callable[[], Iterator[pd.DataFrame]]:
    """Ours: chunk by chunk."""
    estimator = H2OAutoMLFramework().load(folder / model)

    def score() -> Iterator[pd.DataFrame]:
        for chunk in chunks(folder / "customers.parquet"):
            yield scored(chunk["customer_id"], estimator.predict(chunk)[:, 1])

    return score


def by_h2oframe(folder: Path, model: str) -> Callable[[], Iterator[pd.DataFrame]]:
    """The seed's: the whole table goes up as an H2OFrame, and its scores come down."""
    import h2o

    start_h2o()
    predictor = h2o.load_model(str(next((folder / model).glob("*.h2o"))))

    def score() -> Iterator[pd.DataFrame]:
        customers = pd.read_parquet(folder / "customers.parquet")
        frame = h2o.H2OFrame(customers[FEATURES])
        yield scored(customers["customer_id"], predictor.predict(frame).as_data_frame()["p1"].to_numpy())

    return score


def by_predict_csv(folder: Path, model: str) -> Callable[[], Iterator[pd.DataFrame]]:
    """H2O's own program for MOJOs, from one CSV file to another."""
    source, target = folder / "customers.csv", folder / "scores.csv"

    def score() -> Iterator[pd.DataFrame]:
        customers = pd.read_parquet(folder / "customers.parquet")
        customers[FEATURES].to_csv(source, index=False)
        command = [java(), "-cp", jar(), "hex.genmodel.tools.PredictCsv", "--decimal"]
        files = ["--mojo", folder / model / MODEL_FILE, "--input", source, "--output", target]
        subprocess.run([*command, *files], check=True, capture_output=True)
        yield scored(customers["customer_id"], pd.read_csv(target)["p1"].to_numpy())

    return score


WAYS = {"ours": by_mojo, "h2oframe": by_h2oframe, "predict_csv": by_predict_csv}


def scored(customer_ids: pd.Series, probabilities: np.ndarray) -> pd.DataFrame:
    """Rows as `churn_predictions` has them."""
    return pd.DataFrame(
        {
            "customer_id": customer_ids,
            "prediction": (probabilities >= 0.5).astype(np.int64),
            "prediction_probability": probabilities,
        }
    )


def train(folder: Path) -> None:
    """The best model of its kind that AutoML finds, as MOJO and in H2O's own format."""
    import h2o
    from h2o.automl import H2OAutoML

    start_h2o()
    frame = h2o.H2OFrame(pd.read_csv(TELCO)[[*FEATURES, LABEL]])
    frame[LABEL] = frame[LABEL].asfactor()
    automl = H2OAutoML(max_models=6, nfolds=3, seed=42, exclude_algos=["DeepLearning"])
    automl.train(x=FEATURES, y=LABEL, training_frame=frame)
    for algorithm in MODELS:
        model = automl.get_best_model(algorithm=algorithm)
        (folder / algorithm).mkdir()
        model.download_mojo(str(folder / algorithm / MODEL_FILE))
        saved = Path(h2o.save_model(model, str(folder / algorithm)))
        saved.rename(saved.with_suffix(".h2o"))


def start_h2o() -> None:
    """A server that ends with this process."""
    import h2o

    h2o.init(ip="127.0.0.1", port=ports.choose(()), max_mem_size=H2O_MEMORY, name=uuid.uuid4().hex)
    h2o.no_progress()


def scores(folder: Path, model: str, way: str) -> np.ndarray:
    return np.load(folder / model / f"{way}.npy")


def run(way: str, folder: Path, model: str = "") -> dict[str, float]:
    """One way in a process of its own: how long it took, and the most memory that it had."""
    command = [sys.executable, "-m", "benchmarks.scoring", way, str(folder), model]
    environment = {**os.environ, "H2O_JAVA_HOME": str(java_home())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{way}: {done.stderr}")
    # Not its standard output, on which H2O's client prints.
    return json.loads((folder / f"{way}.json").read_text())


def main() -> None:
    way, folder, model = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    result = {}
    if way == "train":
        train(folder)
    else:
        score = WAYS[way](folder, model)
        began = time.perf_counter()
        parts = [part["prediction_probability"].to_numpy() for part in score()]
        result = {"seconds": time.perf_counter() - began, "bytes": peak_bytes()}
        np.save(folder / model / f"{way}.npy", np.concatenate(parts))
    (folder / f"{way}.json").write_text(json.dumps(result))


def peak_bytes() -> int:
    """Of this process, of the largest one that it waited for, and of the server that still runs."""
    usages = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ours = sum(resource.getrusage(usage).ru_maxrss for usage in usages)
    running = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    peaks = (re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()) for pid in running)
    return 1024 * (ours + sum(int(peak[1]) for peak in peaks if peak))


if __name__ == "__main__":
    main()
