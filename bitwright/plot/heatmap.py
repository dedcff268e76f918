"""A plan as a heat map: modules by layers, coloured by bits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from bitwright.core.budget import format_bytes
from bitwright.core.errors import Unsupported
from bitwright.core.plan import Plan, PlanUnit
from bitwright.plot.svg import SOFT, bits_of, colour, document, element, ink, number, shorten, text

GAP, ROW, MOST_CELL, LEAST_CELL, TOP = 2.0, 22.0, 34.0, 6.0, 78.0
WIDTH, LETTER = 900.0, 7.2
#: A picture with more rows than this is no picture; the dashboard scrolls.
MAX_ROWS, MAX_LAYERS = 200, 400


def heatmap_svg(plan: Plan) -> str:
    """The picture as SVG text. Raises Unsupported for a plan of too many modules or layers to be told apart."""
    rows: defaultdict[str, defaultdict[int, list[PlanUnit]]] = defaultdict(lambda: defaultdict(list))
    for unit in plan.units:
        rows[unit.module or "units"][-1 if unit.layer is None else unit.layer].append(unit)
    layers = sorted({layer for row in rows.values() for layer in row})
    if len(rows) > MAX_ROWS or len(layers) > MAX_LAYERS:
        raise Unsupported(
            "the plan has too many modules or layers for one picture",
            expected=f"at most {MAX_ROWS} modules and {MAX_LAYERS} layers",
            got=f"{len(rows)} and {len(layers)}",
            hint="`bitwright report` writes a page that scrolls",
        )
    names = {name: shorten(name, 34) for name in rows}
    left = 24 + LETTER * max(map(len, names.values()))
    cell = max(LEAST_CELL, min(MOST_CELL, (WIDTH - left - 24) / len(layers) - GAP))
    width = max(WIDTH, left + len(layers) * (cell + GAP) + 24)
    parts = _head(plan, width)
    parts += _columns(layers, left, cell)
    for y, (name, row) in enumerate(rows.items()):
        top = TOP + y * (ROW + GAP)
        parts.append(text(names[name], left - 8, top + ROW / 2 + 4, anchor="end", fill=SOFT))
        for layer, units in row.items():
            parts += _cell(units, left + layers.index(layer) * (cell + GAP), top, cell)
    bottom = TOP + len(rows) * (ROW + GAP)
    legend, height = _legend(plan, bottom + 30, width)
    return document(width, height, f"bits by layer and module of {plan.model.ref}", parts + legend)


def _head(plan: Plan, width: float) -> list[str]:
    totals, measured = plan.totals, plan.measured
    words = [f"{number(totals.bits_per_weight)} bits a weight", f"{format_bytes(totals.bytes)} in planned units"]
    if measured is not None:
        words.append(f"measured {number(measured.kl)} ± {number(1.96 * measured.stderr)} {measured.unit}")
    else:
        unit = plan.provenance.get("loss_unit", "")
        words.append(f"predicted loss {number(totals.predicted_loss)} {unit}".rstrip())
    words.append(f"certificate: {plan.certificate.get('status', 'none')}")
    most = int((width - 48) / 9)
    return [
        text(shorten(plan.model.ref, most), 24, 26, size=16, font_weight=600),
        text(" · ".join(words), 24, 46, fill=SOFT),
    ]


def _columns(layers: Sequence[int], left: float, cell: float) -> list[str]:
    """Numbers of the layers, as many as there is room for. What lies outside the layers stands first."""
    every = max(1, round(26 / (cell + GAP)))
    found = [text("layer", left - 8, TOP - 7, anchor="end", fill=SOFT, size=11)]
    for x, layer in enumerate(layers):
        if layer < 0 or layer % every == 0:
            middle = left + x * (cell + GAP) + cell / 2
            found.append(text("–" if layer < 0 else str(layer), middle, TOP - 7, anchor="middle", size=11, fill=SOFT))
    return found


def _cell(units: Sequence[PlanUnit], x: float, y: float, cell: float) -> list[str]:
    weights = sum(max(1, unit.elements) for unit in units)
    bits = sum(bits_of(unit.format) * max(1, unit.elements) for unit in units) / weights
    mixed = len({unit.format for unit in units}) > 1
    words = f"{bits:.1f}" if mixed else f"{bits:g}"
    parts = [element("rect", x=x, y=y, width=cell, height=ROW, rx=3, fill=colour(bits))]
    if cell >= LETTER * len(words) + 1:
        parts.append(text(words, x + cell / 2, y + ROW / 2 + 4, size=11, fill=ink(bits), anchor="middle"))
    return parts


def _legend(plan: Plan, y: float, width: float) -> tuple[list[str], float]:
    """(parts, where the picture ends): every format that the plan uses, with its number of units."""
    counts = Counter(unit.format for unit in plan.units)
    x, parts = 24.0, []
    for name in sorted(counts, key=lambda found: (bits_of(found), found)):
        words = f"{bits_of(name):g} · {name} ({counts[name]:,} unit{'' if counts[name] == 1 else 's'})"
        wide = 22 + LETTER * len(words) + 20
        if x + wide > width and x > 24:
            x, y = 24.0, y + 22
        parts.append(element("rect", x=x, y=y - 11, width=14, height=14, rx=3, fill=colour(bits_of(name))))
        parts.append(text(words, x + 20, y))
        x += wide
    return parts, y + 20
