"""`mlplatform results`: what the models have learned, as a table."""

from __future__ import annotations

import math
import sys
from difflib import get_close_matches
from statistics import median
from typing import Any

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.results import FORECAST_STEPS, Frames
from mlplatform.settings import Settings

MOST_SERIES = 3
MARK = "*"


@click.command()
@click.option("--series", "series_id", help="Only this series.")
def results(series_id: str | None) -> None:
    """Show errors, forecasts and the champion of each series.

    \b
    Examples:
      mlplatform results
      mlplatform results --series us_retail_employment
    """
    with readable_errors():
        frames = Frames(ObjectStore(Settings.load().s3))
        if show(frames, series_id):
            return
        known = sorted({row["series_id"] for row in _rows(frames, "metrics")})
    if known:
        near = get_close_matches(series_id or "", known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {len(known)} others"
        raise click.ClickException(f"no model has learned series {series_id!r}: {hint}")
    click.echo("Nothing was learned yet; run the job with `make demo` or from Dagit.", err=True)
    sys.exit(1)


def show(frames: Frames, series_id: str | None = None) -> bool:
    """Prints the tables; False if there is nothing (of that series) to print."""
    metrics = _rows(frames, "metrics")
    champions = {row["series_id"]: row for row in _rows(frames, "champion")}
    forecasts: dict[tuple[str, str], list[float]] = {}
    for row in _rows(frames, "forecasts"):
        forecasts.setdefault((row["model"], row["series_id"]), []).append(row["value"])
    if series_id is not None:
        metrics = [row for row in metrics if row["series_id"] == series_id]
    series = sorted({row["series_id"] for row in metrics})
    if not series:
        return False
    if len(series) > MOST_SERIES:
        _summary(metrics, champions)
        return True
    for each in series:
        _table(each, [row for row in metrics if row["series_id"] == each], champions.get(each), forecasts)
    return True


def _rows(frames: Frames, kind: str) -> list[dict[str, Any]]:
    return [row for frame in frames.under(kind) for row in frame.to_pylist()]


def _table(series_id: str, rows: list[dict[str, Any]], champion: dict[str, Any] | None, forecasts) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    name = champion and champion["champion"]
    rows = sorted(rows, key=lambda row: row["mae"])
    errors = Table(
        title=f"{series_id}: errors of predictions made before learning",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    errors.add_column("model", no_wrap=True)
    errors.add_column("learned", justify="right", no_wrap=True)
    for metric in ("MAE", "RMSE", "MAPE %"):
        errors.add_column(f"{metric}\nall", justify="right")
        for window in (5, 10, 20):
            errors.add_column(f"\nlast {window}" if window == 5 else f"\n{window}", justify="right")
    ahead = Table(title=f"{series_id}: the next {FORECAST_STEPS} values", box=SIMPLE_HEAD)
    ahead.add_column("model", no_wrap=True)
    for step in range(1, FORECAST_STEPS + 1):
        ahead.add_column(f"+{step}", justify="right")
    for row in rows:
        served = row["model"] == name
        style = "bold green" if served else None
        title = f"{MARK if served else ' '} {row['model']}"
        digits = 1 if row["mae"] >= 10 else 3
        cells = [
            f"{row[metric + suffix]:.{2 if metric == 'mape' else digits}f}"
            for metric in ("mae", "rmse", "mape")
            for suffix in ("", "_5", "_10", "_20")
        ]
        errors.add_row(title, f"{row['observations']:,}", *cells, style=style)
        values = forecasts.get((row["model"], series_id), [])
        ahead.add_row(title, *(f"{value:,.{digits}f}" for value in values), style=style)
    console = Console()
    # A cut number is worse than a wide line.
    console.width = max(console.width, 120)
    console.print(errors)
    console.print(ahead)
    if champion and name:
        print(
            f"{MARK} champion since observation {champion['since_offset']}. As served from the start, its "
            f"predictions have MAE {champion['mae']:.4g}, RMSE {champion['rmse']:.4g}, "
            f"MAPE {champion['mape']:.2f} %."
        )
        if champion["loses_to"]:
            print(f"The baseline {champion['loses_to']} has a lower rolling error than the champion.")


def _summary(rows: list[dict[str, Any]], champions: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    by_series: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_series.setdefault(row["series_id"], {})[row["model"]] = row
    to_beat = {
        series_id: min((row["mae"] for row in models.values() if row["baseline"]), default=math.nan)
        for series_id, models in by_series.items()
    }
    table = Table(title=f"{len(by_series)} series", pad_edge=False)
    for column in ("model", "learned", "MAE against the best baseline (median)", "champion of"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name in sorted({row["model"] for row in rows}):
        mine = {series_id: models[name] for series_id, models in by_series.items() if name in models}
        ratios = [
            row["mae"] / to_beat[series_id] for series_id, row in mine.items() if to_beat[series_id] > 0
        ]
        learned = sum(row["observations"] for row in mine.values())
        titles = sum(row["champion"] == name for row in champions.values())
        table.add_row(name, f"{learned:,}", f"{median(ratios):.3f}" if ratios else "", str(titles or ""))
    Console().print(table)
    print("One series in full: --series ID")
