"""Commands that list what there is: solvers, metrics, formats, quantizers, engines, recipes."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from bitwright.cli import render
from bitwright.cli.output import emit
from bitwright.cli.parser import add_server, command

_SUMMARIES = {
    "formats": "ways to store a unit, with their true bits per weight",
    "metrics": "ways to make a sensitivity table",
    "solvers": "ways to solve an allocation problem",
    "engines": "inference engines a plan can be cut to",
    "recipes": "published methods as data",
}


def add(commands: Any) -> None:
    for name, summary in _SUMMARIES.items():
        listing = command(
            commands,
            name,
            run,
            summary=f"list {name}: {summary}",
            examples=f"  bitwright {name}\n  bitwright {name} --json",
        )
        listing.set_defaults(catalog=name)
        add_server(listing)


def run(args: Namespace) -> int:
    rows = _remote(args) if args.server else _LOCAL[args.catalog]()
    emit(args, rows, _TEXTS.get(args.catalog, text)(rows))
    return 0


def text(rows: list[dict[str, Any]]) -> str:
    """One line a member: name, then what is plain in its description."""
    columns = [c for c in ("bits", "bits_per_weight", "available", "summary") if any(c in row for row in rows)]
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


#: Catalogs whose members need more than the common columns.
_TEXTS: dict[str, Callable[[list[dict[str, Any]]], str]] = {"engines": _engines_text}

_LOCAL: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "formats": _formats,
    "metrics": _metrics,
    "solvers": _solvers,
    "engines": _engines,
    "recipes": _recipes,
}
