"""Small in-memory models for container tests: a source and its inventory, made from arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.inventory import Inventory, RestTensor, Unit


@dataclass(frozen=True)
class ToySource:
    """What containers need of a ModelSource."""

    path: Path
    arrays: Mapping[str, np.ndarray]
    config: Mapping[str, Any] = field(default_factory=dict)

    def read(self, name: str, index: int | None = None, rows: tuple[int, int] | None = None) -> np.ndarray:
        array = self.arrays[name] if index is None else self.arrays[name][index]
        return array if rows is None else array[slice(*rows)]

    def read_float32(self, name: str, index: int | None = None) -> np.ndarray:
        array = self.arrays[name] if index is None else self.arrays[name][index]
        return array.astype(np.float32)


DTYPES = {np.dtype("<f4"): "F32", np.dtype("<f2"): "F16", np.dtype("<i8"): "I64"}


def toy(folder: Path, shapes: Mapping[str, tuple[int, ...]], *, seed: int = 0) -> tuple[ToySource, Inventory]:
    """Units `<name>` of the shapes (3-D: stacked), and three rest tensors of odd sizes and mixed types."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {n: rng.standard_normal(s).astype(np.float16) for n, s in shapes.items()}
    units = []
    for name, shape in shapes.items():
        matrices = [None] if len(shape) == 2 else list(range(shape[0]))
        for index in matrices:
            unit_name = name if index is None else f"{name}[{index}]"
            units.append(Unit(unit_name, name, shape[-2:], "F16", "linear", index, 0, index))  # type: ignore[arg-type]
    rest = {
        "norm.weight": rng.standard_normal(7).astype(np.float16),
        "positions": np.arange(5, dtype=np.int64),
        "embed.weight": rng.standard_normal((11, 3)).astype(np.float32),
    }
    arrays.update(rest)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "toy"}))
    (folder / "tokenizer.json").write_text("{}")
    rests = tuple(RestTensor(n, a.shape, DTYPES[a.dtype], "not a linear", "other") for n, a in rest.items())
    inventory = Inventory("toy", "sha256:toy", "Toy", "toy", "unknown", 1, tuple(units), rests)
    return ToySource(folder, arrays, {"model_type": "toy"}), inventory
