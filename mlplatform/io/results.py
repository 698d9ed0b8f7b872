"""Frames that show the newest state of the models: rolling metrics and forecasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlplatform.io.object_store import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa

    from mlplatform.domain.model import ModelSet

PREFIX = "frames"
FORECAST_STEPS = 5


class Frames:
    """Parquet objects that are replaced as a whole."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def write(self, key: str, frame: pa.Table) -> str:
        """Returns the address of the written object."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(frame, sink)
        self._store.put(f"{PREFIX}/{key}.parquet", sink.getvalue().to_pybytes())
        return self._store.url(f"{PREFIX}/{key}.parquet")

    def read(self, key: str) -> pa.Table | None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        stored = self._store.get(f"{PREFIX}/{key}.parquet")
        return None if stored is None else pq.read_table(pa.BufferReader(stored.content))

    def under(self, prefix: str) -> list[pa.Table]:
        """All frames whose keys begin with this part."""
        keys = self._store.list(f"{PREFIX}/{prefix}/")
        found = [self.read(key.removeprefix(f"{PREFIX}/").removesuffix(".parquet")) for key in sorted(keys)]
        return [frame for frame in found if frame is not None]


def metrics_frame(models: ModelSet) -> pa.Table:
    """One row for each model and series: how much it learned, and its errors (see `RollingMetrics`)."""
    import pyarrow as pa

    return pa.Table.from_pylist(
        [
            {
                "model": name,
                "series_id": series_id,
                "baseline": model.drift is None,
                "observations": model.next_offset,
                "drifts": model.drift.detections if model.drift else 0,
                **model.metrics.summary(),
            }
            for (name, series_id), model in models.models.items()
        ]
    )


def forecast_frame(models: ModelSet, steps: int = FORECAST_STEPS) -> pa.Table:
    """One row for each model, series and step ahead; `offset` is the observation that is forecast."""
    import pyarrow as pa

    return pa.Table.from_pylist(
        [
            {
                "model": name,
                "series_id": series_id,
                "step": step,
                "offset": model.next_offset + step - 1,
                "value": value,
            }
            for (name, series_id), model in models.models.items()
            for step, value in enumerate(model.forecast(steps), start=1)
        ]
    )
