"""Budgets with units, in exact arithmetic.

`3.5bpw` bounds the stored bits of the planned units (codes, scales, zero points, padding) over their weights.
`4.2GiB`, `120MB`, `35000000B` bound the whole file: units, unquantized rest and container overhead.
`24GiB device, 8192 context, batch 4` bounds a device's memory: the file, the KV cache of that many tokens and
sequences, activations and what the engine itself takes.
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
EXPECTED = "a number with a unit, such as 3.5bpw, 4.2GiB, 120MB or 35000000B, or '24GiB device, 8192 context, batch 4'"
_CONTEXT = re.compile(r"(?:([0-9]{1,9}) context|context ([0-9]{1,9}))")
_BATCH = re.compile(r"(?:([0-9]{1,6}) batch|batch ([0-9]{1,6}))")
#: No weight format stores more than 64 bits a weight; more is a typing error.
MAX_BPW = 64
MAX_BYTES = 2**60


@dataclass(frozen=True)
class Served:
    """What a device must hold beside the model: `batch` sequences of `context` tokens each."""

    context: int
    batch: int


@dataclass(frozen=True)
class Budget:
    """`value` is bits per weight when `whole_file` is False, else bytes of the whole file, or of a device.

    served: what a device budget serves; None for the others.
    """

    value: Fraction
    whole_file: bool
    text: str
    served: Served | None = None

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
    if isinstance(text, str) and len(text) <= 64 and re.search(r"\bdevice\b", text):
        return _parse_device(text)
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


def _parse_device(text: str) -> Budget:
    """`SIZE device, N context, batch N`, in any order; the context must be said, the batch is 1 unless it is."""
    size = context = batch = None
    for part in (" ".join(part.split()) for part in text.split(",")):
        if part.endswith(" device") and size is None:
            size = parse_budget(part.removesuffix(" device"))
        elif (match := _CONTEXT.fullmatch(part)) and context is None:
            context = int(match[1] or match[2])
        elif (match := _BATCH.fullmatch(part)) and batch is None:
            batch = int(match[1] or match[2])
        else:
            raise InvalidBudget("a part of the budget cannot be read", expected=EXPECTED, got=repr(part)[:80])
    if size is None or not size.whole_file or not context or batch == 0:
        raise InvalidBudget(
            "a device budget needs its size in bytes and a context of at least one token", expected=EXPECTED,
            got=repr(text)[:80],
        )  # fmt: skip
    return Budget(size.value, True, text.strip(), Served(context, batch or 1))


def format_bytes(count: int) -> str:
    """`count` in the largest binary unit that keeps it at least 1, for people."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{int(size)} B" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TiB"
