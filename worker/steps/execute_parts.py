"""Executing by several workers: units in runs of nearly equal size, one part each, and a checkpoint of the very bytes
that one worker would have written.

A part quantizes and packs its units; the job then only puts the bytes in their places, and reads everything back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.canonical import canonical_json
from bitwright.core.formats import parse_format
from bitwright.core.inventory import Inventory
from bitwright.core.plan import Plan, plan_from_json
from bitwright.models import ModelSource
from quantizers.containers.base import Container, Made
from quantizers.containers.catalog import CONTAINERS
from worker.fanout import cut_by, other_version, shared, spread
from worker.leftovers import PARTS
from worker.steps.context import Context
from worker.steps.quantizing import Maker, planned_quantizer, units_context

#: In the folder of a part: the bytes of its units one after another, and the number, checksum and tensors of each unit.
DATA, INDEX = "data", "index.json"


def make_in_parts(
    plan: Plan, calibration: str | None, inventory: Inventory, container: Container, maker: Maker, context: Context
) -> tuple[dict[int, Made], list[Path]]:
    """(unit number -> how to read it, the parts' folders); nothing when the work is not cut.

    calibration: reference of the text that the quantizer reads. Raises FanOut while parts are missing.
    """
    if not shared(context):
        return {}, []
    question = {
        "model": plan.model.ref,
        "digest": inventory.digest,
        "plan": context.blobs.put_json(PARTS, plan.to_json()),
        "calibration": calibration,
        "quantizer": maker.key,
        "container": [container.name, container.version],
    }
    runs = cut_by([unit.elements for unit in inventory.units], context.settings.shards)
    items = [{**question, "units": [run.start, run.stop]} for run in runs]
    paths = spread(context, "write", "worker.steps.execute_parts:run", items)
    return {number: made for path in paths for number, made in _read(path).items()}, paths


def run(item: Mapping[str, Any], context: Context, path: Path) -> None:
    """One part: some units, quantized and packed."""
    from worker.steps.execute import match

    plan = plan_from_json(json.loads(context.blobs.get(PARTS, item["plan"])))
    source, inventory = context.open(item["model"])
    maker = planned_quantizer(plan, item["calibration"], source, inventory, context)
    if maker.key != item["quantizer"]:
        raise other_version(str(item["quantizer"]), str(maker.key))
    inventory, names = match(plan, inventory)
    container: Container = CONTAINERS.load(item["container"][0])
    _write(path, range(*item["units"]), source, inventory, names, container, maker, context)


def _write(
    path: Path, units: range, source: ModelSource, inventory: Inventory, names: list[str], container: Container,
    maker: Maker, context: Context,
) -> None:  # fmt: skip
    path.mkdir()
    index = []
    formats = [parse_format(name) for name in names]
    made = container.make(
        source, inventory, formats, units,
        quantizer=maker.name, context=units_context(maker), context_key=maker.context_key,
    )  # fmt: skip
    with (path / DATA).open("wb") as file:
        for number, arrays, mark in made:
            index.append([number, mark, [[name, array.nbytes] for name, array in arrays.items()]])
            for array in arrays.values():
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            context.progress("write", (number - units.start + 1) / len(units), inventory.units[number].name)
    (path / INDEX).write_bytes(canonical_json(index))


def _read(path: Path) -> dict[int, Made]:
    found: dict[int, Made] = {}
    start = 0
    for number, mark, tensors in json.loads((path / INDEX).read_bytes()):
        found[number] = partial(_unit, path / DATA, start, mark, tensors)
        start += sum(size for _, size in tensors)
    return found


def _unit(data: Path, start: int, mark: int, tensors: list[tuple[str, int]]) -> tuple[dict[str, NDArray[Any]], int]:
    arrays: dict[str, NDArray[Any]] = {}
    with data.open("rb") as file:
        file.seek(start)
        for name, size in tensors:
            arrays[name] = np.frombuffer(file.read(size), np.uint8)
    return arrays, mark
