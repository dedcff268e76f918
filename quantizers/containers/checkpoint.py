"""Reading a checkpoint back: formats by unit, dequantized weights, and the tensors that were not quantized."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import BitwrightError, InvalidModel, UnknownName, Unsupported
from bitwright.core.formats import Format, parse_format
from bitwright.core.inventory import Unit
from gpu_kernels.kernels import widen
from quantizers.base import Stored
from quantizers.containers.base import MANIFEST, Container
from quantizers.containers.tensorfile import StoredTensor


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that `Container.write` made. Weights are read when asked for, one tensor at a time."""

    container: Container
    path: Path
    model_digest: str
    units: tuple[Unit, ...]
    unit_formats: tuple[Format, ...]
    tensors: Mapping[str, StoredTensor]

    @cached_property
    def _position(self) -> dict[str, int]:
        return {unit.name: i for i, unit in enumerate(self.units)}

    def formats(self) -> dict[str, Format]:
        """Unit name -> format."""
        return {unit.name: format for unit, format in zip(self.units, self.unit_formats, strict=True)}

    def quantized(self, unit_name: str) -> Stored:
        """Codes, scales and zero points as stored. Raises UnknownName, InvalidModel."""
        if unit_name not in self._position:
            raise UnknownName("the checkpoint has no such unit", got=repr(unit_name)[:120])
        at = self._position[unit_name]
        unit, format = self.units[at], self.unit_formats[at]
        for spec in self.container.unit_tensors(unit, format):
            stored = self.tensors.get(spec.name)
            if stored is None or (stored.dtype, stored.shape) != (spec.dtype, spec.shape):
                got = "nothing" if stored is None else f"{stored.dtype} {list(stored.shape)}"
                raise InvalidModel(
                    f"{spec.name} is not what {format.label} needs",
                    expected=f"{spec.dtype} {list(spec.shape)}",
                    got=got,
                )
        return self.container.decode(unit, format, self.raw)

    def dequantized(self, unit_name: str) -> NDArray[np.float32]:
        """float32 (out, in) weights of a unit."""
        return self.quantized(unit_name).dequantize()

    def raw(self, name: str) -> NDArray[Any]:
        """A stored tensor as it is (BF16 as uint16)."""
        if name not in self.tensors:
            raise UnknownName("the checkpoint has no such tensor", got=repr(name)[:120])
        return self.tensors[name].read()

    def rest_names(self) -> tuple[str, ...]:
        """Names of the tensors that belong to no unit."""
        used = {
            spec.name
            for unit, format in zip(self.units, self.unit_formats, strict=True)
            for spec in self.container.unit_tensors(unit, format)
        }
        return tuple(name for name in self.tensors if name not in used)

    def holds(self, name: str) -> bool:
        """Whether the model's tensor `name`, which is no unit, is in the checkpoint."""
        try:
            return self.container.rest_name(name) in self.tensors
        except Unsupported:  # a name that this container has no word for
            return False

    def read_float32(self, name: str) -> NDArray[np.float32]:
        """A whole model tensor in float32 by its original name: units dequantized, stacked experts put together."""
        mine = [unit for unit in self.units if unit.tensor == name]
        if not mine:
            stored = self.container.rest_name(name)
            data = _float32(self.raw(stored), self.tensors[stored].dtype)
            return self.container.decode_rest(name, data)
        if mine[0].index is None:
            return self.dequantized(mine[0].name)
        return np.stack([self.dequantized(u.name) for u in sorted(mine, key=lambda u: u.index or 0)])


def _float32(data: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    return widen(data) if dtype in ("BF16", "F16") else data.astype(np.float32)


def open_checkpoint(container: Container, path: Path) -> Checkpoint:
    """Open a folder written by `container`. Raises InvalidModel, also for a manifest that does not fit the files."""
    manifest = load_manifest(path)
    if manifest.get("bitwright_container") != container.name or manifest.get("version") != container.version:
        raise InvalidModel(
            f"{path.name} is not a {container.name} checkpoint",
            expected=f"{container.name} version {container.version}",
            got=f"{manifest.get('bitwright_container')!r} version {manifest.get('version')!r}"[:120],
        )
    try:
        units = tuple(_unit(entry) for entry in manifest["units"])
        formats = tuple(parse_format(str(entry["format"])) for entry in manifest["units"])
    except (KeyError, TypeError, ValueError, BitwrightError) as error:
        raise InvalidModel(f"{MANIFEST} cannot be read", got=str(error)[:200]) from error
    bound = container.for_folder(path)
    bound.confirm(path, units, formats)
    short = Checkpoint(bound, path, str(manifest.get("model")), units, formats, bound.stored(path))
    whole = tuple(bound.resolve(unit, format, short.raw) for unit, format in zip(units, formats, strict=True))
    return replace(short, unit_formats=whole)


def load_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder. Raises InvalidModel."""
    file = path / MANIFEST
    if not file.is_file():
        raise InvalidModel(
            f"{path.name} holds no {MANIFEST}",
            expected="a folder written by `bitwright execute`",
            got="a folder without it" if path.is_dir() else "no folder of that name",
        )
    try:
        data = json.loads(file.read_bytes())
    except ValueError as error:
        raise InvalidModel(f"{MANIFEST} is not JSON", got=str(error)[:120]) from error
    if not isinstance(data, dict):
        raise InvalidModel(f"{MANIFEST} is not a JSON object", got=type(data).__name__)
    return data


def _unit(entry: Mapping[str, Any]) -> Unit:
    out, inputs = (int(d) for d in entry["shape"])
    index = entry["index"]
    return Unit(
        str(entry["name"]), str(entry["tensor"]), (out, inputs), "F32", "", None if index is None else int(index)
    )
