"""Values as text for people: aligned tables, numbers, certificates. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bitwright.core.budget import format_bytes

#: Rows beyond which a table of units is cut on the screen; the file written by --out holds them all.
MAX_ROWS = 400

#: Multipliers shown of a certificate; with more, those that are not zero come first.
MULTIPLIERS = 6


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned columns, numbers to the right and words to the left. Long tables are cut."""
    shown = [[cell(value) for value in row] for row in rows[:MAX_ROWS]]
    widths = [max([len(h), *(len(row[i]) for row in shown)]) for i, h in enumerate(headers)]
    right = [all(_is_number(row[i]) for row in rows[:MAX_ROWS]) for i in range(len(headers))]

    def line(values: Sequence[str]) -> str:
        cells = [v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)]
        return "  ".join(cells).rstrip()

    lines = [line(list(headers)), line(["-" * w for w in widths]), *(line(row) for row in shown)]
    if len(rows) > MAX_ROWS:
        lines.append(f"... and {len(rows) - MAX_ROWS} more rows")
    return "\n".join(lines)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def cell(value: Any) -> str:
    """One table cell: integers with thousands separators, floats with four significant digits."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return number(value) if isinstance(value, float) else str(value)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def byte_text(count: int | None) -> str:
    """Exact bytes and a readable size."""
    return "-" if count is None else f"{count:,} B ({format_bytes(count)})"


def facts(pairs: Sequence[tuple[str, str | None]]) -> str:
    """`name  value` lines; pairs without a value are left out."""
    kept = [(name, value) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in kept), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in kept)


def certificate(data: Mapping[str, Any]) -> str:
    """One line: what is proved about a choice."""
    status = data.get("status")
    if status == "infeasible":
        smallest = ", ".join(f"{k} {cell(v)}" for k, v in (data.get("smallest_limit") or {}).items())
        return f"infeasible: {data.get('blame') or 'no choice fits'}" + (
            f"; the smallest reachable limit is {smallest}" if smallest else ""
        )
    loss, bound, gap = data.get("loss"), data.get("lower_bound"), data.get("gap")
    parts = [f"{status}: loss {_exact(loss)}, lower bound {_exact(bound)}, gap {_exact(gap)}"]
    if loss and gap:
        parts.append(f"({100 * gap / abs(loss):.3g}% of the loss)")
    if loss and data.get("case_bound") is not None:
        left = loss - data["case_bound"]
        parts.append(f"and {_exact(left)} by its cases ({100 * left / abs(loss):.3g}%)")
    if data.get("proof"):
        parts.append(f"closed by {data['proof']}")
    prices = data.get("multipliers") or {}
    shown = list(prices.items()) if len(prices) <= MULTIPLIERS else [(k, v) for k, v in prices.items() if v]
    multipliers = ", ".join(f"{k} {number(v)}" for k, v in shown[:MULTIPLIERS])
    more = f" and {len(prices) - MULTIPLIERS} more" if len(prices) > MULTIPLIERS else ""
    return " ".join(parts) + (f"; multipliers: {multipliers}{more}" if multipliers else "")


def _exact(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
