"""What a step is given beside its inputs, and what it reports beside its outputs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from weakref import finalize

from mlplatform.domain.batch.manifest import Manifest
from mlplatform.domain.batch.pipeline import Pipeline
from mlplatform.errors import PlatformError
from mlplatform.io.pipelines.target_plugins import TargetPlugins
from mlplatform.io.plugins.model_registries import ModelRegistry, Plot
from mlplatform.io.signing import Signer


class StepFailed(PlatformError):
    """A step cannot go on; the message says why and the remedy."""


@dataclass(frozen=True)
class CheckOutcome:
    """`warning` says that one which did not pass hinders nothing, blocking or not."""

    passed: bool
    description: str
    figures: Mapping[str, float | int | str] = field(default_factory=dict)
    warning: bool = False


@dataclass
class Report:
    """What is worth knowing of a step: outcomes of its checks by name, figures and plots by artefact."""

    checks: dict[str, CheckOutcome] = field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    plots: dict[str, list[Plot]] = field(default_factory=dict)

    def check(
        self,
        name: str,
        passed: bool,
        description: str,
        figures: Mapping[str, float | int | str] | None = None,
        warning: bool = False,
    ) -> None:
        self.checks[name] = CheckOutcome(bool(passed), description, figures or {}, warning)

    def tell(self, artefact: str, **figures: Any) -> None:
        self.figures.setdefault(artefact, {}).update(figures)


@dataclass
class StepContext:
    """`run_id` is the identity of the run: that of its first attempt, when it is executed again.

    To be used in a `with` block, at whose end its folders go away.
    """

    manifest: Manifest
    plugins: TargetPlugins
    run_id: str
    log: Callable[[str], None]
    report: Report = field(default_factory=Report)
    _folders: list[finalize] = field(default_factory=list, init=False, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for remove in self._folders:
            remove()

    def folder(self) -> Path:
        """A new empty folder, for an output that is saved after the step's function has returned."""
        folder = tempfile.mkdtemp(prefix="mlplatform-")
        # Dagster does not resume a step whose output cannot be saved: then it goes with the context.
        self._folders.append(finalize(self, shutil.rmtree, folder, ignore_errors=True))
        return Path(folder)

    @property
    def pipeline(self) -> Pipeline:
        return self.manifest.pipeline

    @cached_property
    def registry(self) -> ModelRegistry:
        serving = self.pipeline.serving
        return self.plugins.registry(serving.model_source.registry if serving else "mlflow")

    @property
    def signer(self) -> Signer:
        return Signer.from_settings(self.plugins.settings)
