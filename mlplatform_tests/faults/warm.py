"""Imported once by the server that forks the children, so that none of them waits for imports."""

import importlib

import alembic  # noqa: F401
import deltalake  # noqa: F401
import numba  # noqa: F401
import obstore.store  # noqa: F401
import psycopg2  # noqa: F401
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet  # noqa: F401
import redis  # noqa: F401
import sklearn.linear_model  # noqa: F401
import skops.io  # noqa: F401
from river import drift, ensemble, linear_model, neighbors  # noqa: F401

import mlplatform.domain.kernels  # noqa: F401
import mlplatform_tests.batch_projects
import mlplatform_tests.graphs  # noqa: F401
from mlplatform.settings import prepare_mlflow

prepare_mlflow()
# What MLflow takes from the environment is there now.
for module in (
    "mlflow",
    "mlflow.store.db.utils",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
):
    importlib.import_module(module)
