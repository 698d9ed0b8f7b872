"""The IO manager of batch pipelines: an asset's value is an artefact of the run that made it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg

from mlplatform.errors import PlatformError, TransientError
from mlplatform.io.artifacts import Artifacts, Given, Rows, Stored
from mlplatform.io.plugins.storages import Storage

URI = "dagster/uri"


@dataclass(frozen=True)
class Place:
    """Which artefact of which pipeline and step an asset is; `storage` opens the profile's storage, `redact`
    takes its secrets out of a text.
    """

    pipeline: str
    step: str
    artefact: str
    storage: Callable[[], Storage]
    redact: Callable[[str], str]


def attempts(run: dg.DagsterRun, instance: dg.DagsterInstance) -> list[str]:
    """The run and all those that it executes again, newest first."""
    found = [run.run_id]
    parent = run.parent_run_id
    while parent and parent not in found:
        found.append(parent)
        before = instance.get_run_by_id(parent)
        parent = before.parent_run_id if before else None
    # Runs between may have been deleted.
    return list(dict.fromkeys([*found, *filter(None, [run.root_run_id])]))


@contextmanager
def readable_failures(redact: Callable[[str], str]) -> Iterator[None]:
    """Makes of errors that name their remedy what Dagit shows without a trace, and lets no secret through."""
    try:
        yield
    except PlatformError as error:
        retries = isinstance(error, TransientError)
        raise dg.Failure(redact(str(error)), allow_retries=retries) from None
    except Exception as error:
        # Nobody foresaw it: its trace helps, unless Dagster would store a secret with it.
        trace = "".join(traceback.format_exception(error))
        if redact(trace) == trace:
            raise
        raise dg.Failure(redact(trace), allow_retries=False) from None


class ArtifactIOManager(dg.IOManager):
    """Saves each asset under its run, and loads the one that the same run made.

    A run that was asked for a part of the assets takes the rest from the newest materialisations; what it
    makes itself it takes from no other. `folder` names the folder of the run instead of its id.
    """

    def __init__(self, places: Mapping[dg.AssetKey, Place], folder: str | None = None) -> None:
        self._places = places
        self._folder = folder

    def handle_output(self, context: dg.OutputContext, obj: Given) -> None:
        place = self._places[context.asset_key]
        with readable_failures(place.redact):
            # Frames are made while they are saved.
            saved = self._artifacts(place, context).save(place.step, place.artefact, obj)
        # The size of a document says nothing of what it tells about.
        size = {} if isinstance(obj, Mapping) else {"bytes": saved.size}
        context.add_output_metadata({URI: saved.uri, **size})
        if isinstance(obj, Rows):
            columns = [dg.TableColumn(field.name, str(field.type)) for field in obj.schema]
            context.add_output_metadata(
                {"dagster/row_count": saved.rows, "dagster/column_schema": dg.TableSchema(columns)}
            )

    def load_input(self, context: dg.InputContext) -> Stored:
        place = self._places[context.asset_key]
        with readable_failures(place.redact):
            artifacts = self._artifacts(place, context)
            newest = self._made_elsewhere(context)
            return artifacts.open(newest) if newest else artifacts.load(place.artefact)

    def _made_elsewhere(self, context: dg.InputContext) -> str | None:
        """Address of the newest artefact, unless the run itself makes this asset."""
        asked_for = context.step_context.dagster_run.asset_selection
        if asked_for is None or context.asset_key in asked_for:
            return None
        event = context.instance.get_latest_materialization_event(context.asset_key)
        made = event.asset_materialization if event else None
        return str(made.metadata[URI].value) if made else None

    def _artifacts(self, place: Place, context: dg.InputContext | dg.OutputContext) -> Artifacts:
        step = context.step_context
        runs = [self._folder] if self._folder else []
        runs = runs or [f"{each}/{place.pipeline}" for each in attempts(step.dagster_run, step.instance)]
        return Artifacts(place.storage(), runs)
