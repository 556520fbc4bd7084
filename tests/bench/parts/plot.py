"""A plot of measured points as SVG: small, readable in a browser and on paper, made of text alone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, EDGE = 560, 320, 64, 48, 24
FONT = 'font-family="sans-serif" font-size="12"'


def svg(title: str, x: str, y: str, points: Sequence[tuple[float, float]]) -> str:
    """The points joined, over a dashed line from the origin to the last: linear growth. `x`, `y`: what the axes are."""
    highest_x, highest_y = max(point[0] for point in points), max(point[1] for point in points)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = LEFT + point[0] / highest_x * (WIDTH - LEFT - EDGE)
        up = HEIGHT - BOTTOM - point[1] / highest_y * (HEIGHT - BOTTOM - 2 * EDGE)
        return round(across, 1), round(up, 1)

    origin, last = place((0, 0)), place(points[-1])
    corner_x, corner_y = place((highest_x, 0)), place((0, highest_y))
    joined = " ".join(f"{across},{up}" for across, up in map(place, points))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="{EDGE - 6}" font-size="14">{escape(title)}</text>',
        _line(origin, corner_x, 'stroke="#888"'),
        _line(origin, corner_y, 'stroke="#888"'),
        _line(origin, last, 'stroke="#888" stroke-dasharray="5 4"'),
        f'<polyline points="{joined}" fill="none" stroke="#0a6ebd" stroke-width="2"/>',
        f'<text x="{(LEFT + WIDTH) // 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>',
        f'<text transform="translate(14 {HEIGHT // 2}) rotate(-90)" text-anchor="middle">{escape(y)}</text>',
        f'<text x="{LEFT - 6}" y="{corner_y[1] + 4}" text-anchor="end">{highest_y:.4g}</text>',
    ]
    for point in points:
        across, up = place(point)
        parts.append(f'<circle cx="{across}" cy="{up}" r="3.5" fill="#0a6ebd"/>')
        if point[0] >= highest_x / 20:  # what lies closer together would cover each other
            parts.append(f'<text x="{across}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{point[0]:.4g}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _line(start: tuple[float, float], stop: tuple[float, float], style: str) -> str:
    return f'<line x1="{start[0]}" y1="{start[1]}" x2="{stop[0]}" y2="{stop[1]}" {style}/>'
