from __future__ import annotations

import http.server
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform.domain.batch.pipeline import ProblemType
from mlplatform.io.h2o.client import H2OClient
from mlplatform.io.plugins.frameworks import (
    Fitted,
    FrameworkError,
    InvalidConfig,
    TrainingData,
    TrainingEnvironment,
)
from mlplatform.io.plugins.frameworks.h2o_automl import H2OAutoMLFramework
from mlplatform_tests.io.h2o.servers import shared_server
from mlplatform_tests.io.plugins.frameworks_checks import CHECKS, Subject
from mlplatform_tests.local.processes import descendants, eventually, lives, program

BINARY: ProblemType = "binary_classification"
MULTICLASS: ProblemType = "multiclass_classification"
# As the seed's pipeline has it.
SEED = {"max_runtime_secs": 300, "max_models": 10, "sort_metric": "AUC", "seed": 42, "nfolds": 5}
QUICK = {
    "max_models": 2,
    "nfolds": 2,
    "include_algos": ["GBM", "GLM", "StackedEnsemble"],
    "stopping_rounds": 1,
    "stopping_tolerance": 0.1,
}
# GBM's leaves want a hundred rows, of each half.
ROWS = 500
framework = H2OAutoMLFramework()


def training_data(problem_type: ProblemType, classes: tuple[int | str, ...]) -> TrainingData:
    random = np.random.default_rng(5)
    features = pd.DataFrame(
        {
            "tenure": random.integers(0, 70, ROWS),
            "plan": random.choice(["gold", "silver", None], ROWS),
            "constant": 1,
            "empty": pd.Series([None] * ROWS, dtype=object),
        }
    )
    latent = features["tenure"] / 20 + (features["plan"] == "gold") + random.normal(0, 1, ROWS)
    target = latent.to_numpy()
    if classes:
        target = np.digitize(target, np.quantile(target, np.arange(1, len(classes)) / len(classes)))
    return TrainingData(features, target, problem_type, classes)


def environment(folder: Path, lines: list[str] | None = None, **changes: Any) -> TrainingEnvironment:
    log = (lambda _: None) if lines is None else lines.append
    return TrainingEnvironment(log, folder, **{"h2o_url": shared_server().url, **changes})


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    configs = dict.fromkeys((BINARY, MULTICLASS, "regression"), QUICK)
    return Subject(framework, configs, tmp_path_factory.mktemp("h2o"), shared_server().url)


@pytest.mark.parametrize("check", CHECKS)
def test_what_every_framework_does(check: str, subject: Subject) -> None:
    CHECKS[check](subject)


def keys_on_the_server() -> set[str]:
    with H2OClient(shared_server().url) as client:
        models = [one["model_id"]["name"] for one in client.get("3/Models")["models"]]
        frames = [one["frame_id"]["name"] for one in client.get("3/Frames")["frames"]]
        return {*models, *frames}


def problems(config: dict[str, Any], problem_type: ProblemType = BINARY) -> dict[str, str]:
    with pytest.raises(InvalidConfig) as caught:
        framework.validate(config, problem_type)
    return {".".join(map(str, path)): message for path, message in caught.value.problems}


