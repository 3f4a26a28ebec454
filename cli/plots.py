"""Drawings of figures as SVG: bars with intervals, curves over k, reliability diagrams.

Every label that is given must be escaped already.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from retrieval.evaluation.metrics import Bin
from retrieval.evaluation.significance import Interval

COLOURS = ("#2f5fb3", "#c2571a", "#2e8555", "#8e44ad", "#7a6a12", "#b3364a", "#3a8fa3", "#555")
LEFT, TOP, SIDE = 40, 12, 240  # px, of the square that is drawn into


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def bars(labels: Sequence[str], figures: Sequence[Interval]) -> str:
    """Draws a bar from 0 to 100 % for each figure, with its interval."""
    row, width = 26, 300
    height = row * len(labels) + 2 * TOP
    parts = [_open(width + 260, height)]
    for number, (label, one) in enumerate(zip(labels, figures, strict=True)):
        y = TOP + row * number
        middle = y + row / 2 - 2
        parts.append(
            f'<rect x="0" y="{y}" width="{one.value * width:.1f}" height="{row - 8}" '
            f'fill="{_colour(number)}" fill-opacity="0.75"/>'
            f'<path d="M{one.low * width:.1f} {middle}H{one.high * width:.1f}" stroke="#000"/>'
            f'<path d="M{one.low * width:.1f} {middle - 4}v8M{one.high * width:.1f} {middle - 4}v8"'
            f' stroke="#000"/>'
            f'<text x="{width + 8}" y="{middle + 4}">{100 * one.value:.1f} {label}</text>'
        )
    return "".join([*parts, "</svg>"])


def curves(labels: Sequence[str], lines: Sequence[Sequence[tuple[int, float]]]) -> str:
    """Draws shares over k, the k on a logarithmic axis."""
    largest = max(max(k for k, _ in line) for line in lines)
    span = math.log(largest) or 1.0
    parts = [_open(LEFT + SIDE + 260, SIDE + 2 * TOP + 20), _axes()]
    for k in dict.fromkeys(k for line in lines for k, _ in line):
        parts.append(_below(math.log(k) / span, str(k)))
    for number, (label, line) in enumerate(zip(labels, lines, strict=True)):
        points = " ".join(f"{_x(math.log(k) / span)},{_y(value)}" for k, value in line)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{_colour(number)}" stroke-width="2"/>'
            f'<text x="{LEFT + SIDE + 12}" y="{TOP + 14 + 18 * number}" '
            f'style="fill:{_colour(number)}">{label}</text>'
        )
    return "".join([*parts, "</svg>"])


def reliability(bins: Sequence[Bin]) -> str:
    """Draws the share that was right over the stated relevance; the diagonal is perfect.

    The area of a dot tells how many claims it stands for.
    """
    most = max(one.count for one in bins)
    parts = [_open(LEFT + SIDE + 12, SIDE + 2 * TOP + 20), _axes()]
    for share in (0.0, 0.5, 1.0):
        parts.append(_below(share, f"{share:g}"))
    parts.append(f'<path d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}" stroke="#aaa" stroke-dasharray="4"/>')
    for one in bins:
        radius = 2 + 6 * math.sqrt(one.count / most)
        parts.append(
            f'<circle cx="{_x(one.confidence)}" cy="{_y(one.right)}" r="{radius:.1f}" '
            f'fill="{COLOURS[0]}" fill-opacity="0.75"/>'
        )
    return "".join([*parts, "</svg>"])


def _open(width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img">'
    )


def _axes() -> str:
    lines = "".join(
        f'<path d="M{_x(0)} {_y(share)}H{_x(1)}" stroke="#ddd"/>'
        f'<text x="{LEFT - 6}" y="{_y(share)}" dy="4" text-anchor="end">{100 * share:.0f}</text>'
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    return lines + f'<path d="M{_x(0)} {_y(1)}V{_y(0)}H{_x(1)}" fill="none" stroke="#333"/>'


def _below(share: float, label: str) -> str:
    return f'<text x="{_x(share)}" y="{_y(0) + 16}" text-anchor="middle">{label}</text>'


def _x(share: float) -> float:
    return round(LEFT + share * SIDE, 1)


def _y(share: float) -> float:
    return round(TOP + (1 - share) * SIDE, 1)
