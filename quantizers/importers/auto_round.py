"""AutoRound checkpoints: base settings and `extra_config` by module (research/04 section 5.4)."""

from __future__ import annotations

from pathlib import Path

from bitwright.core.errors import Unsupported
from bitwright.core.inventory import Inventory
from quantizers.importers.base import (
    Imported,
    Importer,
    int_format,
    left_alone,
    module_of,
    quantization_of,
    stored_names,
)


def recognizes(path: Path) -> bool:
    return path.is_dir() and quantization_of(path).get("quant_method") in ("auto-round", "intel/auto-round")


def read(path: Path, inventory: Inventory) -> Imported:
    """A module is quantized where the files hold its `qweight`. Raises Unsupported for data types other than int."""
    config, names = quantization_of(path), stored_names(path)
    if config.get("data_type", "int") != "int":
        raise Unsupported(
            "the checkpoint holds no integers", expected="data_type int", got=str(config["data_type"])[:40]
        )
    extra = config.get("extra_config") or {}
    found: dict[str, str] = {}
    for unit in inventory.units:
        module = module_of(unit)
        own = {**config, **(extra.get(module) or {})}
        if f"{module}.qweight" not in names:
            found[unit.name] = left_alone(unit)
        else:
            found[unit.name] = int_format(unit, own.get("bits"), own.get("group_size", -1), own.get("sym", True))
    return Imported(found)


IMPORTER = Importer(recognizes, read)
