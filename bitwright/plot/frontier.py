"""Loss against bytes for every budget, with the uniform plans, the knee, and a plan where one is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bitwright.plot.svg import (
    CURVE,
    GRID,
    INK,
    KNEE,
    OTHER,
    SOFT,
    byte_unit,
    document,
    element,
    log_ticks,
    number,
    shorten,
    text,
)

WIDTH, HEIGHT = 900.0, 500.0
LEFT, RIGHT, TOP, BOTTOM = 76.0, 28.0, 96.0, 88.0
#: Losses below this share of the largest are not drawn: a curve that falls to nothing would stretch the axis.
DECADES = 7.0
#: Width of a letter of a label, in pixels at 12 px.
LETTER = 7.2


@dataclass(frozen=True)
class Mark:
    """A point with a name, in bytes and predicted loss."""

    name: str
    bytes: float
    loss: float


@dataclass(frozen=True)
class _Axes:
    """Logarithmic both ways: a bit is worth as much at 2 as at 12."""

    least: float
    most: float
    low: float
    high: float

    def x(self, size: float) -> float:
        share = math.log(min(self.most, max(self.least, size)) / self.least) / math.log(self.most / self.least)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, loss: float) -> float:
        share = (self.high - math.log10(max(loss, 1e-300))) / (self.high - self.low)
        return min(HEIGHT - BOTTOM, max(TOP, TOP + share * (HEIGHT - TOP - BOTTOM)))


def frontier_svg(
    title: str,
    points: Sequence[tuple[float, float]],
    uniform: Sequence[Mark],
    knee: tuple[float, float],
    *,
    limit: str = "bytes",
    weights: int | None = None,
    loss_unit: str | None = None,
    plan: Mark | None = None,
) -> str:
    """points: (cost, loss) by rising cost; limit: what the costs are. weights: for the upper axis in bits a weight."""
    axes = _axes([*points, *((mark.bytes, mark.loss) for mark in uniform)])
    curve = " ".join(f"{axes.x(size):.1f},{axes.y(loss):.1f}" for size, loss in points if loss > 0)
    parts = [text(shorten(title, 90), 24, 26, size=16, font_weight=600)]
    parts += _x_axis(axes, limit, weights)
    parts += _y_axis(axes, loss_unit)
    parts.append(element("polyline", points=curve, fill="none", stroke=CURVE, stroke_width=2))
    parts += _uniform(axes, [mark for mark in uniform if mark.loss > 0])
    parts.append(_diamond(axes.x(knee[0]), axes.y(knee[1])))
    if plan is not None:
        parts += _plan(axes, plan)
    return document(WIDTH, HEIGHT, f"predicted loss against bytes: {title}", parts + _key(plan))


def _axes(drawn: Sequence[tuple[float, float]]) -> _Axes:
    sizes, losses = [size for size, _ in drawn], [loss for _, loss in drawn if loss > 0] or [1.0]
    high = math.log10(max(losses))
    low = max(math.log10(min(losses)), high - DECADES)
    pad = max(0.05, 0.04 * (high - low))
    most = max(*sizes, 1e-9)
    least = min((size for size in sizes if size > most / 1e6), default=most)
    # Room for a name above the first point.
    return _Axes(min(least, most / 1.01), most, low - pad, high + 2.5 * pad)


def _x_axis(axes: _Axes, limit: str, weights: int | None) -> list[str]:
    size, unit = byte_unit(axes.most) if limit == "bytes" else (1, limit)
    words = f"bytes of the planned units ({unit})" if limit == "bytes" else limit
    bottom, middle = HEIGHT - BOTTOM, (LEFT + WIDTH - RIGHT) / 2
    parts = [element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, stroke=SOFT)]
    for value in log_ticks(axes.least / size, axes.most / size, 12):
        x = axes.x(value * size)
        parts.append(element("line", x1=x, x2=x, y1=TOP, y2=bottom, stroke=GRID))
        parts.append(text(f"{value:g}", x, bottom + 18, anchor="middle", fill=SOFT))
    parts.append(text(words, middle, bottom + 40, anchor="middle"))
    if weights:
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=TOP, y2=TOP, stroke=SOFT))
        for value in log_ticks(8 * axes.least / weights, 8 * axes.most / weights, 14):
            x = axes.x(value * weights / 8)
            parts.append(element("line", x1=x, x2=x, y1=TOP - 5, y2=TOP, stroke=SOFT))
            parts.append(text(f"{value:g}", x, TOP - 9, anchor="middle", fill=SOFT))
        parts.append(text("bits per weight of the planned units", middle, TOP - 30, anchor="middle"))
    return parts


def _y_axis(axes: _Axes, loss_unit: str | None) -> list[str]:
    ticks = log_ticks(10**axes.low, 10**axes.high, 8)
    parts = [element("line", x1=LEFT, x2=LEFT, y1=TOP, y2=HEIGHT - BOTTOM, stroke=SOFT)]
    for value in ticks:
        y = axes.y(value)
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, stroke=GRID))
        parts.append(text(number(value), LEFT - 8, y + 4, anchor="end", fill=SOFT))
    turned = f"translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"
    parts.append(
        text(f"predicted loss ({loss_unit})" if loss_unit else "loss", 0, 0, anchor="middle", transform=turned)
    )
    return parts


def _uniform(axes: _Axes, marks: Sequence[Mark]) -> list[str]:
    """Points, with their names where there is room: right above, right below, left above, left below."""
    taken = [(axes.x(m.bytes) - 5, axes.x(m.bytes) + 5, axes.y(m.loss) - 5, axes.y(m.loss) + 5) for m in marks]
    parts = []
    for mark in sorted(marks, key=lambda found: found.bytes):
        x, y, wide = axes.x(mark.bytes), axes.y(mark.loss), LETTER * len(mark.name)
        parts.append(element("circle", cx=x, cy=y, r=5, fill=OTHER, stroke="#ffffff", stroke_width=1.5))
        for dx, dy, anchor in ((8, -7, "start"), (8, 14, "start"), (-8, -7, "end"), (-8, 14, "end")):
            left = x + dx if anchor == "start" else x + dx - wide
            box = (left, left + wide, y + dy - 10, y + dy + 2)
            if box[0] > LEFT and box[1] < WIDTH and box[2] > TOP and not any(_touch(box, other) for other in taken):
                taken.append(box)
                parts.append(text(mark.name, x + dx, y + dy, anchor=anchor))
                break
    return parts


def _touch(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return not (a[1] < b[0] or a[0] > b[1] or a[3] < b[2] or a[2] > b[3])


def _plan(axes: _Axes, plan: Mark) -> list[str]:
    x, y = axes.x(plan.bytes), axes.y(plan.loss)
    line = element("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, stroke=INK, stroke_dasharray="4 3")
    return [line, element("circle", cx=x, cy=y, r=6, fill=INK, stroke="#ffffff", stroke_width=2)]


def _diamond(x: float, y: float) -> str:
    path = f"M{x:.1f} {y - 6:.1f}L{x + 6:.1f} {y:.1f}L{x:.1f} {y + 6:.1f}L{x - 6:.1f} {y:.1f}Z"
    return element("path", d=path, fill=KNEE, stroke="#ffffff", stroke_width=1.5)


def _key(plan: Mark | None) -> list[str]:
    y, parts, x = HEIGHT - 18, [], 76.0
    signs = [
        (
            element("line", x1=x, x2=x + 18, y1=y - 4, y2=y - 4, stroke=CURVE, stroke_width=2),
            "best plan for every budget",
        ),
        (element("circle", cx=x + 225, cy=y - 4, r=5, fill=OTHER), "uniform plan"),
        (_diamond(x + 345, y - 4), "knee"),
    ]
    if plan is not None:
        signs.append((element("circle", cx=x + 415, cy=y - 4, r=6, fill=INK), plan.name))
    for offset, (sign, words) in zip((26, 238, 358, 428), signs, strict=False):
        parts += [sign, text(words, x + offset, y, fill=SOFT)]
    return parts
