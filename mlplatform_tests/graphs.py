"""Online-learning graphs for tests: built from the component, run in this process on real stores."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from mlplatform.components.online_learning.component import FamilyModel, OnlineLearning, SourceModel
from mlplatform.definitions import resources
from mlplatform.io.sources.push import Pushed, PushSource
from mlplatform.resources.stores import Stores

RETAIL = Path("mlplatform/defs/online_learning/data/us_retail_employment_monthly.csv").absolute()
MONTHLY = FamilyModel(name="monthly", series=["*"], lags=28, season=12)
PUSHED = SourceModel(name="pushed", type="push")
START = datetime(2020, 1, 1, tzinfo=UTC)


def replay(path: Path = RETAIL, series_id: str = "retail", last: int | None = 120) -> SourceModel:
    return SourceModel(name="replay", type="replay", path=str(path), series_id=series_id, last=last)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The process's environment with these variables, as a run would find it."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Graph:
    """A graph on the stores that `variables` name."""

    def __init__(
        self,
        variables: Mapping[str, str],
        sources: list[SourceModel] | None = None,
        models: list[str] | None = None,
        families: list[FamilyModel] | None = None,
        **attributes: Any,
    ) -> None:
        self._made_of = (variables, sources, models, families, attributes)
        self.variables = dict(variables)
        component = OnlineLearning(
            sources=sources or [PUSHED],
            families=[MONTHLY] if families is None else families,
            models=["ridge", "knn"] if models is None else models,
            **attributes,
        )
        self.graph = component.graph(Path.cwd())
        self.defs = dg.Definitions.merge(
            dg.components.build_defs_for_component(component),
            dg.Definitions(resources=resources(), executor=dg.in_process_executor),
        )
        self.job = self.defs.resolve_job_def("online_learning")

    def __reduce__(self):
        *arguments, attributes = self._made_of
        return functools.partial(Graph, **attributes), tuple(arguments)

    @property
    def stores(self) -> Stores:
        """The stores as a new process would open them."""
        with environment(self.variables):
            stores = Stores()
            assert stores.settings.s3
            assert stores.settings.redis_url
            return stores

    def run(
        self,
        limit: int | None = None,
        config: dict[str, Any] | None = None,
        instance: dg.DagsterInstance | None = None,
        tags: dict[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """One run; it does not raise when it fails."""
        ops = {"observations": {"config": {"limit": limit}}} if limit else {}
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        with environment(self.variables):
            return self.job.execute_in_process(
                run_config={"ops": {**ops, **(config or {})}, **quiet},
                instance=instance,
                tags=tags,
                raise_on_error=False,
            )

    def push(self, *observations: Pushed) -> None:
        PushSource("pushed", self.stores.objects).push(observations)


def pushed(series_id: str, month: int, value: object, observation_id: str | None = None) -> Pushed:
    """A value observed `month` months after the first of the tests' time."""
    time = START + timedelta(days=31 * month)
    return Pushed(series_id, value, observation_id or f"{series_id}-{month}", time)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Every check of a run as `asset:check`, and whether it passed."""
    return {
        f"{evaluation.asset_key.to_user_string()}:{evaluation.check_name}": evaluation.passed
        for evaluation in result.get_asset_check_evaluations()
    }


def failure_message(result: dg.ExecuteInProcessResult) -> str:
    """What the failed steps of a run said."""
    return "\n".join(
        str(event.step_failure_data.error or event.step_failure_data.user_failure_data)
        for event in result.all_events
        if event.is_step_failure
    )


def predictions(graph: Graph) -> pa.Table:
    """What was said, in an order that does not depend on when it was written."""
    rows = graph.stores.table("predictions").read(["model", "position", "prediction"])
    return rows.sort_by([("model", "ascending"), ("position", "ascending")])


def rows_of(graph: Graph, frame: str) -> list[dict[str, Any]]:
    return [row for each in graph.stores.frames.under(frame) for row in each.to_pylist()]
