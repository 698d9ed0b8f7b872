"""Figures and plots of a step's report as metadata that Dagit shows and plots."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from mlplatform.io.plugins.model_registries import Plot


def figures_metadata(figures: Mapping[str, Any]) -> dict[str, dg.MetadataValue]:
    """Numbers as numbers, links as links, the rest as text or JSON."""
    return {name: _value(value) for name, value in figures.items()}


def plots_metadata(plots: Sequence[Plot]) -> dict[str, dg.MetadataValue]:
    """Each plot as a picture in Markdown, under its name."""
    return {plot.name: dg.MetadataValue.md(_picture(plot)) for plot in plots}


def _value(value: Any) -> dg.MetadataValue:
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(value)
    if isinstance(value, str):
        return (
            dg.MetadataValue.url(value)
            if value.startswith(("http://", "https://"))
            else dg.MetadataValue.text(value)
        )
    return dg.MetadataValue.json(value)


def _picture(plot: Plot) -> str:
    encoded = base64.b64encode(plot.svg.encode()).decode()
    return f"![{plot.name}](data:image/svg+xml;base64,{encoded})"
