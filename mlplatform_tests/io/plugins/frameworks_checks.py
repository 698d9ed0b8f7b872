"""What every framework must be able to do: run each of CHECKS on yours.

    @pytest.fixture(scope="module")
    def subject(tmp_path_factory):
        yield Subject(MyFramework(), {"regression": {...}, ...}, tmp_path_factory.mktemp("my"))

    @pytest.mark.parametrize("check", CHECKS)
    def test_my_framework(check, subject):
        CHECKS[check](subject)

A subject trains each problem type that it has a configuration for at most twice, however many checks ask.
"""

from __future__ import annotations

import io
import json
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform.domain.batch.pipeline import ProblemType
from mlplatform.domain.batch.transforms import Preparation
from mlplatform.io.plugins.frameworks import (
    Fitted,
    Framework,
    FrameworkError,
    InvalidConfig,
    TrainingData,
    TrainingEnvironment,
)

ROWS = 300
CLASSES: dict[ProblemType, tuple[int | str, ...]] = {
    # Not in the order of the alphabet, which a framework may prefer.
    "binary_classification": ("stays", "leaves"),
    "multiclass_classification": ("low", "high", "middle"),
    "regression": (),
}


def table(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """A column of each type that a table may have; `signal` and `plan` say something of the target."""
    random = np.random.default_rng(seed)
    signal = random.normal(size=rows)
    gaps = random.random(rows) < 0.1
    return pd.DataFrame(
        {
            "signal": signal,
            "count": random.integers(0, 50, rows),
            "amount": np.where(gaps, np.nan, random.gamma(2.0, 30.0, rows)),
            "whole": pd.array(np.where(gaps, 0, random.integers(0, 9, rows)), dtype="Int64"),
            "active": random.random(rows) < 0.5,
            "plan": np.where(signal + random.normal(size=rows) > 0, "monthly", "yearly"),
            "region": pd.Categorical(random.choice(["north", "south", "west"], rows)),
            "note": np.where(gaps, None, random.choice(["a", "b"], rows)),
            "since": pd.Timestamp("2024-01-01") + pd.to_timedelta(random.integers(0, 700, rows), "D"),
        }
    )


def target_of(frame: pd.DataFrame, problem_type: ProblemType, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    plan = (frame["plan"] == "monthly").to_numpy()
    value = frame["signal"].to_numpy() + 0.5 * plan + 0.3 * random.normal(size=len(frame))
    if problem_type == "regression":
        return 100 + 20 * value
    if problem_type == "binary_classification":
        return (value > 0.2).astype(np.int64)
    # The second class has the highest values, the third those between.
    return np.array([0, 2, 1])[np.digitize(value, [-0.4, 0.7])]


@dataclass
class Trained:
    """`given` is the table, `features` the same as the framework gets it."""

    given: pd.DataFrame
    preparation: Preparation
    data: TrainingData
    fitted: Fitted

    @cached_property
    def features(self) -> pd.DataFrame:
        return self.data.features

    @cached_property
    def scores(self) -> np.ndarray:
        return self.fitted.estimator.predict(self.features)


@dataclass
class Subject:
    """A framework with a valid configuration for each problem type that it is checked for."""

    framework: Framework
    configs: Mapping[ProblemType, Mapping[str, Any]]
    directory: Path
    h2o_url: str | None = None
    lines: list[str] = field(default_factory=list)
    _trained: dict[ProblemType, Trained] = field(default_factory=dict)

    @property
    def problem_types(self) -> list[ProblemType]:
        return list(self.configs)

    def environment(self) -> TrainingEnvironment:
        workdir = self.directory / f"work{len(list(self.directory.iterdir()))}"
        workdir.mkdir()
        return TrainingEnvironment(self.lines.append, workdir, self.h2o_url)

    def fit(self, data: TrainingData) -> Fitted:
        return self.framework.fit(data, self.configs[data.problem_type], self.environment())

    def trained(self, problem_type: ProblemType) -> Trained:
        if problem_type not in self._trained:
            given = table()
            target = target_of(given, problem_type)
            preparation = Preparation.fit(given, target, numbers_only=self.framework.needs_numbers)
            features = preparation.apply(given).features
            data = TrainingData(features, target, problem_type, CLASSES[problem_type])
            self._trained[problem_type] = Trained(given, preparation, data, self.fit(data))
        return self._trained[problem_type]

    def reloaded(self, problem_type: ProblemType) -> tuple[Any, Path]:
        """The estimator as it comes back from its files, and their folder."""
        directory = self.directory / f"saved-{problem_type}"
        if not directory.exists():
            directory.mkdir()
            self.trained(problem_type).fitted.estimator.save(directory)
        return self.framework.load(directory), directory


def accepts_its_configuration(subject: Subject) -> None:
    for problem_type, config in subject.configs.items():
        assert isinstance(subject.framework.validate(config, problem_type), list)


def refuses_unknown_settings_by_their_nearest_name(subject: Subject) -> None:
    for problem_type, config in subject.configs.items():
        for key in config:
            if key == "model":
                continue
            typo = key[:-1] + key[-1] * 2
            with pytest.raises(InvalidConfig) as refused:
                subject.framework.validate({**config, typo: config[key]}, problem_type)
            assert (typo,) in [path for path, _ in refused.value.problems]
            assert key in str(refused.value)


def tells_all_that_is_wrong_at_once(subject: Subject) -> None:
    for problem_type, config in subject.configs.items():
        with pytest.raises(InvalidConfig) as refused:
            subject.framework.validate({**config, "first_wrong": 1, "second_wrong": 2}, problem_type)
        paths = {path for path, _ in refused.value.problems}
        assert paths >= {("first_wrong",), ("second_wrong",)}


def gives_probabilities_in_the_order_of_the_classes(subject: Subject) -> None:
    for problem_type in subject.problem_types:
        if problem_type == "regression":
            continue
        trained = subject.trained(problem_type)
        assert trained.scores.shape == (ROWS, len(CLASSES[problem_type]))
        assert (trained.scores >= 0).all()
        assert np.abs(trained.scores.sum(axis=1) - 1).max() < 1e-9
        assert (trained.scores.argmax(axis=1) == trained.data.target).mean() > 0.7


def gives_numbers_for_regression(subject: Subject) -> None:
    if "regression" not in subject.problem_types:
        return
    trained = subject.trained("regression")
    assert trained.scores.shape == (ROWS,)
    assert np.corrcoef(trained.scores, trained.data.target)[0, 1] > 0.7


def says_the_same_in_any_chunks(subject: Subject) -> None:
    """Bit for bit: a table that is scored in other chunks has the same scores."""
    for problem_type in subject.problem_types:
        trained = subject.trained(problem_type)
        for size in (1, 7, 128):
            chunks = [trained.features.iloc[start : start + size] for start in range(0, 128, size)]
            scores = np.concatenate([trained.fitted.estimator.predict(chunk) for chunk in chunks])
            assert scores.tobytes() == trained.scores[: len(scores)].tobytes(), (problem_type, size)


def does_not_mind_how_rows_are_ordered_and_named(subject: Subject) -> None:
    for problem_type in subject.problem_types:
        trained = subject.trained(problem_type)
        order = np.random.default_rng(1).permutation(ROWS)
        shuffled = trained.features.iloc[order].set_axis([f"row {n}" for n in order], axis=0)
        assert np.array_equal(trained.fitted.estimator.predict(shuffled), trained.scores[order])


def says_the_same_after_it_was_saved(subject: Subject) -> None:
    for problem_type in subject.problem_types:
        trained = subject.trained(problem_type)
        estimator, _ = subject.reloaded(problem_type)
        again = estimator.predict(trained.features)
        # What trained may have been another program than what scores.
        assert np.allclose(again, trained.scores, rtol=1e-9, atol=1e-9)
        assert estimator.predict(trained.features).tobytes() == again.tobytes()


def keeps_no_pickles(subject: Subject) -> None:
    for problem_type in subject.problem_types:
        _, directory = subject.reloaded(problem_type)
        files = {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        assert files
        for name, content in files.items():
            assert not _pickles(name, content)


def refuses_torn_files(subject: Subject) -> None:
    problem_type = subject.problem_types[0]
    _, directory = subject.reloaded(problem_type)
    torn = subject.directory / f"torn{len(list(subject.directory.iterdir()))}"
    torn.mkdir()
    for path in directory.iterdir():
        content = path.read_bytes()
        (torn / path.name).write_bytes(content[: len(content) // 2])
    with pytest.raises(FrameworkError):
        subject.framework.load(torn)
    empty = torn / "empty"
    empty.mkdir()
    with pytest.raises(FrameworkError):
        subject.framework.load(empty)


def scores_missing_values_and_unseen_texts(subject: Subject) -> None:
    for problem_type in subject.problem_types:
        trained = subject.trained(problem_type)
        strange = trained.given.head(20).astype({"region": object})
        strange.loc[:, ["plan", "region"]] = "unheard of"
        strange.loc[:10, ["signal", "amount", "whole", "note", "since"]] = None
        prepared = trained.preparation.apply(strange)
        assert prepared.unseen == {"plan": 20, "region": 20}
        scores = trained.fitted.estimator.predict(prepared.features)
        assert len(scores) == 20
        assert np.isfinite(scores).all()


def learns_the_same_again(subject: Subject) -> None:
    for problem_type in subject.problem_types:
        trained = subject.trained(problem_type)
        if not trained.fitted.reproducible:
            continue
        again = subject.fit(trained.data)
        assert np.array_equal(again.estimator.predict(trained.features), trained.scores), problem_type


def refuses_one_class_only(subject: Subject) -> None:
    for problem_type in subject.problem_types:
        if problem_type == "regression":
            continue
        data = subject.trained(problem_type).data
        only = TrainingData(data.features, np.zeros_like(data.target), problem_type, data.classes)
        with pytest.raises(FrameworkError, match="class"):
            subject.fit(only)


def tells_what_it_did(subject: Subject) -> None:
    for problem_type in subject.problem_types:
        trained = subject.trained(problem_type)
        fitted = trained.fitted
        assert subject.lines
        assert fitted.metrics
        assert all(np.isfinite(value) for value in fitted.metrics.values())
        assert set(fitted.importances) <= set(trained.features.columns)
        assert all(value >= 0 for value in fitted.importances.values())
        assert fitted.parameters
        json.dumps(dict(fitted.parameters), allow_nan=False)
        assert all(isinstance(text, str) for text in fitted.tables.values())


def tells_that_it_is_installed(subject: Subject) -> None:
    assert subject.framework.check(subject.h2o_url)


def _pickles(name: str, content: bytes) -> list[str]:
    """Names of the pickles in a file, and in the archives within it."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return [
                found
                for entry in archive.namelist()
                for found in _pickles(f"{name}/{entry}", archive.read(entry))
            ]
    if not content.startswith(b"\x80"):
        return []
    try:
        for _ in pickletools.genops(content):
            pass
    except ValueError:
        return []
    return [name]


Check = Callable[[Subject], None]
CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        accepts_its_configuration,
        refuses_unknown_settings_by_their_nearest_name,
        tells_all_that_is_wrong_at_once,
        gives_probabilities_in_the_order_of_the_classes,
        gives_numbers_for_regression,
        says_the_same_in_any_chunks,
        does_not_mind_how_rows_are_ordered_and_named,
        says_the_same_after_it_was_saved,
        keeps_no_pickles,
        refuses_torn_files,
        scores_missing_values_and_unseen_texts,
        learns_the_same_again,
        refuses_one_class_only,
        tells_what_it_did,
        tells_that_it_is_installed,
    )
}
