"""What Prometheus reads of models."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from mlplatform.domain.metrics import WINDOWS
from mlplatform.domain.model import Model
from mlplatform.services.served import Served, last_said
from mlplatform.settings import Settings

OTHER = "other"


class ModelCollector(Collector):
    """What Prometheus reads, made from the models as they are when it asks."""

    def __init__(self, served: Sequence[Served], settings: Settings) -> None:
        self._served = served
        self._most_series = settings.labelled_series
        self._in_a_label = settings.forecasts_in_a_label

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        yield from self._accuracy()
        yield from self._operation()

    def _accuracy(self) -> Iterable[Metric]:
        labels = ["series", "model"]
        gauge = partial(GaugeMetricFamily, labels=labels)
        errors = {
            (metric, window): gauge(
                f"ml_model_{metric}_{window}", f"{metric.upper()} of the last {window} predictions"
            )
            for window in WINDOWS
            for metric in ("mae", "mse", "rmse", "mape")
        }
        count = CounterMetricFamily("ml_model_predictions", "Observations learned", labels=labels)
        naive = gauge(
            "ml_model_naive_mae_20",
            "MAE of the last 20 values, had each been predicted to be as the one before",
        )
        drift = CounterMetricFamily("ml_model_drift", "Times that the errors became larger", labels=labels)
        last = {
            what: gauge(f"ml_model_last_{what}", f"The last {what} of the series")
            for what in ("prediction", "actual", "error")
        }
        event_time = gauge(
            "ml_model_last_event_timestamp_seconds",
            "When the last value of the series was observed, since 1970",
        )
        ahead = GaugeMetricFamily(
            "ml_model_forecast", "The value so many steps ahead", labels=[*labels, "step"]
        )
        steps = GaugeMetricFamily(
            "ml_model_forecast_steps", "The next values, in a label", labels=[*labels, "values"]
        )
        for served in self._served:
            rest = 0
            for at, (series_id, (model, entry)) in enumerate(served.series().items()):
                # A series of that name must not be in the exposition twice.
                if at >= self._most_series or series_id == OTHER:
                    rest += model.next_offset
                    continue
                label = [series_id, served.name]
                count.add_metric(label, model.next_offset)
                summary = model.metrics.summary()
                for (metric, window), family in errors.items():
                    _add(family, label, summary[f"{metric}_{window}"])
                _add(naive, label, _naive_mae(model))
                if model.drift:
                    drift.add_metric(label, model.drift.detections)
                if entry is not None:
                    event_time.add_metric(label, entry.event_time.timestamp())
                actual, prediction = last_said(model, entry)
                if actual is not None and prediction is not None:
                    _add(last["prediction"], label, prediction)
                    _add(last["actual"], label, actual)
                    _add(last["error"], label, abs(actual - prediction))
                forecast = served.forecast(series_id, model)
                for step, value in enumerate(forecast, 1):
                    _add(ahead, [*label, str(step)], value)
                if self._in_a_label:
                    steps.add_metric([*label, ",".join(str(round(value, 6)) for value in forecast)], 1)
            if rest:
                count.add_metric([OTHER, served.name], rest)
        yield from errors.values()
        yield naive
        yield drift
        yield count
        yield from last.values()
        yield event_time
        yield ahead
        if self._in_a_label:
            yield steps

    def _operation(self) -> Iterable[Metric]:
        depth = GaugeMetricFamily("model_queue_depth", "What waits for the disk", labels=["model"])
        degraded = GaugeMetricFamily("model_degraded", "1 while it does without a store", labels=["model"])
        age = GaugeMetricFamily(
            "model_snapshot_age_seconds", "Since the object store had everything", labels=["model"]
        )
        duplicates = CounterMetricFamily("model_duplicates", "Observations that came again", labels=["model"])
        refused = CounterMetricFamily("model_refused", "Observations that were refused", labels=["model"])
        for served in self._served:
            learner, label = served.learner, [served.name]
            depth.add_metric(label, learner.waiting)
            degraded.add_metric(label, int(learner.degraded is not None))
            age.add_metric(label, time.time() - learner.flushed_at)
            duplicates.add_metric(label, learner.duplicates)
            refused.add_metric(label, learner.refused)
        yield from (depth, degraded, age, duplicates, refused)


def _naive_mae(model: Model) -> float:
    """NaN before there are two values."""
    actuals = [actual for actual, _ in model.metrics.last]
    errors = [abs(value - before) for before, value in pairwise(actuals)]
    return sum(errors) / len(errors) if errors else math.nan


def _add(family: GaugeMetricFamily, label: list[str], value: float) -> None:
    if math.isfinite(value):
        family.add_metric(label, value)
