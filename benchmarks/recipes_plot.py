"""The picture of benchmarks.recipes: stored bits and KL of every plan and seed."""

from __future__ import annotations

import numpy as np

from bitwright.plot.svg import document as picture
from bitwright.plot.svg import element, text

COLOURS = ("#1f5fbf", "#c2410c", "#1a7f4b", "#7c3aed", "#b58900", "#0e7490", "#be185d", "#4d7c0f", "#64748b")
#: Plan -> budget -> (stored bits a weight, KL) of each seed.
Rows = dict[str, dict[str, list[tuple[float, float]]]]


def plot(rows: Rows, title: str) -> str:
    """Stored bits across, KL up (log); a dot a seed, a line through the means."""
    left, top, width, height = 56.0, 34.0, 420.0, 300.0
    cells = [cell for budgets in rows.values() for found in budgets.values() for cell in found]
    bits, kls = [c[0] for c in cells], [np.log10(c[1]) for c in cells]
    low, high, least, most = min(bits) - 0.1, max(bits) + 0.1, min(kls) - 0.05, max(kls) + 0.05

    def at(b: float, kl: float) -> tuple[float, float]:
        x, y = (b - low) / (high - low), (np.log10(kl) - least) / (most - least)
        return left + width * x, top + height * (1 - float(y))

    parts = [
        text(title, left, 20, size=13),
        element("rect", x=left, y=top, width=width, height=height, fill="none", stroke="#9aa3b2"),
        text("stored bits a weight", left + width / 2, top + height + 30, anchor="middle"),
        text("KL, nats (log)", left, top - 4, size=10),
    ]
    for tick in np.arange(np.ceil(low * 2) / 2, high, 0.5):
        x, _ = at(float(tick), 10**least)
        parts.append(text(f"{tick:g}", x, top + height + 14, size=10, anchor="middle"))
    for tick in (v * 10.0**e for e in range(-5, 2) for v in (1, 2, 5)):
        if least <= np.log10(tick) <= most:
            parts.append(text(f"{tick:g}", left - 4, at(low, tick)[1] + 3, size=10, anchor="end"))
    for number, (name, budgets) in enumerate(sorted(rows.items())):
        colour = COLOURS[number % len(COLOURS)]
        means = sorted(tuple(np.mean(found, axis=0)) for found in budgets.values())
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*mean) for mean in means))
        parts.append(element("polyline", points=points, fill="none", stroke=colour, stroke_width=1.5))
        for found in budgets.values():
            for x, y in (at(*cell) for cell in found):
                parts.append(element("circle", cx=x, cy=y, r=2.6, fill=colour, fill_opacity=0.7))
        y = top + 12 + 16 * number
        parts.append(element("rect", x=left + width + 14, y=y - 9, width=10, height=10, fill=colour))
        parts.append(text(name, left + width + 30, y, size=11))
    return picture(left + width + 230, top + height + 46, title, parts)
