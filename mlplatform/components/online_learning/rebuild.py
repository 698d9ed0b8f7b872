"""What rebuilding from the log has in common."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

import dagster as dg


def check_series(wanted: Collection[str], known: Collection[str]) -> None:
    """Refuses series that the log does not know, and names the nearest one that it does."""
    for series_id in wanted:
        if series_id not in known:
            near = get_close_matches(series_id, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the log has {len(known)} series"
            raise dg.Failure(f"unknown series {series_id!r}: {hint}", allow_retries=False)
