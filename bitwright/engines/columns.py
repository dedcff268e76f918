"""A sensitivity table and what each engine loads of it as flat columns: what a picture reads at once.

JSON of 50,000 units x 12 formats is 40 MB of digits, seconds to write and to read; the same numbers as they lie in
memory are 15 MB and need no reading at all. The bytes, all little-endian:

    4 bytes     "BWC1"
    4 bytes     length of the head
    the head    JSON, padded with spaces so that what follows begins at a multiple of 8
    arrays      one after the other, each at a multiple of 8 from their begin

The head is the table's description (model, metric, formats, coverage, provenance, `menus`) with `names` of the units,
`values` (what the numbers in `module` and `shape` stand for) and `arrays`: [{"name", "type": float64 | int32, "at",
"count"}]. Matrices lie unit by unit. docs/service.md names the arrays.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bitwright
from bitwright.core.canonical import digest_json
from bitwright.core.table import SensitivityTable
from bitwright.engines.catalog import shipped_profiles
from bitwright.engines.menus import menus_document

MAGIC = b"BWC1"
MEDIA = "application/vnd.bitwright.columns"
#: Grows with every change of what stands in the bytes; together with the program's version it names a kept copy.
COLUMNS_VERSION = 1


def columns_key(digest: str) -> str:
    """What names the columns of a table: its digest, and the program and engine data that they were made with."""
    profiles = [[name, profile.revision] for name, profile in shipped_profiles().items()]
    made = {"columns": COLUMNS_VERSION, "version": bitwright.__version__, "profiles": profiles, "table": digest}
    return digest_json(made)


def table_head(table: SensitivityTable) -> dict[str, Any]:
    """What a table says besides its numbers and its units."""
    inventory = table.inventory
    return {
        "model": {
            "ref": inventory.ref,
            "digest": inventory.digest,
            "architecture": inventory.architecture,
            "task": inventory.task,
        },
        "metric": table.metric,
        "loss_unit": table.loss_unit,
        "formats": list(table.formats),
        "weights": inventory.weights,
        "coverage": inventory.coverage(),
        "provenance": dict(table.provenance),
        "granularity": table.granularity,
    }


def table_columns(table: SensitivityTable, digest: str) -> bytes:
    """The columns of the table of whole units. A forbidden loss is infinite, an unknown standard error 0."""
    whole = table.by_unit()
    units, menus = whole.inventory.units, menus_document(whole.inventory, whole.kinds)
    arrays: dict[str, NDArray[Any]] = {
        "loss": whole.loss,
        "stderr": np.nan_to_num(whole.stderr, nan=0.0),
        "cost": whole.cost_bytes(),
        "layer": _numbers([unit.layer for unit in units]),
        "expert": _numbers([unit.expert for unit in units]),
        "class": np.asarray(menus.pop("unit_class"), np.int32),
    }
    values: dict[str, list[Any]] = {}
    values["module"], arrays["module"] = _coded([unit.module for unit in units])
    values["shape"], arrays["shape"] = _coded([unit.shape for unit in units])
    for kind in sorted({kind for unit in units for kind in unit.families}):
        _, arrays[f"family:{kind}"] = _coded([unit.families.get(kind) for unit in units])
    for kinds, group in menus.pop("tied").items():
        arrays[f"tied:{kinds}"] = np.asarray(group, np.int32)
    head = {**table_head(table), "digest": digest, "menus": menus, "values": values, "names": [u.name for u in units]}
    return _joined(head, arrays)


def save_columns(table: SensitivityTable, digest: str, path: Path) -> None:
    path.write_bytes(table_columns(table, digest))


def _numbers(values: Sequence[int | None]) -> NDArray[np.int32]:
    """Layers and experts; -1 for none."""
    return np.array([-1 if value is None else value for value in values], np.int32)


def _coded(values: Sequence[Hashable]) -> tuple[list[Any], NDArray[np.int32]]:
    """(distinct values in order of first use, their number for each; -1 for None)."""
    seen: dict[Hashable, int] = {}
    codes = [-1 if value is None else seen.setdefault(value, len(seen)) for value in values]
    return list(seen), np.array(codes, np.int32)


def _joined(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    at, listed, parts = 0, [], list[bytes]()
    for name, array in arrays.items():
        kind = "int32" if array.dtype == np.int32 else "float64"
        data = np.ascontiguousarray(array, "<i4" if kind == "int32" else "<f8").tobytes()
        listed.append({"name": name, "type": kind, "at": at, "count": array.size})
        data += bytes(-len(data) % 8)
        parts.append(data)
        at += len(data)
    text = json.dumps({**head, "arrays": listed}, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-(len(text) + 8) % 8)
    return b"".join((MAGIC, struct.pack("<I", len(text)), text, *parts))