class TestValidate:
    def test_nothing_is_a_config(self) -> None:
        assert framework.validate({}, BINARY) == []

    def test_the_seeds_config_works_and_warns_of_the_clock(self) -> None:
        (warning,) = framework.validate(SEED, BINARY)
        assert "max_runtime_secs" in warning
        assert "not reproducible" in warning

    @pytest.mark.parametrize(
        ("config", "part"),
        [({"seed": -1}, "seed"), ({"include_algos": ["DeepLearning"]}, "DeepLearning")],
    )
    def test_what_makes_two_runs_differ_is_told(self, config: dict[str, Any], part: str) -> None:
        (warning,) = framework.validate(config, BINARY)
        assert part in warning
        assert "not reproducible" in warning

    def test_what_has_no_effect_is_told(self) -> None:
        (warning,) = framework.validate({"project_name": "churn"}, BINARY)
        assert "no effect" in warning

    def test_an_unknown_key_names_its_neighbour(self) -> None:
        found = problems({"max_model": 3, "sort_metrics": "AUC"})
        assert "did you mean max_models?" in found["max_model"]
        assert "did you mean sort_metric?" in found["sort_metrics"]

    @pytest.mark.parametrize(
        ("key", "wrong", "right"),
        [
            ("max_models", [0, 1.5, True, "3", None], [1, 20]),
            ("max_runtime_secs", [0, -1, "1h", True, float("nan")], [0.5, 300]),
            ("max_runtime_secs_per_model", [0], [60]),
            ("seed", [-2, 1.5, None], [-1, 0, 42]),
            ("nfolds", [-1, 1, 2.5], [0, 2, 10]),
            ("balance_classes", [1, "yes"], [True, False]),
            ("class_sampling_factors", [1, [0], ["a"]], [[1.0, 2]]),
            ("max_after_balance_size", [0], [2.5]),
            ("stopping_rounds", [-1], [0, 3]),
            ("stopping_tolerance", [0, "low"], [1e-3]),
            ("exploitation_ratio", [2, -0.5, "a"], [-1, 0, 0.1, 1]),
            ("monotone_constraints", [{"tenure": 2}, ["tenure"]], [{"tenure": 1, "plan": -1}]),
            ("include_algos", ["GBM", ["XGBoots"], [1]], [["GBM"], ["XGBoost", "GLM"]]),
            ("exclude_algos", [["gbm"]], [["DRF"]]),
            ("sort_metric", ["RMSLE", 1, ""], ["AUTO", "auc", "AUCPR", "logloss"]),
            ("stopping_metric", ["deviance"], ["misclassification"]),
        ],
    )
    def test_values(self, key: str, wrong: list[Any], right: list[Any]) -> None:
        for value in wrong:
            assert set(problems({key: value})) == {key}, value
        for value in right:
            framework.validate({key: value}, BINARY)

    def test_an_algorithm_and_a_metric_name_their_neighbour(self) -> None:
        assert "did you mean XGBoost?" in problems({"exclude_algos": ["xgboost"]})["exclude_algos"]

    def test_metrics_fit_the_problem(self) -> None:
        assert "logloss" in problems({"sort_metric": "AUC"}, MULTICLASS)["sort_metric"]
        framework.validate({"sort_metric": "deviance"}, "regression")
        assert problems({"sort_metric": "logloss"}, "regression")

    def test_all_problems_come_at_once(self) -> None:
        wrong = {"max_models": 0, "nfold": 3, "include_algos": ["GBM"], "exclude_algos": ["GLM"]}
        assert set(problems(wrong)) == {"max_models", "nfold", "exclude_algos"}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fitted, list[str], set[str]]:
    """A model, what was logged, and what was left on the server."""
    lines: list[str] = []
    before = keys_on_the_server()
    folder = tmp_path_factory.mktemp("fit")
    result = framework.fit(training_data(BINARY, (0, 1)), QUICK, environment(folder, lines))
    for file in folder.iterdir():
        file.unlink()
    return result, lines, keys_on_the_server() - before


