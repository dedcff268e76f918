"""An upper bound of a checkpoint's overhead before the formats are known, for budgets in bytes of the whole file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bitwright.core.errors import InvalidInput
from bitwright.core.formats import Format, MixedFormat
from bitwright.core.inventory import Inventory, Unit
from quantizers.containers.base import Container
from quantizers.containers.tensorfile import TensorSpec

#: `model-00001-of-00002.safetensors`
_SHARD_NAME = 32


def overhead_bound(container: Container, inventory: Inventory, menu: Sequence[Format], max_shard_bytes: int) -> int:
    """Bytes of headers, index and manifest that no choice from `menu` exceeds. Raises InvalidInput: an empty menu."""
    if not menu:
        raise InvalidInput("a bound needs a menu of formats", expected="at least one format", got="none")
    choices = [[container.unit_tensors(unit, f) for f in _options(unit, menu)] for unit in inventory.units]
    rest = [container.rest_tensors(tensor) for tensor in inventory.rest]
    largest = sum(max(_data(specs) for specs in options) for options in choices) + sum(map(_data, rest))
    digits = len(str(largest))
    groups = len(choices) + len(rest)
    files = min(groups, 2 * -(-largest // max_shard_bytes) + 1) if largest > max_shard_bytes else 1
    headers = sum(max(_entries(specs, digits) for specs in options) for options in choices)
    headers += sum(_slack(unit, menu) for unit in inventory.units)
    headers += sum(_entries(specs, digits) for specs in rest)
    frame = 8 + 7 + len(_json({"__metadata__": container.metadata()}))
    extra = sum(_extra(container, unit, menu) for unit in inventory.units)
    extra += sum(map(_data, rest)) - inventory.rest_bytes
    index = _index(choices, rest, digits) if files > 1 else 0
    return headers + files * frame + extra + index + _manifest_bound(container, inventory, menu)


def _manifest_bound(container: Container, inventory: Inventory, menu: Sequence[Format]) -> int:
    """The manifest names each unit's format once: the longest name for every unit."""
    longest = max(menu, key=lambda format: len(_json(format.name)))
    return len(container.manifest(inventory, [longest] * len(inventory.units)))


def _options(unit: Unit, menu: Sequence[Format]) -> list[Format]:
    """The formats with the most tensors: a mixed format without a choice stands for all its choices."""
    return [f.fullest(unit.shape) if isinstance(f, MixedFormat) and not f.choice else f for f in menu]


def _slack(unit: Unit, menu: Sequence[Format]) -> int:
    """Digits by which line numbers of other choices can be longer than those of the fullest one."""
    members = max((len(f.members) for f in menu if isinstance(f, MixedFormat)), default=0)
    return 3 * members * len(str(unit.elements))


def _data(specs: Sequence[TensorSpec]) -> int:
    return sum(spec.nbytes for spec in specs)


def _extra(container: Container, unit: Unit, menu: Sequence[Format]) -> int:
    """Bytes of tensors beyond what the format charges (compressed-tensors stores each unit's shape)."""
    options = _options(unit, menu)
    return max(_data(container.unit_tensors(unit, format)) - format.storage(unit.shape).bytes for format in options)


def _entries(specs: Sequence[TensorSpec], digits: int) -> int:
    return sum(
        len(_json(spec.name)) + len(_json({"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [0, 0]}))
        + 2 * digits + 2
        for spec in specs
    )  # fmt: skip


def _index(choices: Sequence[Sequence[Sequence[TensorSpec]]], rest: Sequence[Sequence[TensorSpec]], digits: int) -> int:
    def size(specs: Sequence[TensorSpec]) -> int:
        return sum(len(_json(spec.name)) + _SHARD_NAME + 4 for spec in specs)

    return sum(max(map(size, options)) for options in choices) + sum(map(size, rest)) + digits + 64


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
