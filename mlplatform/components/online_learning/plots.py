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
    text = 'font-family="sans-serif" font-size="11" fill="#475569"'
    drawn = []
    for name, values in lines.items():
        points = " ".join(
            f"{LEFT + step * (length - len(values) + at):.0f},{TOP + scale * (high - value):.0f}"
            for at, value in enumerate(values)
        )
        dash = ' stroke-dasharray="5 3"' if colours[name] == SUBJECT else ""
        drawn.append(
            f'<polyline fill="none" stroke="{colours[name]}" stroke-width="2"{dash} points="{points}"/>'
        )
    names = " ".join(f'<tspan fill="{colour}">▬ {escape(name)}</tspan>' for name, colour in colours.items())
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">'
        f'<rect width="100%" height="100%" fill="white"/>'
        f'<text x="{LEFT}" y="15" {text}>{escape(title)} {names}</text>'
        f'<text x="4" y="{TOP + 8}" {text}>{high:.5g}</text>'
        f'<text x="4" y="{HEIGHT - BOTTOM}" {text}>{low:.5g}</text>' + "".join(drawn) + "</svg>"
    )
    encoded = base64.b64encode(picture.encode()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/svg+xml;base64,{encoded})")
