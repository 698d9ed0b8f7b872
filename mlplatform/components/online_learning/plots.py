"""Small plots for the metadata of assets: SVG, since a picture of a few kilobytes travels in an event."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import dagster as dg

WIDTH, HEIGHT, MARGIN, TOP = 560, 190, 52, 26
ACTUAL, PREDICTED = "#64748b", "#e11d48"


def actual_and_predicted(title: str, pairs: Sequence[tuple[float, float]]) -> dg.MetadataValue:
    """The last (actual, predicted) pairs, oldest first, as a picture in Markdown."""
    values = [value for pair in pairs for value in pair]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def line(index: int, colour: str, dash: str = "") -> str:
        step = (WIDTH - MARGIN - 10) / max(len(pairs) - 1, 1)
        height = HEIGHT - TOP - 16
        points = " ".join(
            f"{MARGIN + step * at:.0f},{TOP + height * (high - pair[index]) / span:.0f}"
            for at, pair in enumerate(pairs)
        )
        return f'<polyline fill="none" stroke="{colour}" stroke-width="2" {dash} points="{points}"/>'

    text = 'font-family="sans-serif" font-size="11" fill="#475569"'
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">'
        f'<rect width="100%" height="100%" fill="white"/>'
        f'<text x="{MARGIN}" y="15" {text}>{escape(title)}: '
        f'<tspan fill="{ACTUAL}">actual</tspan>, <tspan fill="{PREDICTED}">predicted</tspan></text>'
        f'<text x="4" y="{TOP + 8}" {text}>{high:.5g}</text>'
        f'<text x="4" y="{HEIGHT - 14}" {text}>{low:.5g}</text>'
        + line(0, ACTUAL)
        + line(1, PREDICTED, 'stroke-dasharray="5 3"')
        + "</svg>"
    )
    encoded = base64.b64encode(picture.encode()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/svg+xml;base64,{encoded})")
