"""Small plots for the metadata of assets: SVG, since a picture of a few kilobytes travels in an event."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

import dagster as dg

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 620, 210, 56, 30, 14
# The last line is what the plot is about, and drawn over the others.
COLOURS = ("#334155", "#cbd5e1", "#bae6fd", "#fcd34d")
SUBJECT = "#e11d48"


def line_plot(title: str, lines: Mapping[str, Sequence[float]]) -> dg.MetadataValue:
    """Lines that end at the same observation, as a picture in Markdown; the first is the actual one."""
    low = min(min(values) for values in lines.values())
    high = max(max(values) for values in lines.values())
    length = max(len(values) for values in lines.values())
    step = (WIDTH - LEFT - 10) / max(length - 1, 1)
    scale = (HEIGHT - TOP - BOTTOM) / ((high - low) or 1.0)
    colours = dict(zip(lines, [*COLOURS[: len(lines) - 1], SUBJECT], strict=True))
    drawn = []
    for name, values in lines.items():
        points = ",".join(
            f"{LEFT + step * (length - len(values) + at):.0f},{TOP + scale * (high - value):.0f}"
            for at, value in enumerate(values)
        )
        dash = " stroke-dasharray='5 3'" if colours[name] == SUBJECT else ""
        drawn.append(f"<polyline stroke='{colours[name]}'{dash} points='{points}'/>")
    names = "".join(f"<tspan fill='{colour}'> ▬ {escape(name)}</tspan>" for name, colour in colours.items())
    picture = (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}' "
        f"style='background:white;font:11px sans-serif'>"
        f"<text x='{LEFT}' y='15'>{escape(title)}{names}</text>"
        f"<text x='4' y='{TOP + 8}'>{high:.5g}</text><text x='4' y='{HEIGHT - BOTTOM}'>{low:.5g}</text>"
        f"<g fill='none' stroke-width='2'>{''.join(drawn)}</g></svg>"
    )
    encoded = base64.b64encode(picture.encode()).decode()
    return dg.MetadataValue.md(f"![plot](data:image/svg+xml;base64,{encoded})")
