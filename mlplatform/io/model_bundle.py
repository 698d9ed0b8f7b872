"""A trained model as a signed folder: the estimator with all that must be done to a table before it.

model.json     what the model is, what it learned about the data, and where it comes from
estimator/     the framework's own files
lib/           the project's transforms, as they were when it was trained
SIGNATURE      HMAC of all of these; nothing of a bundle is used before it was verified
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.domain.batch import labels
from mlplatform.domain.batch.features import Feature, FeatureError
from mlplatform.domain.batch.pipeline import ProblemType, Training
from mlplatform.domain.batch.transforms import NOT_SELECTED, OwnTransform, Preparation, Prepared
from mlplatform.errors import PlatformError
from mlplatform.io.plugins import plugin
from mlplatform.io.plugins.frameworks import (
    Estimator,
    Fitted,
    Framework,
    FrameworkError,
    TrainingData,
    TrainingEnvironment,
)
from mlplatform.io.project_code import FOLDER, ProjectCode
from mlplatform.io.signing import Signer

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FORMAT = 1
CARD = "model.json"
ESTIMATOR = "estimator"
SIGNATURE = "SIGNATURE"
NO_CODE = ProjectCode({})
MOST_COLUMNS = 20
# Probabilities of a row may miss 1 by rounding.
_TOLERANCE = 1e-6


class BundleRefused(PlatformError):
    """A bundle cannot be trusted or read by these versions; the message says why and the remedy."""


class SignatureRefused(BundleRefused):
    """A bundle was changed, or signed with another key."""


@dataclass(frozen=True)
class Model:
    """A trained model with its fitted preprocessing.

    `classes` are in the order of the probabilities' columns and empty for regression; `positive` is the
    number of the class that a binary model looks for. `metrics`, `importances` (by feature, they sum to 1),
    `parameters` and `reproducible` are of the training, `reference` the histograms of its data against
    which drift is measured. `provenance` names what made it: data digest, code version, pipeline.
    """

    framework: str
    problem_type: ProblemType
    label_column: str
    classes: tuple[labels.Class, ...]
    positive: int
    preparation: Preparation
    estimator: Estimator
    code: ProjectCode = NO_CODE
    threshold: float = labels.THRESHOLD
    rows: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    importances: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    reproducible: bool = True
    reference: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    # Of the bundle that it was loaded from: which model it is.
    digest: str = ""
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def inputs(self) -> tuple[Feature, ...]:
        """The columns that a table to score must have."""
        return self.preparation.inputs

    @property
    def requirements(self) -> list[str]:
        """What must be installed to load the model, for pip."""
        return [f"{name}=={number}" for name, number in self.versions.items() if name != "python"]

    def prepare(self, frame: pd.DataFrame) -> Prepared:
        """What `score` takes, and which rows cannot be scored.

        Raises:
            FeatureError: columns are gone since training.
            TransformError: one of the project's transforms failed.
        """
        return self.preparation.apply(frame)

    def score(self, features: pd.DataFrame) -> np.ndarray:
        """(n, k) probabilities of the classes, or (n,) numbers for regression, of prepared features.

        Raises:
            FrameworkError: the estimator fails, or gives what is no probability.
        """
        import numpy as np

        shape = (len(features), len(self.classes)) if self.classes else (len(features),)
        if not len(features):
            return np.empty(shape)
        scores = self.estimator.predict(features)
        valid = scores.shape == shape and bool(np.isfinite(scores).all())
        if valid and self.classes:
            valid = bool((scores >= 0).all() and (abs(scores.sum(axis=1) - 1) < _TOLERANCE).all())
        if not valid:
            wanted = "probabilities" if self.classes else "finite numbers"
            raise FrameworkError(
                f"the {self.framework} model gave an array of shape {scores.shape} that holds no {wanted} of"
                f" {len(features):,} rows: train again"
            )
        return scores

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Both at once: as `score`, for a table.

        Raises:
            FeatureError: columns are gone, or rows cannot be scored.
            TransformError, FrameworkError: as above.
        """
        prepared = self.prepare(frame)
        if len(prepared.refused):
            raise FeatureError(
                f"{len(prepared.refused):,} rows cannot be scored, the first being row"
                f" {prepared.refused.index[0]}: {prepared.refused.iloc[0]}"
            )
        return self.score(prepared.features)

    def predictions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """As `predict`, as it is published: `prediction` and, of a classifier, `prediction_probability`."""
        import pandas as pd

        scores = self.predict(frame)
        columns = {"prediction": self.labels(scores)}
        if self.classes:
            columns["prediction_probability"] = self.probabilities(scores)
        return pd.DataFrame(columns)

    def labels(self, scores: np.ndarray) -> np.ndarray:
        """(n,) the classes that the scores speak for, as the label column has them."""
        return labels.labels(scores, self.classes, self.positive, self.threshold)

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """(n,) of the positive class if there are two classes, else of the likeliest."""
        return scores[:, self.positive] if len(self.classes) == 2 else scores.max(axis=1)

    def card(self) -> dict[str, Any]:
        """What `model.json` holds."""
        return {
            "format": FORMAT,
            "framework": self.framework,
            "problem_type": self.problem_type,
            "label_column": self.label_column,
            "classes": list(self.classes),
            "positive": self.positive,
            "threshold": self.threshold,
            "preparation": self.preparation.state(),
            "rows": self.rows,
            "metrics": dict(self.metrics),
            "importances": dict(self.importances),
            "parameters": dict(self.parameters),
            "tables": dict(self.tables),
            "reproducible": self.reproducible,
            "reference": dict(self.reference),
            "provenance": dict(self.provenance),
            "versions": dict(self.versions),
            "created_at": self.created_at,
        }

    def save(self, directory: Path, signer: Signer) -> None:
        """Writes the bundle into an empty or new folder.

        Raises:
            TransformError: what a transform learned cannot be kept.
            FrameworkError: the estimator cannot be saved.
        """
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise FileExistsError(f"{directory} is not empty: a model's bundle has a folder of its own")
        (directory / ESTIMATOR).mkdir()
        self.estimator.save(directory / ESTIMATOR)
        if self.preparation.transforms:
            self.code.write(directory / FOLDER)
        content = json.dumps(self.card(), indent=2, allow_nan=False, ensure_ascii=False)
        (directory / CARD).write_text(content + "\n", encoding="utf-8")
        (directory / SIGNATURE).write_text(signer.sign(_listing(directory)).hex() + "\n")


