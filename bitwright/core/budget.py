"""Budgets with units, in exact arithmetic.

`3.5bpw` bounds the stored bits of the planned units (codes, scales, zero points, padding) over their weights.
`4.2GiB`, `120MB`, `35000000B` bound the whole file: units, unquantized rest and container overhead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from bitwright.core.errors import InvalidBudget

_UNITS = {
    "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_PATTERN = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z]+)\s*")
EXPECTED = "a number with a unit, such as 3.5bpw, 4.2GiB, 120MB or 35000000B"
#: No weight format stores more than 64 bits a weight; more is a typing error.
MAX_BPW = 64
MAX_BYTES = 2**60


@dataclass(frozen=True)
class Budget:
    """`value` is bits per weight when `whole_file` is False, else bytes of the whole file."""

    value: Fraction
    whole_file: bool
    text: str

    def unit_bytes(self, *, weights: int, other_bytes: int) -> int:
        """Largest total of bytes the planned units may take.

        weights: elements of the planned units; other_bytes: unquantized rest plus container overhead.
        The result may be negative or too small: the solver then answers `infeasible` with the smallest limit.
        """
        if self.whole_file:
            return int(self.value) - other_bytes
        return int(self.value * weights / 8)


def parse_budget(text: str) -> Budget:
    """Raises InvalidBudget for anything but a positive, sane number with a unit."""
    match = _PATTERN.fullmatch(text) if isinstance(text, str) and len(text) <= 64 else None
    if match is None:
        raise InvalidBudget("the budget cannot be read", expected=EXPECTED, got=repr(text)[:80])
    value, unit = Fraction(match[1]), match[2].upper()
    if unit == "BPW":
        budget = Budget(value, False, text.strip())
        if not 0 < value <= MAX_BPW:
            raise InvalidBudget("the budget is out of range", expected=f"0 < bpw <= {MAX_BPW}", got=text.strip())
        return budget
    if unit not in _UNITS:
        raise InvalidBudget("the unit of the budget is unknown", expected=EXPECTED, got=repr(match[2]))
    value *= _UNITS[unit]
    if not 1 <= value <= MAX_BYTES:
        raise InvalidBudget("the budget is out of range", expected=f"1 B to {MAX_BYTES} B", got=text.strip())
    return Budget(value, True, text.strip())


def format_bytes(count: int) -> str:
    """`count` in the largest binary unit that keeps it at least 1, for people."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{int(size)} B" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TiB"
