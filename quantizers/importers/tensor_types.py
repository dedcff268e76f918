"""llama-quantize's --tensor-type-file: regex=type tokens; the first pattern that is found in a name wins."""

from __future__ import annotations

import re
from pathlib import Path

from bitwright.core.errors import InvalidPlan
from bitwright.core.gguf_names import gguf_places
from bitwright.core.inventory import Inventory
from bitwright.models.files import read_bounded
from bitwright.models.limits import DEFAULT_LIMITS
from quantizers.importers.base import Imported, Importer
from quantizers.importers.gguf import format_of

_TOKEN = re.compile(r"\^(?P<name>(?:[a-z0-9_]|\\\.)+)\$=(?P<type>[a-z0-9_]+)")


def recognizes(path: Path) -> bool:
    return path.is_file() and path.suffix == ".txt" and "=" in path.read_bytes()[:4096].decode("latin-1")


def read(path: Path, inventory: Inventory) -> Imported:
    """Only exact anchored names are read: a pattern from outside is never run. Raises InvalidPlan, Unsupported."""
    try:
        text = read_bounded(path, DEFAULT_LIMITS.config_bytes).decode("ascii")
    except UnicodeDecodeError as error:
        raise InvalidPlan("the file is no text of patterns", expected="ASCII", got=str(error)[:80]) from error
    types: dict[str, str] = {}
    for token in text.split():
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise InvalidPlan(
                "a pattern cannot be read", expected=r"an exact name, such as ^blk\.0\.attn_q\.weight$=q4_k",
                got=ascii(token)[:120],
            )  # fmt: skip
        types.setdefault(match["name"].replace("\\.", "."), match["type"])
    found: dict[str, str] = {}
    for unit in inventory.units:
        kinds = {types.get(place.name) for place in gguf_places(unit.tensor, unit.index)}
        if None in kinds:
            raise InvalidPlan(
                "the file names no type for a unit", expected="a line for every unit", got=unit.name,
                hint="llama-quantize would give it the base type, which the file does not say",
            )  # fmt: skip
        found[unit.name] = format_of(unit, {str(kind) for kind in kinds})
    return Imported(found)


IMPORTER = Importer(recognizes, read)
