"""Lag features: in one backfill against pandas, and one value at a time against plain Redis calls."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import redis

from benchmarks.data import FAMILIES, employment_log, monthly_values
from benchmarks.measure import Row, Session, alternate, say
from mlplatform.io.feature_table import feature_rows, lag_names
from mlplatform.io.online_store import OnlineStore

ROUNDS = 7
VALUES = 5_000


def measure(session: Session) -> Iterator[Row]:
    yield _backfill()
    yield _one_at_a_time(session)


def _backfill() -> Row:
    """Ours from the log's Arrow table to the feature table's, pandas from a frame to a frame."""
    log = employment_log()
    frame = log.to_pandas()
    lags = lag_names(FAMILIES.widest)
    say(f"{len(log):,} observations of 148 series, {len(lags)} lags, at once")

    def shifted() -> pd.DataFrame:
        series = frame.groupby("series_id")
        columns = {name: series["value"].shift(lag, fill_value=0.0) for lag, name in enumerate(lags, start=1)}
        return frame.assign(available_lags=series.cumcount().clip(upper=len(lags)), **columns)

    def ours() -> pd.DataFrame:
        return feature_rows(log, {}, FAMILIES)

    # Warm, and the same features.
    made = ours().to_pandas()
    pd.testing.assert_frame_equal(
        made[[*lags, "available_lags"]], shifted()[[*lags, "available_lags"]], check_dtype=False
    )
    times = alternate({"ours": ours, "pandas": shifted}, ROUNDS)
    return Row(f"{len(log):,} rows, pandas groupby.shift", times["ours"], times["pandas"], "s", 1.0)


def _one_at_a_time(session: Session) -> Row:
    """One Lua call that adds a value and answers with the lags, against LPUSH, LTRIM and LRANGE."""
    store = OnlineStore(session.settings.redis_url)
    client = redis.Redis.from_url(session.settings.redis_url, decode_responses=True)
    values, keep = monthly_values(VALUES).tolist(), FAMILIES.widest
    say(f"{VALUES:,} values, one at a time, on the embedded Redis")

    def ours() -> None:
        client.delete("series:ours:head", "series:ours:values")
        for offset, value in enumerate(values):
            store.push("ours", offset, value, keep)

    def plain() -> None:
        client.delete("series:plain:values")
        for value in values:
            client.lpush("series:plain:values", repr(value))
            client.ltrim("series:plain:values", 0, keep - 1)
            [float(each) for each in client.lrange("series:plain:values", 0, -1)]

    ours()
    plain()
    times = alternate({"ours": ours, "plain": plain}, ROUNDS)
    each = {side: 1e6 * time / VALUES for side, time in times.items()}
    return Row("one value: push against LPUSH, LTRIM, LRANGE", each["ours"], each["plain"], "µs", 1.0)
