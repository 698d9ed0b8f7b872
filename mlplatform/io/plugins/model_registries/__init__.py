"""Where trained models are tracked and served from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    import pandas as pd


class RegistryError(PlatformError):
    """The registry cannot be used, or has no such model; the message says which and the remedy."""


@dataclass(frozen=True)
class Plot:
    """A figure as SVG text, under the file name that the registry shows."""

    name: str
    svg: str


@dataclass(frozen=True)
class TrackedRun:
    """All that is told of one training. `key` makes logging idempotent: a second `log` of the same key
    gives the first one's run. `model` is the folder of a model bundle, `example` some rows of what it takes,
    `prediction` the columns of what it gives (rows are not asked for).
    """

    key: str
    experiment: str
    model_name: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    plots: list[Plot]
    tables: Mapping[str, str]
    model: Path
    example: pd.DataFrame
    prediction: pd.DataFrame
    dataset: str
    dataset_digest: str
    requirements: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Registered:
    """`url` is where a person looks at the run; empty if there is no server."""

    run_id: str
    version: str
    url: str = ""


class ModelRegistry(Protocol):
    """Made as `Registry(tracking, settings, root)`, `tracking` being the profile's `mlflow` block with its
    secrets revealed.
    """

    def log(self, run: TrackedRun) -> Registered:
        """Tracks the run and registers its model as a new version with the alias `challenger`. A failure in
        between leaves no run that looks finished. Raises RegistryError.
        """
        ...

    def promote(self, model_name: str, version: str) -> None:
        """Gives the alias `champion` to the version. Raises RegistryError."""
        ...

    def champion(self, model_name: str) -> Registered | None:
        """The version that has the alias `champion`; None if none has. Raises RegistryError."""
        ...

    def resolve(self, model_name: str, run_id: str) -> Registered:
        """The model of a run, `run_id` being its id or `champion`. Raises RegistryError."""
        ...

    def fetch(self, model: Registered, directory: Path) -> Path:
        """Downloads the model's bundle and returns its folder. Raises RegistryError."""
        ...

    def check(self) -> str:
        """Where it is, in a line; raises RegistryError unless it answers (`mlplatform debug`)."""
        ...
