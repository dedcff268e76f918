"""A GGUF file's own mix: the ggml type of every unit."""

from __future__ import annotations

from pathlib import Path

from bitwright.core.errors import InvalidPlan, Unsupported
from bitwright.core.formats import GGML_FORMATS
from bitwright.core.gguf_names import gguf_places
from bitwright.core.inventory import Inventory, Unit
from bitwright.models.gguf_header import read_gguf
from quantizers.importers.base import Imported, Importer

_FLOATS = {"f16": "fp16", "bf16": "bf16", "f32": "fp16"}


def recognizes(path: Path) -> bool:
    return path.is_file() and path.suffix == ".gguf"


def read(path: Path, inventory: Inventory) -> Imported:
    """Raises InvalidPlan for a file of another model, Unsupported for types that have no format here."""
    tensors = read_gguf(path).tensors
    found: dict[str, str] = {}
    notes: list[str] = []
    for unit in inventory.units:
        kinds = set()
        for place in gguf_places(unit.tensor, unit.index):
            tensor = tensors.get(place.name)
            if tensor is None and unit.layer is None:
                tensor = tensors.get("token_embd.weight")  # a tied head has no tensor of its own
            rows = unit.shape[0] // place.half[1]
            if tensor is None or tensor.shape[-2:] != (rows, unit.shape[1]):
                raise InvalidPlan(
                    "the GGUF file is of another model", expected=f"{place.name} of {rows} x {unit.shape[1]}",
                    got="no such tensor" if tensor is None else f"{tensor.shape}",
                    hint="name the model it was made from",
                )  # fmt: skip
            kinds.add(tensor.kind.name)
        found[unit.name] = format_of(unit, kinds)
        if kinds == {"f32"}:
            notes.append(f"{unit.name} is stored in float32; the plan says fp16")
    return Imported(found, tuple(notes[:20]))


def format_of(unit: Unit, kinds: set[str]) -> str:
    """The format of a unit stored in these ggml types. Raises Unsupported."""
    if not kinds:
        raise Unsupported(f"{unit.name} has no name in GGUF files", expected="a tensor of llama.cpp's map", got="none")
    kind = min(kinds)
    if len(kinds) > 1 or not (kind in GGML_FORMATS or kind in _FLOATS):
        raise Unsupported(
            f"{unit.name} is stored in a type that no format here says",
            expected=f"{', '.join(GGML_FORMATS)}, f16, bf16 or f32", got=", ".join(sorted(kinds)),
        )  # fmt: skip
    return _FLOATS.get(kind, kind)


IMPORTER = Importer(recognizes, read)
