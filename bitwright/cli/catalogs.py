"""Commands that list what there is: solvers, metrics, formats, quantizers, engines, recipes."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from bitwright.cli import render
from bitwright.cli.output import emit
from bitwright.cli.parser import add_server, command
from bitwright.core.errors import InvalidInput

_SUMMARIES = {
    "formats": "ways to store a unit, with their true bits per weight",
    "metrics": "ways to make a sensitivity table",
    "solvers": "ways to solve an allocation problem",
    "engines": "inference engines a plan can be cut to",
    "recipes": "published methods as data",
}


def add(commands: Any) -> None:
    for name, summary in _SUMMARIES.items():
        examples = f"  bitwright {name}\n  bitwright {name} --json"
        if name == "formats":
            examples += "\n  bitwright formats q4_k int3-g128 --shape 4096x11008"
        listing = command(commands, name, run, summary=f"list {name}: {summary}", examples=examples)
        if name == "formats":
            listing.add_argument("names", nargs="*", metavar="FORMAT", help="only these, and any other of the grammar")
            listing.add_argument("--shape", metavar="OUTxIN", help="the matrix to cost, 4096x4096 unless given")
        listing.set_defaults(catalog=name)
        add_server(listing)


def run(args: Namespace) -> int:
    named = getattr(args, "names", None) or getattr(args, "shape", None)
    if named and args.server:
        raise InvalidInput("--shape and FORMAT cost formats here, without a server", hint="leave out --server")
    rows = _costs(args) if named else _remote(args) if args.server else _LOCAL[args.catalog]()
    emit(args, rows, _TEXTS.get(args.catalog, text)(rows))
    return 0


def _costs(args: Namespace) -> list[dict[str, Any]]:
    """The named formats, or all that are listed, on one shape."""
    from bitwright.core.formats import listed_formats, parse_formats

    shape = _shape(args.shape or "4096x4096")
    rows = []
    for format in parse_formats(args.names) if args.names else listed_formats():
        storage = format.storage(shape)
        parts = {part: getattr(storage, part) for part in ("payload", "scales", "zeros", "padding")}
        rows.append({**format.describe(shape), "bytes": storage.bytes, **{f"{k}_bits": v for k, v in parts.items()}})
    return rows


def _shape(text: str) -> tuple[int, ...]:
    """OUTxIN, or EXPERTSxOUTxIN."""
    sizes = text.lower().split("x")
    if not 1 <= len(sizes) <= 3 or not all(re.fullmatch(r"[0-9]{1,9}", size) for size in sizes):
        raise InvalidInput("the shape cannot be read", expected="OUTxIN, such as 4096x11008", got=repr(text)[:80])
    return tuple(int(size) for size in sizes)


def text(rows: list[dict[str, Any]]) -> str:
    """One line a member: name, then what is plain in its description."""
    columns = [c for c in ("bits", "bits_per_weight", "bytes", "available", "summary") if any(c in row for row in rows)]
    cells = [[row["name"], *(row.get(column) for column in columns)] for row in rows]
    return render.table(["name", *(c.replace("_", " ") for c in columns)], cells)


def _remote(args: Namespace) -> list[dict[str, Any]]:
    from bitwright.cli.running import client

    with client(args) as remote:
        return list(remote.catalog(args.catalog))


def _formats() -> list[dict[str, Any]]:
    from bitwright.core.formats import listed_formats

    return [format.describe() for format in listed_formats()]


def _metrics() -> list[dict[str, Any]]:
    from sensitivity.catalog import METRICS

    return [entry.describe() for entry in METRICS]


def _solvers() -> list[dict[str, Any]]:
    from solvers.catalog import SOLVERS

    return [entry.describe() for entry in SOLVERS]


def _engines() -> list[dict[str, Any]]:
    from bitwright.engines import shipped_profiles

    return [profile.model_dump(mode="json", exclude_none=True) for profile in shipped_profiles().values()]


def _recipes() -> list[dict[str, Any]]:
    from bitwright.recipes import shipped_recipes

    return [recipe.model_dump(mode="json", exclude_none=True) for recipe in shipped_recipes().values()]


def _engines_text(rows: list[dict[str, Any]]) -> str:
    from bitwright.cli.engines import engines_text

    return engines_text(rows)


def _recipes_text(rows: list[dict[str, Any]]) -> str:
    """A paragraph a recipe: what it is, what it allocates, what it costs, when to use it."""
    blocks = []
    for row in rows:
        paper = f" ({row['paper']}, {row['year']})" if row.get("paper") else ""
        facts = [(name, row[name]) for name in ("allocates", "cost", "when") if row.get(name)]
        blocks.append(f"{row['name']}{paper}\n  {row['summary']}\n" + "\n".join(f"  {n:<10}{v}" for n, v in facts))
    return "\n\n".join(blocks)


#: Catalogs whose members need more than the common columns.
_TEXTS: dict[str, Callable[[list[dict[str, Any]]], str]] = {"engines": _engines_text, "recipes": _recipes_text}

_LOCAL: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "formats": _formats,
    "metrics": _metrics,
    "solvers": _solvers,
    "engines": _engines,
    "recipes": _recipes,
}
