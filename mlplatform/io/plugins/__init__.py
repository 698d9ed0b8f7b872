"""What batch pipelines plug in: data connectors, storages, frameworks, model registries, secrets providers.

Each kind is a folder: its protocol stands in `__init__`, the platform's own plugins beside it. An entry
point of the group `mlplatform.<folder>` adds one under its name.
"""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any, Literal

from mlplatform.errors import PlatformError

Kind = Literal["data_connectors", "storages", "frameworks", "model_registries", "secrets_providers"]

# By name and not by scanning the folders, so that naming a plugin imports no other.
OWN: dict[Kind, dict[str, str]] = {
    "data_connectors": {
        "local_file": "mlplatform.io.plugins.data_connectors.local_file:LocalFileConnector",
        "postgres": "mlplatform.io.plugins.data_connectors.postgres:PostgresConnector",
    },
    "storages": {
        "local": "mlplatform.io.plugins.storages.local:LocalStorage",
        "s3": "mlplatform.io.plugins.storages.s3:S3Storage",
    },
    "frameworks": {
        "sklearn": "mlplatform.io.plugins.frameworks.sklearn:SklearnFramework",
        "h2o_automl": "mlplatform.io.plugins.frameworks.h2o_automl:H2OAutoMLFramework",
    },
    "model_registries": {"mlflow": "mlplatform.io.plugins.model_registries.mlflow:MLflowRegistry"},
    "secrets_providers": {"env": "mlplatform.io.plugins.secrets_providers.env:EnvironmentSecrets"},
}


class UnknownPlugin(PlatformError):
    """No plugin has that name; the message names those that there are."""


def names(kind: Kind) -> list[str]:
    return sorted({*OWN[kind], *(point.name for point in entry_points(group=f"mlplatform.{kind}"))})


def plugin(kind: Kind, name: str) -> Any:
    """The plugin's class.

    Raises:
        UnknownPlugin: there is none of that name, or what it needs is not installed.
    """
    if name in OWN[kind]:
        module, _, attribute = OWN[kind][name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    for point in entry_points(group=f"mlplatform.{kind}", name=name):
        try:
            return point.load()
        except (ImportError, AttributeError) as error:
            raise UnknownPlugin(f"{name} cannot be loaded: {error}; install what it needs") from error
    near = get_close_matches(name, names(kind), 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UnknownPlugin(
        f"no {kind[:-1].replace('_', ' ')} {name!r}: there are {', '.join(names(kind))}{hint}"
    )
