"""Models between the steps: packed as an artefact, or taken from the registry."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlplatform.io.artifacts import Document, PackedModel
from mlplatform.io.model_bundle import Model, load_model
from mlplatform.io.plugins.model_registries import Registered
from mlplatform.steps.context import StepContext


@contextmanager
def opened(context: StepContext, stored: PackedModel | Document, scoring: bool = True) -> Iterator[Model]:
    """The model of an artefact: its own copy, or the one in the registry that it names.

    Without `scoring` it cannot predict, and does not wait for what could.
    """
    if isinstance(stored, PackedModel):
        with stored.unpacked() as folder:
            yield load_model(folder, context.signer, scoring)
        return
    with fetched(context, Registered(stored["run_id"], stored["version"]), scoring) as (model, _):
        yield model


@contextmanager
def fetched(
    context: StepContext, registered: Registered, scoring: bool = True
) -> Iterator[tuple[Model, Path]]:
    """A registered model with the folder of its bundle, until the end of the block."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = context.registry.fetch(registered, Path(folder))
        yield load_model(bundle, context.signer, scoring), bundle
