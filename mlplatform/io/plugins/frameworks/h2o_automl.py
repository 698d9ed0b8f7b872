"""H2O AutoML: trains on a server, a remote one or one of our own; scores from the MOJO, without any."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mlplatform.domain.batch.pipeline import ProblemType
from mlplatform.io.h2o.automl import AutoMLRun, short_name
from mlplatform.io.h2o.client import H2OClient
from mlplatform.io.h2o.columns import categories, is_category, numbers
from mlplatform.io.h2o.java import h2o_version, jar, java
from mlplatform.io.h2o.mojo import Mojo
from mlplatform.io.h2o.server import running_server
from mlplatform.io.plugins.frameworks import (
    Fitted,
    FrameworkError,
    InvalidConfig,
    TrainingData,
    TrainingEnvironment,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

MODEL_FILE = "model.zip"

ALGORITHMS = ("DRF", "GLM", "XGBoost", "GBM", "DeepLearning", "StackedEnsemble")
SORT_METRICS: Mapping[ProblemType, tuple[str, ...]] = {
    "binary_classification": ("AUTO", "AUC", "AUCPR", "logloss", "mean_per_class_error", "RMSE", "MSE"),
    # H2O can compute an AUC of several classes, but AutoML does not.
    "multiclass_classification": ("AUTO", "logloss", "mean_per_class_error", "RMSE", "MSE"),
    "regression": ("AUTO", "deviance", "RMSE", "MSE", "MAE", "RMSLE"),
}
STOPPING_METRICS: Mapping[ProblemType, tuple[str, ...]] = {
    "binary_classification": (*SORT_METRICS["binary_classification"], "misclassification", "lift_top_group"),
    "multiclass_classification": (*SORT_METRICS["multiclass_classification"], "misclassification"),
    "regression": SORT_METRICS["regression"],
}
DEFAULTS: Mapping[str, Any] = {
    "max_models": 20,
    "sort_metric": "AUTO",
    "seed": 42,
    "nfolds": 5,
    "balance_classes": False,
}
EVERYTHING_GOES = "has no effect: what training leaves on the H2O server is removed"
WITHOUT_EFFECT = {
    "keep_cross_validation_predictions": EVERYTHING_GOES,
    "keep_cross_validation_models": EVERYTHING_GOES,
    "keep_cross_validation_fold_assignment": EVERYTHING_GOES,
    "project_name": "has no effect: each run has a name of its own, and its model is in the model registry",
    "verbosity": "has no effect: a line is logged for each model",
}


def _integer(least: int, *besides: int) -> Callable[[Any], str | None]:
    def problem(value: Any) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool) and (value >= least or value in besides):
            return None
        others = "".join(f"{other} or " for other in besides)
        return f"must be {others}an integer from {least} on"

    return problem


def _number(above: float) -> Callable[[Any], str | None]:
    def problem(value: Any) -> str | None:
        if isinstance(value, int | float) and not isinstance(value, bool) and value > above:
            return None
        return f"must be a number greater than {above:g}"

    return problem


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _ratio(value: Any) -> str | None:
    right = _number(-1)(value) is None and 0 <= value <= 1
    return None if right or value == -1 else "must be -1 (H2O chooses) or a number from 0 to 1"


def _factors(value: Any) -> str | None:
    right = isinstance(value, list) and all(_number(0)(factor) is None for factor in value)
    return None if right else "must be a list of positive numbers, one for each class"


def _constraints(value: Any) -> str | None:
    right = isinstance(value, dict) and all(direction in (-1, 1) for direction in value.values())
    return None if right else "must give columns the value 1 (the score grows with them) or -1 (it falls)"


def _algorithms(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"must be a list of {', '.join(ALGORITHMS)}"
    for name in value:
        if name not in ALGORITHMS:
            return f"{name!r} is none of {', '.join(ALGORITHMS)}{_hint(name, ALGORITHMS)}"
    return None


CHECKS: Mapping[str, Callable[[Any], str | None]] = {
    "max_models": _integer(1),
    "max_runtime_secs": _number(0),
    "max_runtime_secs_per_model": _number(0),
    "seed": _integer(0, -1),
    "nfolds": _integer(2, 0),
    "balance_classes": _boolean,
    "class_sampling_factors": _factors,
    "max_after_balance_size": _number(0),
    "include_algos": _algorithms,
    "exclude_algos": _algorithms,
    "stopping_rounds": _integer(0),
    "stopping_tolerance": _number(0),
    "exploitation_ratio": _ratio,
    "monotone_constraints": _constraints,
}
TIME_LIMITS = ("max_runtime_secs", "max_runtime_secs_per_model")
STOPPING_CRITERIA = (*TIME_LIMITS, "max_models", "seed", "stopping_rounds", "stopping_tolerance")
CONTROL = ("nfolds", "balance_classes", "class_sampling_factors", "max_after_balance_size")
# Neither H2O's interface nor the MOJO's list of columns knows escapes.
UPLOADABLE = re.compile(r"[^\s\"\\\[\]](?:[^\n\r\t\"\\]*[^\s\"\\])?")
KEYS = (*CHECKS, "sort_metric", "stopping_metric", *WITHOUT_EFFECT)


class H2OEstimator:
    """A model as MOJO; the file may go once it was read."""

    def __init__(self, file: Path) -> None:
        self._mojo = Mojo(file)
        self._content = file.read_bytes()

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        return self._mojo.score(features)

    def save(self, directory: Path) -> None:
        (directory / MODEL_FILE).write_bytes(self._content)


class H2OAutoMLFramework:
    name = "h2o_automl"
    # Whose classes read the MOJO, in which other versions of it can be, too.
    libraries = ("h2o",)
    needs_numbers = False

    def validate(self, config: Mapping[str, Any], problem_type: ProblemType) -> list[str]:
        """Warns if two runs on the same data may give two models: by a limit of time, a random seed, or an
        algorithm that is not deterministic.
        """
        problems: list[tuple[tuple[str | int, ...], str]] = []
        for key, value in config.items():
            if key not in KEYS:
                there = ", ".join(KEYS)
                problems.append(((key,), f"unknown key {key!r}{_hint(key, KEYS)}; there are {there}"))
            elif key in CHECKS and (problem := CHECKS[key](value)):
                problems.append(((key,), f"{key}: {value!r} {problem}"))
        for key, allowed in (("sort_metric", SORT_METRICS), ("stopping_metric", STOPPING_METRICS)):
            if key in config and _metric(config[key], allowed[problem_type]) is None:
                there = ", ".join(allowed[problem_type])
                problems.append(((key,), f"{key}: {config[key]!r} is none of {there}, as for {problem_type}"))
        if "include_algos" in config and "exclude_algos" in config:
            problems.append((("exclude_algos",), "exclude_algos: leave it out beside include_algos"))
        if problems:
            raise InvalidConfig(problems)
        return [
            *(f"{key} {why}" for key, why in WITHOUT_EFFECT.items() if key in config),
            *(f"{reason}: a run is not reproducible" for reason in _chances(config)),
        ]

    def fit(self, data: TrainingData, config: Mapping[str, Any], environment: TrainingEnvironment) -> Fitted:
        """Trains all that `config` allows, and keeps the leader.

        `reproducible` is False as soon as a limit of time is given, also if it was not reached: H2O shares
        that time out among the models, and any of them may have stopped early.
        """
        self.validate(config, data.problem_type)
        table, response = to_table(data)
        mojo = environment.workdir / MODEL_FILE
        with _server(environment) as client, AutoMLRun(client, environment.log) as run:
            frame = run.upload(table, environment.workdir)
            result = run.train(frame, response, _build(config, data.problem_type))
            leader = result.leaderboard[0]
            run.download_mojo(leader["model_id"], mojo)
        for row in result.leaderboard:
            row.pop("", None)  # a number of the row
            row["model_id"] = short_name(row["model_id"])
        source = "cv" if config.get("nfolds", DEFAULTS["nfolds"]) else "validation"
        metrics = {name: float(value) for name, value in leader.items() if isinstance(value, int | float)}
        return Fitted(
            H2OEstimator(mojo),
            metrics={f"{source}_{name}": value for name, value in metrics.items()},
            importances=_by_feature(result.importances, list(data.features.columns)),
            parameters={
                **DEFAULTS,
                **config,
                "leader_algorithm": leader["algo"],
                "leader_model_id": leader["model_id"],
                "importances_of": result.importances_of and short_name(result.importances_of),
                "h2o_version": h2o_version(),
            },
            tables={"leaderboard.csv": _csv(result.leaderboard)},
            reproducible=not _chances(config),
        )

    def load(self, directory: Path) -> H2OEstimator:
        return H2OEstimator(directory / MODEL_FILE)

    def check(self, h2o_url: str | None) -> str:
        if h2o_url is None:
            jar()
            return f"h2o {h2o_version()}, a server of our own for each training (Java: {java()})"
        with H2OClient(h2o_url) as client:
            _same_version(client)
            return f"h2o {h2o_version()}, the server at {client.url} answers"


def _hint(name: Any, names: Sequence[str]) -> str:
    # Nobody remembers the case of H2O's names.
    lower = {one.lower(): one for one in names}
    near = get_close_matches(str(name).lower(), lower, 1)
    return f", did you mean {lower[near[0]]}?" if near else ""


def _metric(given: Any, allowed: Sequence[str]) -> str | None:
    """As H2O writes it."""
    return {one.lower(): one for one in allowed}.get(str(given).lower())


def _chances(config: Mapping[str, Any]) -> list[str]:
    """Why two runs on the same data may differ."""
    found = [f"{key} stops training by the clock" for key in TIME_LIMITS if key in config]
    if config.get("seed") == -1:
        found.append("seed -1 is another number each time")
    if "DeepLearning" in config.get("include_algos", ()):
        found.append("DeepLearning depends on which thread comes first")
    return found


def _build(config: Mapping[str, Any], problem_type: ProblemType) -> dict[str, dict[str, Any]]:
    """H2O's AutoMLBuilder."""
    settings = {**DEFAULTS, **config}
    criteria = {name: settings[name] for name in STOPPING_CRITERIA if name in settings}
    if "stopping_metric" in settings:
        criteria["stopping_metric"] = _metric(settings["stopping_metric"], STOPPING_METRICS[problem_type])
    # Zero is no limit; left out beside nothing else, H2O would choose an hour.
    criteria.setdefault("max_runtime_secs", 0)
    control = {name: settings[name] for name in CONTROL if name in settings}
    models = {name: settings[name] for name in ("include_algos", "exploitation_ratio") if name in settings}
    if "include_algos" not in settings:
        models["exclude_algos"] = sorted({*settings.get("exclude_algos", ()), "DeepLearning"})
    if constraints := settings.get("monotone_constraints"):
        models["algo_parameters"] = [
            {
                "scope": "any",
                "name": "monotone_constraints",
                "value": [{"key": column, "value": way} for column, way in constraints.items()],
            }
        ]
    return {
        "build_control": {**control, "stopping_criteria": criteria},
        "build_models": models,
        "input_spec": {"sort_metric": _metric(settings["sort_metric"], SORT_METRICS[problem_type])},
    }


