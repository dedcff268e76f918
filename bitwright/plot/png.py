"""SVG to PNG by resvg (the optional package `resvg-py`); it draws with the fonts of this machine."""

from __future__ import annotations

from pathlib import Path

from bitwright.core.canonical import atomic_write
from bitwright.core.errors import InvalidInput, Unsupported

#: Pixels of the picture for each of the SVG's.
ZOOM = 2
#: resvg draws nothing, and says nothing, where it finds no font: so one of these must be there.
FAMILIES = ("DejaVu Sans", "Liberation Sans", "Noto Sans", "Verdana", "Arial", "Helvetica", "Open Sans", "Roboto")
_PROBE = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">{}</svg>'


def write_picture(svg: str, path: Path) -> int:
    """Write FILE.svg or FILE.png, whole or not at all; gives its bytes. Raises InvalidInput for another ending."""
    kind = path.suffix.lower()
    if kind not in (".svg", ".png"):
        raise InvalidInput("the picture's name says its kind", expected="FILE.svg or FILE.png", got=str(path))
    body = svg.encode() if kind == ".svg" else to_png(svg)
    with atomic_write(path) as file:
        file.write(body)
    return len(body)


def to_png(svg: str) -> bytes:
    """The picture at twice its size. Raises Unsupported without resvg-py, or where no font would draw the words."""
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise Unsupported(
            "PNG needs the package resvg-py", hint="pip install 'bitwright[plot]', or write an .svg"
        ) from error
    blank = svg_to_bytes(svg_string=_PROBE.format(""))
    family = next((name for name in FAMILIES if svg_to_bytes(svg_string=_PROBE.format(_letter(name))) != blank), None)
    if family is None:
        raise Unsupported(
            "this machine has none of the fonts that the words are drawn with",
            expected=", ".join(FAMILIES),
            hint="install one (Debian: fonts-dejavu-core), or write an .svg",
        )
    drawn: bytes = svg_to_bytes(svg_string=svg, zoom=ZOOM, sans_serif_family=family, font_family=family)
    return drawn


def _letter(family: str) -> str:
    return f'<text x="2" y="16" font-size="16" font-family="{family}">M</text>'
