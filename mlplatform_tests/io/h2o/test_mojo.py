"""Scores of MOJOs in this process, against those of the H2O server that trained the models."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest

from mlplatform.io.h2o.automl import AutoMLRun
from mlplatform.io.h2o.client import H2OClient
from mlplatform.io.h2o.mojo import Mojo
from mlplatform.io.plugins.frameworks import FrameworkError, TrainingData
from mlplatform.io.plugins.frameworks.h2o_automl import to_table
from mlplatform_tests.io.h2o.servers import shared_server

ROWS = 400
PLANS = ["gold", "silver", " blank", "", "NA", "01", "1", 'with "quotes", and\nline ends', "Süd", "\\n"]
TOLERANCE = 1e-9
# By algorithm: the MOJO's file, customers, and the server's scores of them.
Scored = dict[str, tuple[Path, pd.DataFrame, np.ndarray]]
PROBLEMS = {"binary_classification": 2, "multiclass_classification": 4, "regression": 0}
ALGORITHMS = ("gbm", "glm", "xgboost", "drf", "ensemble")


def customers(seed: int, plans: list[str]) -> pd.DataFrame:
    """Numbers and categories of all kinds, about a tenth of them missing."""
    random = np.random.default_rng(seed)

    def holes(values: object) -> pd.Series:
        return pd.Series(values).mask(random.random(ROWS) < 0.1)

    return pd.DataFrame(
        {
            "tenure": random.integers(0, 70, ROWS),
            "monthly charges": holes(random.normal(60, 20, ROWS)),
            "plan": holes(random.choice(plans, ROWS)),
            "region": pd.Categorical(holes(random.choice([f"r{i}" for i in range(30)], ROWS))),
            "lines": pd.Categorical(holes(random.integers(1, 4, ROWS))),
            "paperless": random.random(ROWS) < 0.5,
            "since": holes(pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 900, ROWS), "D")),
        }
    )


def target(frame: pd.DataFrame, classes: int) -> np.ndarray:
    random = np.random.default_rng(9)
    latent = (
        -frame["tenure"] / 20
        + frame["monthly charges"].fillna(90) / 30
        + frame["plan"].isin(["gold", ""])
        + random.normal(0, 2, ROWS)
    ).to_numpy()
    if not classes:
        return latent
    return np.digitize(latent, np.quantile(latent, np.arange(1, classes) / classes))


class Cluster:
    """The server, and what its own client, the oracle of these tests, makes of it."""

    def __init__(self, folder: Path) -> None:
        import h2o

        server = shared_server()
        parts = urlsplit(server.url)
        h2o.connect(
            url=f"http://{parts.hostname}:{parts.port}",
            auth=(parts.username, parts.password),
            verbose=False,
            strict_version_check=True,
        )
        h2o.no_progress()
        self.h2o = h2o
        self.folder = folder
        self.client = H2OClient(server.url, server.ended)
        self.run = AutoMLRun(self.client, lambda _: None)

    def upload(self, data: TrainingData) -> tuple[object, str]:
        table, response = to_table(data)
        return self.h2o.get_frame(self.run.upload(table, self.folder)), response


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("mojo"))
    with cluster.client, cluster.run:
        yield cluster
        cluster.h2o.remove_all()
        cluster.h2o.connection().close()


@pytest.fixture(scope="module", params=PROBLEMS)
def scored(request: pytest.FixtureRequest, cluster: Cluster) -> Scored:
    from h2o.estimators import (
        H2OGeneralizedLinearEstimator,
        H2OGradientBoostingEstimator,
        H2ORandomForestEstimator,
        H2OStackedEnsembleEstimator,
        H2OXGBoostEstimator,
    )

    count = PROBLEMS[request.param]
    classes = tuple(range(count))
    known, unknown = customers(1, PLANS), customers(2, [*PLANS, "unseen", "also unseen"])
    frame, response = cluster.upload(TrainingData(known, target(known, count), request.param, classes))
    others, _ = cluster.upload(TrainingData(unknown, target(unknown, count), request.param, classes))
    common = {"nfolds": 2, "keep_cross_validation_predictions": True, "seed": 1, "fold_assignment": "Modulo"}
    family = {0: "gaussian", 2: "binomial", 4: "multinomial"}[count]
    models = {
        "gbm": H2OGradientBoostingEstimator(ntrees=8, **common),
        "glm": H2OGeneralizedLinearEstimator(family=family, lambda_=0.01, max_iterations=100, **common),
        "xgboost": H2OXGBoostEstimator(ntrees=8, **common),
        "drf": H2ORandomForestEstimator(ntrees=5, **common),
    }
    for model in models.values():
        model.train(x=list(known.columns), y=response, training_frame=frame)
    models["ensemble"] = H2OStackedEnsembleEstimator(base_models=list(models.values()), seed=1)
    models["ensemble"].train(x=list(known.columns), y=response, training_frame=frame)
    results = {}
    for name, model in models.items():
        file = Path(model.download_mojo(str(cluster.folder / f"{request.param}-{name}.zip")))
        with pytest.warns(UserWarning, match="levels not trained on"):
            predicted = model.predict(others)
        columns = predicted.columns[1:] if classes else predicted.columns
        # Not as_data_frame, which warns; CSV keeps every digit.
        text = predicted[columns].get_frame_data()
        values = np.array(
            [[float(cell.strip('"')) for cell in line.split(",")] for line in text.splitlines()[1:]]
        )
        results[name] = (file, unknown, values if classes else values[:, 0])
    return results


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_scores_are_those_of_the_server(scored: Scored, algorithm: str) -> None:
    file, frame, expected = scored[algorithm]
    scores = Mojo(file).score(frame)
    assert scores.shape == expected.shape
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def mojo(scored: Scored) -> Mojo:
    return Mojo(scored["ensemble"][0])


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return customers(3, PLANS)


binary = pytest.mark.parametrize("scored", ["binary_classification"], indirect=True, scope="module")


@binary
def test_scores_do_not_depend_on_how_rows_are_cut(
    mojo: Mojo, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mojo.score(frame)
    monkeypatch.setattr("mlplatform.io.h2o.mojo.PIECE_NUMBERS", 1)
    monkeypatch.setattr("mlplatform.io.h2o.mojo.PIECE_ROWS", 9)
    np.testing.assert_array_equal(mojo.score(frame), whole)
    pieces = [mojo.score(frame.iloc[start : start + 7]) for start in range(0, ROWS, 7)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert mojo.score(frame.iloc[:0]).shape == (0, 2)


@binary
def test_threads_share_a_model_and_leave_nothing_in_java(mojo: Mojo, frame: pd.DataFrame) -> None:
    import jpype

    expected, results = mojo.score(frame), {}
    active = jpype.JClass("java.lang.Thread").activeCount()

    def score(name: int) -> None:
        results[name] = [mojo.score(frame) for _ in range(10)]

    threads = [threading.Thread(target=score, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for scores in results.values():
        np.testing.assert_array_equal(scores, [expected] * 10)
    assert len(results) == 4
    assert jpype.JClass("java.lang.Thread").activeCount() == active


@binary
def test_a_category_is_its_text_whatever_its_type(mojo: Mojo, frame: pd.DataFrame) -> None:
    expected = mojo.score(frame)
    # What a database or a file makes of the same values.
    others = frame.assign(
        lines=frame["lines"].astype(float),
        region=frame["region"].astype(object),
        plan=frame["plan"].astype("category"),
        tenure=frame["tenure"].astype("Int64"),
        paperless=frame["paperless"].astype(object),
        since=frame["since"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
    )
    np.testing.assert_array_equal(mojo.score(others), expected)


@binary
def test_columns_that_do_not_fit_are_named(mojo: Mojo, frame: pd.DataFrame) -> None:
    with pytest.raises(FrameworkError, match="reads the columns tenure, plan"):
        mojo.score(frame.drop(columns=["plan", "tenure"]))
    with pytest.raises(FrameworkError, match="column tenure: the model reads numbers"):
        mojo.score(frame.assign(tenure="long"))


def test_what_is_no_mojo_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.zip"
    file.write_bytes(b"not a model")
    with pytest.raises(FrameworkError, match=r"model\.zip is no MOJO"):
        Mojo(file)
    with pytest.raises(FrameworkError, match="is no MOJO"):
        Mojo(tmp_path / "nowhere.zip")


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_signals_stay_with_python() -> None:
    done = run(
        """