class TestFit:
    def test_it_tells_how_it_goes(self, fitted: tuple[Fitted, list[str], set[str]]) -> None:
        _, lines, _ = fitted
        assert len(lines) == 4
        assert not any("@" in line for line in lines), "the url without user and password"
        assert lines[1].startswith("H2O AutoML: model 1 is G")
        assert "best auc 0." in lines[-1]

    def test_nothing_is_left_on_the_server(self, fitted: tuple[Fitted, list[str], set[str]]) -> None:
        assert fitted[2] == set()

    def test_what_it_reports(self, fitted: tuple[Fitted, list[str], set[str]]) -> None:
        result = fitted[0]
        assert {"cv_auc", "cv_logloss", "cv_aucpr"} <= set(result.metrics)
        assert 0.6 < result.metrics["cv_auc"] <= 1
        assert set(result.importances) == {"tenure", "plan"}
        assert sum(result.importances.values()) == pytest.approx(1)
        assert next(iter(result.importances)) == "tenure"
        header, *rows = result.tables["leaderboard.csv"].splitlines()
        assert header.startswith("model_id,auc,")
        assert len(rows) == 3
        assert result.parameters["leader_model_id"] == rows[0].split(",")[0]
        assert result.parameters["leader_algorithm"] in ("GBM", "GLM", "StackedEnsemble")
        assert result.parameters["max_models"] == 2
        assert result.parameters["seed"] == 42
        assert result.reproducible

    def test_the_model_is_one_file_that_scores_alike(
        self, fitted: tuple[Fitted, list[str], set[str]], tmp_path: Path
    ) -> None:
        features = training_data(BINARY, (0, 1)).features
        fitted[0].estimator.save(tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ["model.zip"]
        scores = fitted[0].estimator.predict(features)
        assert scores.shape == (ROWS, 2)
        np.testing.assert_allclose(scores.sum(axis=1), 1)
        np.testing.assert_array_equal(framework.load(tmp_path).predict(features), scores)

    def test_the_same_data_give_the_same_model(
        self, fitted: tuple[Fitted, list[str], set[str]], tmp_path: Path
    ) -> None:
        data = training_data(BINARY, (0, 1))
        # Also on a server that has another number of threads.
        again = framework.fit(data, QUICK, environment(tmp_path, h2o_url=None, cpus=1))
        np.testing.assert_array_equal(
            again.estimator.predict(data.features), fitted[0].estimator.predict(data.features)
        )
        assert again.tables == fitted[0].tables
        assert sorted(path.name for path in tmp_path.iterdir()) == ["h2o.log", "model.zip"]

    def test_probabilities_come_in_the_order_of_the_classes(self, tmp_path: Path) -> None:
        # Neither the order of their text nor, from ten on, that of their numbers as text.
        classes = tuple(f"{12 - number}th" for number in range(12))
        data = training_data(MULTICLASS, classes)
        wide = TrainingData(data.features.assign(sign=data.target * 10.0), data.target, MULTICLASS, classes)
        result = framework.fit(
            wide, {"max_models": 1, "nfolds": 0, "include_algos": ["GBM"]}, environment(tmp_path)
        )
        scores = result.estimator.predict(wide.features)
        assert scores.shape == (ROWS, 12)
        assert np.corrcoef(scores @ np.arange(12), data.target)[0, 1] > 0.9
        assert "validation_logloss" in result.metrics

    def test_regression(self, tmp_path: Path) -> None:
        data = training_data("regression", ())
        config = {"max_models": 1, "nfolds": 2, "include_algos": ["GLM"], "sort_metric": "mae"}
        result = framework.fit(data, config, environment(tmp_path))
        scores = result.estimator.predict(data.features)
        assert scores.shape == (ROWS,)
        assert np.corrcoef(scores, data.target)[0, 1] > 0.6
        assert "cv_rmse" in result.metrics

    def test_all_settings_reach_h2o(self, tmp_path: Path) -> None:
        config = {
            "max_runtime_secs": 120,
            "max_runtime_secs_per_model": 60,
            "max_models": 1,
            "nfolds": 2,
            "balance_classes": True,
            "class_sampling_factors": [1.0, 1.5],
            "max_after_balance_size": 2.0,
            "exclude_algos": ["XGBoost", "DRF", "GLM", "StackedEnsemble"],
            "stopping_metric": "logloss",
            "stopping_rounds": 2,
            "stopping_tolerance": 0.01,
            "exploitation_ratio": 0.0,
            "monotone_constraints": {"tenure": 1},
        }
        result = framework.fit(training_data(BINARY, (0, 1)), config, environment(tmp_path))
        assert not result.reproducible
        assert result.parameters["leader_algorithm"] == "GBM"
        tenures = pd.DataFrame({"tenure": np.arange(70), "plan": "gold"})
        assert (np.diff(result.estimator.predict(tenures)[:, 1]) >= 0).all()


class TestTrouble:
    def test_data_that_cannot_be_learned(self, tmp_path: Path) -> None:
        data = training_data(BINARY, (0, 1))
        one = TrainingData(data.features, np.zeros(ROWS, dtype=int), BINARY, (0, 1))
        with pytest.raises(FrameworkError, match="no row is of class 1, of 500"):
            framework.fit(one, QUICK, environment(tmp_path))
        named = TrainingData(
            data.features.rename(columns={"plan": 'the "plan"'}), data.target, BINARY, (0, 1)
        )
        with pytest.raises(FrameworkError, match=r"column 'the \"plan\"'.*rename"):
            framework.fit(named, QUICK, environment(tmp_path))
        constant = TrainingData(data.features[["constant", "empty"]], data.target, BINARY, (0, 1))
        before = keys_on_the_server()
        with pytest.raises(FrameworkError, match="H2O AutoML built no model"):
            framework.fit(constant, QUICK, environment(tmp_path))
        assert keys_on_the_server() == before

    def test_a_server_that_is_not_there(self, tmp_path: Path) -> None:
        away = "http://somebody:canary@127.0.0.1:9"
        with pytest.raises(FrameworkError, match=r"H2O at http://127\.0\.0\.1:9 cannot be reached") as caught:
            framework.fit(training_data(BINARY, (0, 1)), QUICK, environment(tmp_path, h2o_url=away))
        assert "canary" not in str(caught.value)
        with pytest.raises(FrameworkError, match="write it like"):
            framework.check("localhost:54321")

    def test_a_server_of_another_kind(self) -> None:
        with other_server() as url, pytest.raises(FrameworkError, match="is no H2O server"):
            framework.check(url)

    def test_a_server_of_another_version(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mlplatform.io.plugins.frameworks.h2o_automl.h2o_version", lambda: "3.46.0.9")
        with pytest.raises(FrameworkError, match=r"version 3\.46\.0\.11, and h2o here is 3\.46\.0\.9"):
            framework.fit(training_data(BINARY, (0, 1)), QUICK, environment(tmp_path))

    def test_interrupted_training_leaves_nothing_on_the_server(self, tmp_path: Path) -> None:
        before = keys_on_the_server()

        def interrupt(line: str) -> None:
            if "model 1" in line:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            framework.fit(
                training_data(BINARY, (0, 1)),
                {**QUICK, "max_models": 50},
                TrainingEnvironment(interrupt, tmp_path, shared_server().url),
            )
        assert keys_on_the_server() == before

    def test_h2o_that_dies_in_mid_training(self, tmp_path: Path) -> None:
        before = set(descendants(os.getpid()))

        def kill(line: str) -> None:
            if "model 1" in line:
                new = set(descendants(os.getpid())) - before
                (java,) = (pid for pid in new if program(pid) == "java")
                os.kill(java, signal.SIGKILL)

        with pytest.raises(FrameworkError, match=r"killed by SIGKILL.*memory.*last lines:\n") as caught:
            framework.fit(
                training_data(BINARY, (0, 1)),
                {**QUICK, "max_models": 50},
                TrainingEnvironment(kill, tmp_path, cpus=1),
            )
        # Java may have stopped in the middle of a table: the message ends with whatever it wrote last.
        *_, last = filter(None, map(str.strip, (tmp_path / "h2o.log").read_text().splitlines()))
        assert last in str(caught.value)
        # What failed afterwards, since the server was dead, does not tell the log again.
        assert last not in "".join(caught.value.__notes__)
        assert eventually(lambda: not any(lives(pid) for pid in set(descendants(os.getpid())) - before))
        assert [path.name for path in tmp_path.iterdir()] == ["h2o.log"]

    def test_debug_says_what_there_is(self) -> None:
        assert "3.46.0.11" in framework.check(None)
        assert "answers" in framework.check(shared_server().url)


@contextmanager
def other_server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html></html>")

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
