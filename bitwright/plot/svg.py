"""Elements of SVG as text, and what the pictures share: colours by bits, ticks, numbers for people."""

from __future__ import annotations

import bisect
import math
import re
from xml.sax.saxutils import escape, quoteattr

INK, SOFT, GRID, CURVE, OTHER, KNEE = "#17202e", "#566074", "#e3e7ee", "#1f5fbf", "#c2410c", "#1a7f4b"
FONT = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"
#: Viridis (van der Walt and Smith, 2015): even in lightness, told apart by the colour-blind and in grey.
_STOPS = (
    (68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140),
    (40, 174, 128), (94, 201, 98), (173, 220, 48), (253, 231, 37),
)  # fmt: skip
#: Where each width lies on the palette, as in the dashboard: the widths that plans mix most (2 to 6) get the most room.
_SCALE = (1, 2, 3, 4, 5, 6, 8, 16)
_PLACE = (0.0, 0.07, 0.27, 0.5, 0.68, 0.8, 0.92, 1.0)


def element(name: str, *children: str, **attributes: object) -> str:
    """One element; attribute names with `_` for `-`. Children are markup already; text goes through `text`."""
    words = "".join(f" {key.replace('_', '-')}={quoteattr(_value(value))}" for key, value in attributes.items())
    return f"<{name}{words}>{''.join(children)}</{name}>" if children else f"<{name}{words}/>"


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def text(
    words: str, x: float, y: float, *, size: float = 12, fill: str = INK, anchor: str = "start", **more: object
) -> str:
    return element("text", escape(words), x=x, y=y, font_size=size, fill=fill, text_anchor=anchor, **more)


def document(width: float, height: float, label: str, parts: list[str]) -> str:
    """A whole picture on white. label: what a screen reader says."""
    body = [element("title", escape(label)), element("rect", width=width, height=height, fill="#ffffff"), *parts]
    return element(
        "svg", *body, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_value(width)} {_value(height)}",
        width=width, height=height, role="img", font_family=FONT,
    ) + "\n"  # fmt: skip


def bits_of(format: str) -> float:
    """Code bits of a format by its name: what colours stand for."""
    levels = re.match(r"int-l(\d+)", format)
    if levels is not None:
        return round(math.log2(int(levels[1])), 1)
    grid = re.match(r"higgs-p(\d+)-n(\d+)", format)
    if grid is not None:
        return math.log2(int(grid[2])) / int(grid[1])
    found = re.search(r"\d+(?:\.\d+)?", format)
    return float(found[0]) if found else 16.0


def _mix(bits: float) -> tuple[int, int, int]:
    if bits <= _SCALE[0]:
        share = 0.0
    elif bits >= _SCALE[-1]:
        share = 1.0
    else:
        i = bisect.bisect_left(_SCALE, bits)
        share = _PLACE[i - 1] + (bits - _SCALE[i - 1]) / (_SCALE[i] - _SCALE[i - 1]) * (_PLACE[i] - _PLACE[i - 1])
    at = min(0.9999, share) * (len(_STOPS) - 1)
    low = int(at)
    r, g, b = (round(a + (c - a) * (at - low)) for a, c in zip(_STOPS[low], _STOPS[low + 1], strict=True))
    return r, g, b


def colour(bits: float) -> str:
    return "#{:02x}{:02x}{:02x}".format(*_mix(bits))


def ink(bits: float) -> str:
    """Black or white, whichever stands out more on that colour (WCAG 2.2 relative luminance)."""
    parts = [v / 255 / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in _mix(bits)]
    light = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    return "#000000" if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else "#ffffff"


def log_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers between two positive ones, at most `wanted`."""
    for marks in (
        (1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
        (1, 1.5, 2, 3, 4, 5, 6, 8),
        (1, 2, 5),
        (1, 3),
        (1,),
    ):
        decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
        found = [m * 10.0**e for e in decades for m in marks if low * (1 - 1e-9) <= m * 10.0**e <= high * (1 + 1e-9)]
        if len(found) <= wanted:
            return found
    return found[:: math.ceil(len(found) / wanted)]


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def byte_unit(most: float) -> tuple[int, str]:
    """(size, name) of the largest binary unit not above `most`."""
    units = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
    return next(((size, name) for size, name in units if most >= size), (1, "B"))


def shorten(words: str, most: int) -> str:
    """Long names keep both ends: the layer in front and the module behind tell them apart."""
    return words if len(words) <= most else f"{words[: (most + 1) // 2 - 1]}…{words[-(most // 2) :]}"
