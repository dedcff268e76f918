"""ModelOpt checkpoints: `quantized_layers` of hf_quant_config.json or config.json (research/04 section 5.7)."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bitwright.core.errors import Unsupported
from bitwright.core.inventory import Inventory, Unit
from quantizers.importers.base import Imported, Importer, int_format, left_alone, module_of, quantization_of, read_json

#: Algorithms whose grid a format here holds: bits and group of symmetric integers, or a format's name.
_INTS: Mapping[str, tuple[int, int]] = {
    "W4A16_AWQ": (4, 128), "INT4_AWQ": (4, 128), "W8A16": (8, -1), "W4A16": (4, 128), "INT8_WO": (8, -1),
}  # fmt: skip
_NAMED = {"FP8": "fp8-e4m3", "NVFP4": "nvfp4", "W4A16_NVFP4": "nvfp4", "MXFP8": "mxfp8"}


def _config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        return {}
    found = quantization_of(path)
    if str(found.get("quant_method", "")) == "modelopt" or "quantized_layers" in found:
        return found
    return dict(read_json(path / "hf_quant_config.json").get("quantization") or {})


def recognizes(path: Path) -> bool:
    config = _config(path)
    return "quantized_layers" in config or "quant_algo" in config


def read(path: Path, inventory: Inventory) -> Imported:
    """Raises Unsupported for an algorithm that no format here says: never guessed, never taken as unquantized."""
    config = _config(path)
    layers = config.get("quantized_layers") or {}
    excluded = [str(name) for name in config.get("exclude_modules") or config.get("ignore") or []]
    mixed = str(config.get("quant_algo", "MIXED_PRECISION")) == "MIXED_PRECISION"
    found: dict[str, str] = {}
    for unit in inventory.units:
        module = module_of(unit)
        settings = layers.get(module) if mixed else config
        if settings is None or any(fnmatchcase(module, pattern) for pattern in excluded):
            found[unit.name] = left_alone(unit)
        else:
            found[unit.name] = _format(unit, settings)
    notes = ("ModelOpt's AWQ scales its inputs, which a plan does not say",) if "AWQ" in str(config) else ()
    return Imported(found, notes)


def _format(unit: Unit, settings: Mapping[str, Any]) -> str:
    algorithm = str(settings.get("quant_algo"))
    if algorithm in _INTS:
        bits, group = _INTS[algorithm]
        return int_format(unit, bits, settings.get("group_size") or group, True)
    if algorithm in _NAMED:
        return _NAMED[algorithm]
    raise Unsupported(
        f"{unit.name} is stored in a way that no format here says", expected=", ".join([*_INTS, *_NAMED]), got=algorithm
    )


IMPORTER = Importer(recognizes, read)
