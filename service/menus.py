"""Preflight for pictures: what every engine loads of a stored table or of a plan, and tables as columns kept ready."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from bitwright.core.formats import parse_format
from bitwright.core.plan import Plan, load_plan
from bitwright.core.table import load_table
from bitwright.engines.columns import columns_key, save_columns
from bitwright.engines.menus import menus_document
from bitwright.jobs.blobs import BlobStore
from bitwright.models.planned import inventory_of
from service.replies import json_bytes


@lru_cache(maxsize=8)
def menus_json(path: Path, digest: str) -> bytes:
    """`menus_document` of a stored table, kept ready."""
    table = load_table(path)
    return json_bytes({"digest": digest, **menus_document(table.inventory, table.kinds)})


def plan_menus(plan: Plan) -> dict[str, Any]:
    """The same for a plan alone, over the formats that it uses; of a mixed format its label says all that matters."""
    inventory = inventory_of(plan)
    return menus_document(inventory, tuple(dict.fromkeys(parse_format(unit.format).label for unit in plan.units)))


def plan_menus_of(blobs: BlobStore, path: Path, digest: str) -> bytes:
    """`plan_menus` of a stored plan as JSON, kept: at 50,000 units a plan takes seconds to read."""

    def build(to: Path) -> None:
        to.write_bytes(json_bytes({"digest": digest, **plan_menus(load_plan(path))}))

    return blobs.memo("menus", columns_key(digest), build).read_bytes()


def columns_of(blobs: BlobStore, path: Path, digest: str) -> bytes:
    """A stored table as columns. A worker keeps them when its job ends; made here for tables that came otherwise."""
    kept = blobs.memo("columns", columns_key(digest), lambda to: save_columns(load_table(path), digest, to))
    return kept.read_bytes()
