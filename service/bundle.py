"""Pages in one file: the dashboard's modules joined into one script, with styles and data inside and nothing outside.

No toolchain: every module becomes a function that gives its exports, called in the order in which they need each other.
The file's own Content-Security-Policy names the digests of its script and style; nothing else may run or be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from html import escape
from importlib import resources
from typing import Any

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([^"]+)";\n', re.M)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|const|let|class) (\w+))", re.M)
#: Styles in the order of index.html.
STYLES = ("base.css", "views.css")


def read_asset(name: str) -> str:
    """The text of one of the dashboard's files."""
    return resources.files("service").joinpath("dashboard", name).read_text("utf-8")


def bundle(entry: str) -> str:
    """One script of `entry` and all modules that it needs, as an async function called at once."""
    order: list[str] = []
    _collect(entry, order, ())
    parts = [_wrapped(name) for name in order[:-1]]
    body = _IMPORT.sub(_taken, read_asset(order[-1]))
    return '(async () => {\n"use strict";\nconst $m = {};\n' + "".join(parts) + body + "})();\n"


def _collect(name: str, order: list[str], above: tuple[str, ...]) -> None:
    """Depth first: what a module needs stands before it."""
    if name in above:
        raise ValueError(f"{name} imports itself by way of {', '.join(above)}")
    for _, needed in _IMPORT.findall(read_asset(name)):
        if needed not in order:
            _collect(needed, order, (*above, name))
    order.append(name)


def _taken(match: re.Match[str]) -> str:
    return f'const {{{match[1]}}} = $m["{match[2]}"];\n'


def _wrapped(name: str) -> str:
    text = _IMPORT.sub(_taken, read_asset(name))
    given = ", ".join(found[1] for found in _EXPORT.findall(text))
    return f'$m["{name}"] = (() => {{\n{_EXPORT.sub(lambda found: found[1], text)}\nreturn {{ {given} }};\n}})();\n'


def _source(text: str) -> str:
    """A source expression of a Content-Security-Policy: the digest of an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _style() -> str:
    return "".join(read_asset(name) for name in STYLES)


def page(title: str, summary: str, entry: str, data: Any) -> str:
    """A whole page that opens from a disk. summary: what is shown where no script may run; data: read by `entry`."""
    script, style, icon = bundle(entry), _style(), read_asset("icon.svg")
    policy = f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; img-src data:"
    # In a script element only "</script" and "<!--" mean anything; escaped, any text may stand there.
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    image = "data:image/svg+xml;base64," + base64.b64encode(icon.encode()).decode()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="{image}">\n<style>{style}</style>\n</head>\n<body>\n'
        f'<header class="top"><span class="brand"><img src="{image}" alt="" width="26" height="26"><span>bitwright'
        '</span></span><span class="grow"></span><button type="button" class="quiet" id="theme" '
        'aria-label="Switch between light and dark">◐</button></header>\n'
        f'<main id="main" tabindex="-1"><noscript><pre>{escape(summary)}</pre></noscript></main>\n'
        f'<script type="application/json" id="data">{text}</script>\n<script>{script}</script>\n</body>\n</html>\n'
    )
