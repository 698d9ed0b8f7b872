"""A model bundle as MLflow's model: a folder that its UI explains and that `mlflow.pyfunc` loads."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.io.plugins.model_registries import TrackedRun
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import Model
    from mlflow.types import Schema

# Where the bundle lies in the folder.
BUNDLE = "bundle"
REQUIREMENTS, ENVIRONMENT = "requirements.txt", "python_env.yaml"


def save_model(run: TrackedRun, run_id: str, artifact_path: str, directory: Path) -> Model:
    """Writes the folder `directory` (not there yet) and returns what its file MLmodel says.

    Without a pickle: MLflow's flavour for any Python function names this module, which loads the bundle.
    """
    import mlflow
    import yaml
    from mlflow.models import Model, ModelSignature
    from mlflow.models.utils import _save_example

    shutil.copytree(run.model, directory / BUNDLE)
    described = Model(artifact_path=artifact_path, run_id=run_id)
    # Not by mlflow.pyfunc.save_model, which looks through every installed package first (1.4 s).
    described.add_flavor(
        "python_function",
        loader_module=__name__,
        data=BUNDLE,
        env={"virtualenv": ENVIRONMENT},
        python_version=platform.python_version(),
    )
    described.signature = ModelSignature(schema(run.example), schema(run.prediction))
    _save_example(described, run.example, str(directory))
    requirements = [f"mlflow=={mlflow.__version__}", *(run.requirements or ["mlplatform"])]
    (directory / REQUIREMENTS).write_text("".join(f"{line}\n" for line in requirements))
    environment = {"python": platform.python_version(), "dependencies": [f"-r {REQUIREMENTS}"]}
    (directory / ENVIRONMENT).write_text(yaml.safe_dump(environment))
    described.save(str(directory / "MLmodel"))
    return described


def schema(frame: pd.DataFrame) -> Schema:
    """The columns in MLflow's words; categories and whatever it has no word for are strings.

    MLflow's own inference refuses categories, and warns of every whole number.
    """
    from mlflow.types import ColSpec, DataType, Schema
    from pandas.api import types

    kinds = {
        DataType.boolean: types.is_bool_dtype,
        DataType.long: types.is_integer_dtype,
        DataType.double: types.is_float_dtype,
        DataType.datetime: types.is_datetime64_any_dtype,
    }
    return Schema(
        [
            ColSpec(next((kind for kind, holds in kinds.items() if holds(dtype)), DataType.string), str(name))
            for name, dtype in frame.dtypes.items()
        ]
    )


class PythonModel:
    """What MLflow calls: `predict` gives a row for each row of a table."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        return self._model.predictions(model_input)


def _load_pyfunc(path: str) -> PythonModel:
    """Called by MLflow with the bundle's folder, whose signature must verify here as anywhere."""
    from mlplatform.io.model_bundle import load_model
    from mlplatform.io.signing import Signer

    return PythonModel(load_model(Path(path), Signer.from_settings(Settings.load())))