import os, signal
from mlplatform.io.h2o.mojo import machine
machine()
signal.signal(signal.SIGTERM, lambda *_: print("terminated", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    )
    assert (done.stdout, done.returncode) == ("terminated\ninterrupted\n", 0), done.stderr


@binary
def test_a_java_that_runs_already_is_used(scored: Scored) -> None:
    file, unknown, expected = scored["ensemble"]
    unknown.to_parquet(file.with_suffix(".parquet"))
    done = run(
        f"""
import jpype, pandas
from pathlib import Path
from mlplatform.io.h2o.java import libjvm
jpype.startJVM(str(libjvm()))
from mlplatform.io.h2o.mojo import Mojo
frame = pandas.read_parquet({str(file.with_suffix(".parquet"))!r})
print(Mojo(Path({str(file)!r})).score(frame).sum(axis=0))
"""
    )
    assert done.stdout.strip() == str(expected.sum(axis=0)), done.stderr


def test_a_fork_says_that_it_has_no_java() -> None:
    done = run(
        """
import os
from mlplatform.io.h2o.mojo import machine
from mlplatform.io.plugins.frameworks import FrameworkError
machine()
if os.fork() == 0:
    try:
        machine()
    except FrameworkError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""
    )
    assert "does not survive a fork" in done.stdout, done.stderr