def feature_columns(columns: Sequence[str], training: Training) -> list[str]:
    """The columns that may be features: not the label, the keys, the ignored, nor a join's times."""
    schema = training.schema_
    times = [table.point_in_time for table in training.data_source.feature_tables if table.point_in_time]
    others = {
        schema.target.label_column,
        schema.identifiers.primary_key,
        schema.identifiers.partition_key,
        *schema.ignored_columns,
        *(name for time in times for name in (time.event_time, time.created_time, time.label_time)),
    }
    return [name for name in columns if name not in others]


def own_transforms(training: Training, code: ProjectCode) -> list[OwnTransform]:
    """The transforms of its own that a pipeline names, not yet fitted.

    Raises:
        ProjectCodeError, TransformError: one cannot be imported or made.
    """
    custom = training.preprocessing.custom if training.preprocessing else []
    return [OwnTransform.make(each.transform, each.config, code.load(each.transform)) for each in custom]


def fit_model(
    frame: pd.DataFrame,
    training: Training,
    problem_type: ProblemType,
    environment: TrainingEnvironment,
    code: ProjectCode = NO_CODE,
    selected: Sequence[str] | None = None,
    reference: Mapping[str, Any] | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Model:
    """Trains the pipeline's framework on n rows that hold the label.

    Args:
        selected: features to learn from, of those after preprocessing (None: all).

    Raises:
        LabelError: the label column cannot be learned (empty, one class only, unknown classes).
        FeatureError: no usable feature is there.
        TransformError, ProjectCodeError: a transform of the project fails.
        FrameworkError: training fails.
    """
    schema = training.schema_
    label = schema.target.label_column
    if label not in frame.columns:
        raise FeatureError(
            f"the table has no label column {label}; it has {', '.join(map(str, frame.columns))}"
        )
    column: Any = frame[label]
    classes = labels.classes_of(column, schema.target, problem_type)
    target = labels.numbers(column, classes)
    framework: Framework = plugin("frameworks", training.model_training.framework)()
    candidates: Any = frame[feature_columns(list(frame.columns), training)].reset_index(drop=True)
    preparation = Preparation.fit(
        candidates,
        target,
        training.preprocessing,
        own_transforms(training, code),
        selected,
        framework.needs_numbers,
    )
    prepared = preparation.apply(candidates)
    for line in told_columns("is not used: it", preparation.dropped):
        environment.log(line)
    if len(prepared.refused):
        environment.log(
            f"{len(prepared.refused):,} rows are not learned, the first because {prepared.refused.iloc[0]}"
        )
    data = TrainingData(prepared.features, target[prepared.features.index.to_numpy()], problem_type, classes)
    fitted = framework.fit(data, training.model_training.config, environment)
    return Model(
        framework=training.model_training.framework,
        problem_type=problem_type,
        label_column=label,
        classes=classes,
        positive=labels.positive_number(classes, schema.target) if len(classes) == 2 else 0,
        preparation=preparation,
        estimator=fitted.estimator,
        code=code,
        rows=len(prepared.features),
        metrics={name: float(value) for name, value in fitted.metrics.items() if math.isfinite(value)},
        importances=_importances(fitted, preparation),
        # As JSON has them, so that a saved model is equal to what it was.
        parameters=json.loads(json.dumps(dict(fitted.parameters), default=str)),
        tables=fitted.tables,
        reproducible=fitted.reproducible,
        reference=reference or {},
        provenance=provenance or {},
        versions=_versions(framework),
    )


def told_columns(what: str, reasons: Mapping[str, str]) -> Iterator[str]:
    """A line for each column, or for the first few of many; of those that were not selected, the step that
    selects has told.
    """
    told = {name: reason for name, reason in sorted(reasons.items()) if reason != NOT_SELECTED}
    for name, reason in [*told.items()][:MOST_COLUMNS]:
        yield f"column {name} {what} {reason}"
    if len(told) > MOST_COLUMNS:
        yield f"and {len(told) - MOST_COLUMNS:,} columns more"


class NotLoaded:
    """Stands for the estimator of a model that was loaded for all else that it holds."""

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        raise RuntimeError("the model was loaded without its estimator, which alone can predict")

    def save(self, directory: Path) -> None:
        raise RuntimeError("the model was loaded without its estimator, which cannot be saved")


def load_model(directory: Path, signer: Signer, scoring: bool = True) -> Model:
    """The model of a bundle, once its signature was verified.

    Args:
        scoring: with its estimator, whose libraries (or Java) take seconds to start.

    Raises:
        BundleRefused: it is unsigned, forged, torn, of another format, or of library versions that would
            read it wrongly.
    """
    try:
        signature = bytes.fromhex((directory / SIGNATURE).read_text().strip())
    except (OSError, ValueError):
        raise BundleRefused(
            f"{directory} is no signed model (it has no valid {SIGNATURE}): take the model of another run, or"
            " train again"
        ) from None
    if not signer.verifies(_listing(directory), signature):
        raise SignatureRefused(
            f"the signature of {directory} does not fit: a file was changed, or the model was signed with"
            " another MLPLATFORM_SNAPSHOT_KEY; set the key of where it was trained, or train again"
        )
    card = json.loads((directory / CARD).read_text(encoding="utf-8"))
    if card["format"] != FORMAT:
        raise BundleRefused(
            f"the model has format {card['format']}, and this mlplatform reads {FORMAT}: train again, or"
            f" score with mlplatform {card['versions'].get('mlplatform', 'of its time')}"
        )
    framework: Framework = plugin("frameworks", card["framework"])()
    _check_versions(framework, card["versions"])
    code = ProjectCode.read(directory / FOLDER)

    def make(transform: str, config: Mapping[str, Any]) -> Any:
        return OwnTransform.make(transform, config, code.load(transform)).fitted

    return Model(
        **{name: card[name] for name in card.keys() - {"format", "preparation", "classes"}},
        classes=tuple(card["classes"]),
        digest=hashlib.sha256(_listing(directory)).hexdigest()[:16],
        preparation=Preparation.restore(card["preparation"], make),
        estimator=framework.load(directory / ESTIMATOR) if scoring else NotLoaded(),
        code=code,
    )


def _listing(directory: Path) -> bytes:
    """Names and digests of all files but the signature."""
    digests = {}
    for path in sorted(path for path in directory.rglob("*") if not path.is_dir()):
        name = path.relative_to(directory).as_posix()
        if name != SIGNATURE:
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return json.dumps(digests, sort_keys=True).encode()


def _versions(framework: Framework) -> dict[str, str]:
    names = ("mlplatform", *framework.libraries, "numpy", "pandas")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _check_versions(framework: Framework, trained: Mapping[str, str]) -> None:
    # The transforms are the platform's own: another release may prepare rows in another way.
    for name in ("mlplatform", *framework.libraries):
        try:
            here = version(name)
        except PackageNotFoundError:
            raise BundleRefused(f"the model needs {name}: pip install '{name}=={trained[name]}'") from None
        if _release(here) != _release(trained[name]):
            raise BundleRefused(
                f"the model was trained with {name} {trained[name]}, and {here} might read it wrongly: pip"
                f" install '{name}=={trained[name]}', or train again"
            )


def _release(number: str) -> list[str]:
    """Major and minor."""
    return number.split(".")[:2]


def _importances(fitted: Fitted, preparation: Preparation) -> dict[str, float]:
    """Of features instead of encoded columns; the largest first."""
    sources = preparation.encoding.sources if preparation.encoding else {}
    summed: dict[str, float] = {}
    for name, importance in fitted.importances.items():
        feature = sources.get(name, name)
        summed[feature] = summed.get(feature, 0.0) + float(importance)
    total = sum(summed.values())
    if total <= 0:
        return {}
    return {
        name: value / total for name, value in sorted(summed.items(), key=lambda each: (-each[1], each[0]))
    }