def to_table(data: TrainingData) -> tuple[pa.Table, str]:
    """Features and the response, and the latter's name.

    Classes are their numbers, with zeros in front: H2O sorts levels as text, and probabilities come in that
    order.
    """
    import numpy as np
    import pyarrow as pa

    columns: dict[str, pa.Array] = {}
    for name in data.features.columns:
        if not UPLOADABLE.fullmatch(str(name)):
            raise FrameworkError(
                f"column {name!r}: H2O's files cannot hold such a name; rename it, "
                "without quotes, backslashes, tabs, line ends, a bracket at the start, and blanks around it"
            )
        column = cast("pd.Series", data.features[name])
        if is_category(column):
            codes, levels = categories(column)
            columns[name] = pa.array(levels, pa.string()).take(pa.array(codes, pa.int64(), mask=codes < 0))
        else:
            columns[name] = pa.array(numbers(column))
    response = "target"
    while response in columns:
        response += "_"
    if data.classes:
        counts = np.bincount(data.target.astype(np.int64), minlength=len(data.classes))
        if empty := [str(one) for one, count in zip(data.classes, counts, strict=True) if count == 0]:
            raise FrameworkError(
                f"no row is of class {', '.join(empty)}, of {len(data.target)}: "
                "train on data that have all classes, or take it out of target.classes"
            )
        if len(data.classes) < 2:
            raise FrameworkError("there is one class only, and nothing to tell apart: check target.classes")
        digits = len(str(len(data.classes) - 1))
        columns[response] = pa.array([f"{int(number):0{digits}d}" for number in data.target], pa.string())
    else:
        columns[response] = pa.array(np.asarray(data.target, dtype=float))
    return pa.table(columns), response


