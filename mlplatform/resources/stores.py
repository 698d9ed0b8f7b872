"""The stores that assets read and write, where the environment says when a run first uses them."""

from __future__ import annotations

from functools import cached_property

import dagster as dg

from mlplatform.io import stores
from mlplatform.settings import Settings


class Stores(dg.ConfigurableResource, stores.Stores):
    """The stores of this environment, as a resource."""

    @cached_property
    def settings(self) -> Settings:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Settings.load()
