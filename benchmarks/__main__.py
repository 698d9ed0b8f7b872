"""`python -m benchmarks`: measures, and prints one table."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Column, Table

from benchmarks.measure import Row, Session, say

NUMBERS = ("ours", "the other", "ratio", "goal")
NAMES = (
    "fold",
    "series148",
    "tick",
    "lag_features",
    "start",
    "minute",
    "churn",
    "scoring",
    "serving",
    "pipelines",
    "model_services",
    "feature_services",
    "control_plane",
)


@click.command(epilog=f"NAME is one of {', '.join(NAMES)}; all of them unless given.")
@click.argument("names", metavar="[NAME]...", nargs=-1, type=click.Choice(NAMES))
@click.option("--full", is_flag=True, help="Measure everything at its full size; takes much longer.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the rows to a file.")
def main(names: tuple[str, ...], full: bool, json_file: Path | None) -> None:
    """Measure mlplatform side by side with what one would use instead: same data, one run, ratios.

    \b
    Examples:
      python -m benchmarks
      python -m benchmarks fold series148 --json figures.json
    """
    measured: dict[str, list[Row]] = {}
    with Session(full) as session:
        for name in names or NAMES:
            module = importlib.import_module(f"benchmarks.{name}")
            say(f"== {name}: {module.__doc__.splitlines()[0]}")
            measured[name] = list(module.measure(session))
    if json_file:
        figures = {name: [row.as_dict() for row in rows] for name, rows in measured.items()}
        json_file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    Console().print(_table(measured))


def _table(measured: dict[str, list[Row]]) -> Table:
    table = Table("what", *(Column(name, justify="right", no_wrap=True) for name in NUMBERS), "met")
    for name, rows in measured.items():
        table.add_section()
        for row in rows:
            table.add_row(
                f"{name}: {row.what}",
                _quantity(row.ours, row.unit),
                "" if row.other is None else _quantity(row.other, row.unit),
                "" if row.ratio is None else f"{row.ratio:.2f}",
                _goal(row),
                {True: "[green]yes", False: "[red]no", None: ""}[row.met],
            )
    return table


def _goal(row: Row) -> str:
    if row.goal is None:
        return ""
    return f"≤ {row.goal:g}" if row.goal_of == "ratio" else f"≤ {_quantity(row.goal, row.unit)}"


def _quantity(value: float, unit: str) -> str:
    """With three digits that say something."""
    if unit == "bytes":
        return f"{value / 1024:,.1f} KB" if value < 1024**2 else f"{value / 1024**2:,.1f} MB"
    if unit == "":
        return f"{value:,.0f}"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


if __name__ == "__main__":
    main()
