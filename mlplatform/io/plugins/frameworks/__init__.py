"""What trains models and scores with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlplatform.domain.batch.pipeline import ProblemType
from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class FrameworkError(PlatformError):
    """Training or scoring failed; the message says what and the remedy."""


class InvalidConfig(Exception):
    """`problems` are pairs of a path below `model_training.config` (`()` for all of it) and a message."""

    def __init__(self, problems: Sequence[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__("; ".join(message for _, message in problems))
        self.problems = problems


@dataclass(frozen=True)
class TrainingData:
    """`features` (n rows, mixed types, missing values allowed) and `target` (n values: class numbers 0 to
    k - 1 in the order of `classes`, or numbers when `classes` is empty: regression).
    """

    features: pd.DataFrame
    target: np.ndarray
    problem_type: ProblemType
    classes: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class TrainingEnvironment:
    """What training may use: `log` takes lines of progress, `h2o_url` a running cluster, `cpus` and
    `memory_bytes` bound a JVM of our own, `workdir` is an empty folder that goes away afterwards.
    """

    log: Callable[[str], None]
    workdir: Path
    h2o_url: str | None = None
    cpus: int = 2
    memory_bytes: int = 2 * 1024**3


class Estimator(Protocol):
    """A fitted model of one framework."""

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """(n, k) probabilities of the classes, or (n,) numbers for regression; the same rows give the same
        numbers however they are cut into frames. Raises FrameworkError.
        """
        ...

    def save(self, directory: Path) -> None:
        """Files that `load` of the framework reads, none of them a pickle."""
        ...


@dataclass(frozen=True)
class Fitted:
    """`metrics` of training (cross-validated where the framework does), `importances` by feature, `tables` of
    text worth a look (a leaderboard as CSV, by file name), and whether the same data gives the same model.
    """

    estimator: Estimator
    metrics: Mapping[str, float] = field(default_factory=dict)
    importances: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    reproducible: bool = True


class Framework(Protocol):
    """Made without arguments. Importing its module imports no heavy library."""

    name: str
    # Libraries by which a saved estimator must be read again, and so kept with its versions.
    libraries: tuple[str, ...]
    # False: categories and missing values are the framework's own affair.
    needs_numbers: bool

    def validate(self, config: Mapping[str, Any], problem_type: ProblemType) -> list[str]:
        """Warnings; raises InvalidConfig. Imports nothing heavy."""
        ...

    def fit(self, data: TrainingData, config: Mapping[str, Any], environment: TrainingEnvironment) -> Fitted:
        """Raises FrameworkError."""
        ...

    def load(self, directory: Path) -> Estimator:
        """The estimator that `save` wrote. Raises FrameworkError."""
        ...

    def check(self, h2o_url: str | None) -> str:
        """What is installed and reachable, in a line; raises FrameworkError with the remedy (`debug`)."""
        ...