@contextmanager
def _server(environment: TrainingEnvironment) -> Iterator[H2OClient]:
    if environment.h2o_url is not None:
        with H2OClient(environment.h2o_url) as client:
            _same_version(client)
            environment.log(f"H2O AutoML: on the server at {client.url}")
            yield client
    else:
        environment.log(f"H2O AutoML: starting a server of our own, {environment.cpus} CPUs")
        with (
            running_server(environment.workdir, environment.cpus, environment.memory_bytes) as server,
            H2OClient(server.url, server.ended) as client,
        ):
            yield client


def _same_version(client: H2OClient) -> None:
    ours, theirs = h2o_version(), client.version()
    if ours != theirs:
        raise FrameworkError(
            f"the H2O server at {client.url} is version {theirs}, and h2o here is {ours}: "
            f"run {ours} there (3.46.0.12 and later do not export MOJOs), or point h2o.url elsewhere"
        )


def _by_feature(importances: Mapping[str, float], features: Sequence[str]) -> dict[str, float]:
    """Sums those of a category's levels, which H2O calls `column.level`; greatest first."""
    names = sorted(map(str, features), key=len, reverse=True)
    sums: dict[str, float] = {}
    for variable, share in importances.items():
        feature = variable if variable in names else None
        feature = feature or next((name for name in names if variable.startswith(f"{name}.")), variable)
        sums[feature] = sums.get(feature, 0.0) + float(share)
    return dict(sorted(sums.items(), key=lambda pair: -pair[1]))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
