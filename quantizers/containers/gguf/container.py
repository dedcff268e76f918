"""The `gguf` container: `model.gguf` with a ggml type a tensor, loadable by llama.cpp, beside the manifest.

Units: formats that ggml holds exactly (int4-, int5- and int8-sym-g32 are q4_0, q5_0 and q8_0), its block types, bf16
and fp16. The rest: vectors and routers in float32, as llama.cpp wants them, other matrices in their own type; copies of
a tied head, position indices and rotary frequencies are left out. Rows of q and k of the Llama family are reordered,
since llama.cpp rotates neighbouring pairs where transformers rotates halves.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidInput, InvalidModel, Unsupported
from bitwright.core.formats import FloatFormat, Format, IntFormat
from bitwright.core.ggml import GGML_INTS, GGML_TYPES, GgmlType
from bitwright.core.gguf_names import GgufPlace, gguf_places
from bitwright.core.inventory import Inventory, RestTensor, Unit
from bitwright.models.gguf_header import read_gguf
from bitwright.models.rope import rope_factors
from bitwright.models.weights import to_float32
from quantizers.base import PassThrough, Stored
from quantizers.containers.base import Container, Source
from quantizers.containers.gguf.blocks import decode_blocks, encode_blocks
from quantizers.containers.gguf.layout import Stored as FileTensor
from quantizers.containers.gguf.layout import Value, lay_out_gguf
from quantizers.containers.gguf.metadata import architecture_of, heads, model_metadata
from quantizers.containers.gguf.tokenizer import tokenizer_metadata
from quantizers.containers.tensorfile import FileLayout, StoredTensor, TensorSpec

FILE = "model.gguf"
#: Roles of the rest that a GGUF file does not hold.
LEFT_OUT = frozenset({"tied_head", "rotary", "index", "pooler"})
_FLOATS = {"BF16": "bf16", "F16": "f16", "F32": "f32"}
_DTYPES = {"bf16": "BF16", "f16": "F16", "f32": "F32"}
_ROTATED = re.compile(r"blk\.[0-9]+\.attn_(?P<role>[qk])\.(?:weight|bias)")
#: Matrices of the rest that llama.cpp wants in float32 all the same.
_WANT_FLOAT = re.compile(r".*ffn_gate_inp(?:_shexp)?\.weight|position_embd\.weight|token_types\.weight")


@dataclass(frozen=True)
class GgufContainer(Container):
    """Unbound (the catalog's), or bound to a model by `for_source` or to a folder by `for_folder`.

    rotated: heads of q and of k whose rows are reordered; None where they are not. known: `rope_freqs.weight`.
    """

    metadata_values: Mapping[str, Value] | None = None
    rotated: tuple[int, int] | None = None
    known: bytes | None = None
    name: str = field(default="gguf", init=False)

    def for_source(self, source: Source) -> Container:
        """Raises InvalidModel for a config that cannot be meant, Unsupported for one that llama.cpp has not."""
        try:
            return _bound_to(source)
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, struct.error) as error:
            raise InvalidModel(
                "config.json cannot be told to llama.cpp",
                expected="members of their usual types and sizes",
                got=f"{type(error).__name__}: {error}"[:160],
            ) from error

    def for_folder(self, path: Path) -> Container:
        metadata = _header(path).metadata
        if metadata.get("general.architecture") != "llama":
            return GgufContainer({}, None)
        queries, keys = (metadata.get(f"llama.attention.head_count{end}") for end in ("", "_kv"))
        if type(queries) is not int or type(keys) is not int or queries < 1 or keys < 1:
            raise InvalidModel(f"{FILE} does not say its heads", expected="positive integers", got=f"{queries}, {keys}")
        return GgufContainer({}, (queries, keys))

    def check(self, inventory: Inventory, formats: Sequence[Format]) -> None:
        """Every unit has a name and a type there, experts of a role share one, and blocks divide the rows."""
        if self.metadata_values is None:
            raise InvalidInput(
                "a GGUF file holds config and tokenizer, so its size needs the model", expected="source="
            )
        kinds: dict[str, tuple[str, str]] = {}
        for unit, format in zip(inventory.units, formats, strict=True):
            kind, places = ggml_type(format), places_of(unit)
            if not places:
                raise _unsupported(unit, format, "a tensor that llama.cpp has a name for", "no name in its map")
            if kind is None:
                raise _unsupported(unit, format, f"{', '.join(GGML_INTS)}, bf16, fp16 or a ggml type", "another format")
            if unit.shape[1] % kind.block:
                got = f"{unit.shape[1]} inputs"
                raise _unsupported(unit, format, f"rows in whole blocks of {kind.block}", got)
            for place in places:
                first, name = kinds.setdefault(place.name, (kind.name, unit.name))
                if first != kind.name:
                    raise _unsupported(
                        unit, format, f"one type for all experts of a role, {first} as {name}", kind.name
                    )

    def unit_tensors(self, unit: Unit, format: Format) -> tuple[TensorSpec, ...]:
        """One tensor, or its slice of a stack of experts; a fused gate_up_proj is two."""
        places, kind = places_of(unit), ggml_type(format)
        if kind is None or not places:
            raise _unsupported(unit, format, "a name and a type in GGUF files", "none")
        rows, size = unit.shape[0] // len(places), kind.bytes * (unit.shape[1] // kind.block)
        if isinstance(format, FloatFormat):
            return tuple(TensorSpec(_slice(p), format.dtype, (rows, unit.shape[1])) for p in places)
        return tuple(TensorSpec(_slice(p), "U8", (rows, size)) for p in places)

    def encode(self, unit: Unit, value: Stored) -> dict[str, NDArray[Any]]:
        data = value.array if isinstance(value, PassThrough) else encode_blocks(value)
        places = places_of(unit)
        data = self._reordered(data, places[0], back=False)
        return {_slice(p): part for p, part in zip(places, np.split(data, len(places)), strict=True)}

    def decode(self, unit: Unit, format: Format, tensors: Callable[[str], NDArray[Any]]) -> Stored:
        places = places_of(unit)
        data = np.concatenate([tensors(_slice(place)) for place in places])
        data = self._reordered(data, places[0], back=True)
        if isinstance(format, FloatFormat):
            return PassThrough(data, format)
        return decode_blocks(data, format, unit.shape[1])

    def rest_tensors(self, tensor: RestTensor) -> tuple[TensorSpec, ...]:
        if tensor.role in LEFT_OUT or tensor.name.endswith(("pooler.dense.bias", "position_ids")):
            return ()
        name = self.rest_name(tensor.name)
        if tensor.dtype not in (*_FLOATS, "F64") or len(tensor.shape) > 2:
            raise Unsupported(
                f"a GGUF file cannot hold {tensor.name[:200]} as it is", expected="a float vector or matrix",
                got=f"{tensor.dtype} {list(tensor.shape)}", hint="use the packed container",
            )  # fmt: skip
        wide = len(tensor.shape) < 2 or tensor.dtype == "F64" or _WANT_FLOAT.fullmatch(name)
        return (TensorSpec(name, "F32" if wide else tensor.dtype, tensor.shape),)

    def encode_rest(self, tensor: RestTensor, data: NDArray[Any]) -> dict[str, NDArray[Any]]:
        (spec,) = self.rest_tensors(tensor)
        array = to_float32(data, tensor.dtype) if spec.dtype == "F32" else data
        return {spec.name: self._reordered(array, GgufPlace(spec.name), back=False)}

    def decode_rest(self, name: str, data: NDArray[Any]) -> NDArray[Any]:
        return self._reordered(data, GgufPlace(self.rest_name(name)), back=True)

    def rest_name(self, name: str) -> str:
        places = gguf_places(name)
        if len(places) != 1 or places[0].expert is not None:
            raise Unsupported(
                f"llama.cpp has no name for {name[:200]}", expected="a tensor of its map", got="another one",
                hint="use the packed container",
            )  # fmt: skip
        return places[0].name

    def files(
        self,
        inventory: Inventory,
        formats: Sequence[Format],
        groups: Sequence[Sequence[TensorSpec]],
        max_shard_bytes: int,
    ) -> tuple[list[FileLayout], dict[str, bytes]]:
        """One file, whatever its size: slices of experts put together into their stacks."""
        tensors: dict[str, FileTensor] = {}
        if self.known is not None:
            shape = (len(self.known) // 4,)
            tensors["rope_freqs.weight"] = FileTensor("rope_freqs.weight", GGML_TYPES["f32"], shape, (), self.known)
        for unit, format, group in zip(inventory.units, formats, groups, strict=False):
            kind = ggml_type(format)
            assert kind is not None
            for place, spec in zip(places_of(unit), group, strict=True):
                _add(tensors, place, kind, (spec.shape[0], unit.shape[1]), spec)
        for group in groups[len(inventory.units) :]:
            for spec in group:
                _add(tensors, GgufPlace(spec.name), GGML_TYPES[_FLOATS[spec.dtype]], _squeezed(spec.shape), spec)
        _check_stacks(tensors)
        return [lay_out_gguf(FILE, self.metadata_values or {}, list(tensors.values()))], {}

    def bound(self, inventory: Inventory, menu: Sequence[Format], max_shard_bytes: int) -> int:
        """Names, shapes and metadata do not depend on the formats; only the padding of each tensor does."""
        held = [f for f in menu if ggml_type(f) is not None]
        if not held or not inventory.units:
            raise InvalidInput("a bound needs a menu of formats that ggml holds", got="none of the menu")
        tables = [[self._fitting(unit, f) for f in held] for unit in inventory.units]
        widest = [max((s for s in row if s is not None), key=_size, default=None) for row in tables]
        groups = [g or () for g in widest] + [self.rest_tensors(t) for t in inventory.rest]
        names = {spec.name.split("[")[0] for group in groups for spec in group}
        table = sum(len(name) + 8 + 4 + 4 * 8 + 4 + 8 for name in names)
        head = len(lay_out_gguf(FILE, self.metadata_values or {}, []).header) + len(self.known or b"") + 128
        rest = sum(spec.nbytes for group in groups[len(inventory.units) :] for spec in group) - inventory.rest_bytes
        longest = max(held, key=lambda format: len(format.name))
        manifest = len(self.manifest(inventory, [longest] * len(inventory.units)))
        return head + table + 32 * (len(names) + 2) + rest + manifest

    def stored(self, path: Path) -> dict[str, StoredTensor]:
        """Tensors and, of stacks, their slices; quantized ones as rows of bytes."""
        found: dict[str, StoredTensor] = {}
        for tensor in _header(path).tensors.values():
            rows, size = math.prod(tensor.shape[:-1]), tensor.shape[-1] // tensor.kind.block * tensor.kind.bytes
            dtype = _DTYPES.get(tensor.kind.name, "U8")
            inner = tensor.shape[-1] if dtype != "U8" else size
            file = path / FILE
            if len(tensor.shape) < 3:
                shape = tensor.shape if dtype != "U8" else (rows, size)
                found[tensor.name] = StoredTensor(tensor.name, dtype, shape, file, tensor.start, tensor.end)
                continue
            each = tensor.shape[-2] * size
            for expert in range(tensor.shape[0]):
                name, start = f"{tensor.name}[{expert}]", tensor.start + expert * each
                found[name] = StoredTensor(name, dtype, (tensor.shape[-2], inner), file, start, start + each)
        return found

    def confirm(self, path: Path, units: Sequence[Unit], formats: Sequence[Format]) -> None:
        """The file's own types must be those that the manifest names."""
        tensors = _header(path).tensors
        for unit, format in zip(units, formats, strict=True):
            kind = ggml_type(format)
            for place in places_of(unit):
                got = tensors.get(place.name)
                if kind is None or got is None or got.kind != kind:
                    raise InvalidModel(
                        f"{FILE} stores {unit.name} otherwise than the manifest says",
                        expected=format.name, got="nothing" if got is None else got.kind.name,
                    )  # fmt: skip

    def _fitting(self, unit: Unit, format: Format) -> tuple[TensorSpec, ...] | None:
        kind = ggml_type(format)
        return None if kind is None or unit.shape[1] % kind.block else self.unit_tensors(unit, format)

    def _reordered(self, data: NDArray[Any], place: GgufPlace, *, back: bool) -> NDArray[Any]:
        """Rows of q and k: each head's two halves interleaved (back: apart again)."""
        match = _ROTATED.fullmatch(place.name)
        if match is None or self.rotated is None:
            return data
        count = self.rotated[match["role"] == "k"]
        rows = data.shape[0]
        order = np.arange(rows).reshape(count, 2, rows // count // 2).swapaxes(1, 2).reshape(-1)
        if not back:
            return np.ascontiguousarray(data[order])
        inverse = np.empty_like(order)
        inverse[order] = np.arange(rows)
        return np.ascontiguousarray(data[inverse])


def _bound_to(source: Source) -> GgufContainer:
    config = dict(source.config)
    model_type = str(config.get("model_type", ""))
    config["_bitwright_pooling"] = _pooling(source.path)
    values = model_metadata(config, model_type, str(config.get("_name_or_path") or source.path.name)[:200])
    values |= tokenizer_metadata(source.path, config)
    if model_type == "bert":
        values["tokenizer.ggml.token_type_count"] = Value("u32", int(config.get("type_vocab_size") or 2))
    factors = None if model_type == "bert" else rope_factors(config)
    rotated = heads(config) if architecture_of(model_type) == "llama" else None
    lay_out_gguf(FILE, values, [])  # every value fits its type
    return GgufContainer(values, rotated, None if factors is None else factors.tobytes())


CONTAINER = GgufContainer()


def ggml_type(format: Format) -> GgmlType | None:
    """The ggml type that holds a format exactly, or None."""
    if isinstance(format, FloatFormat):
        return GGML_TYPES[_FLOATS[format.dtype]]
    name = GGML_INTS.get(format.name, "") if isinstance(format, IntFormat) else format.name
    return GGML_TYPES.get(name)


def places_of(unit: Unit) -> tuple[GgufPlace, ...]:
    return gguf_places(unit.tensor, unit.index)


def _slice(place: GgufPlace) -> str:
    return place.name if place.expert is None else f"{place.name}[{place.expert}]"


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A matrix of one row is a vector there (the gate of shared experts)."""
    return shape[1:] if len(shape) == 2 and shape[0] == 1 else shape


def _add(
    tensors: dict[str, FileTensor], place: GgufPlace, kind: GgmlType, shape: tuple[int, ...], spec: TensorSpec
) -> None:
    part = (spec.name, spec.nbytes)
    if place.expert is None:
        tensors[place.name] = FileTensor(place.name, kind, shape, (part,))
        return
    before = tensors.get(place.name)
    parts = (*(before.parts if before else ()), part)
    tensors[place.name] = FileTensor(place.name, kind, (len(parts), *shape), parts)


def _check_stacks(tensors: Mapping[str, FileTensor]) -> None:
    """Every stack holds experts 0, 1, 2 ... in order and of one size."""
    for tensor in tensors.values():
        names = [f"{tensor.name}[{i}]" for i in range(len(tensor.parts))]
        if len(tensor.shape) == 3 and ([n for n, _ in tensor.parts] != names or len({s for _, s in tensor.parts}) > 1):
            raise Unsupported(f"the experts of {tensor.name} are not whole", expected="all of one shape, from 0 on")


def _size(specs: Sequence[TensorSpec]) -> int:
    return sum(spec.nbytes for spec in specs)


def _unsupported(unit: Unit, format: Format, expected: str, got: str) -> Unsupported:
    return Unsupported(
        f"gguf cannot hold {unit.name} as {format.name}", expected=expected, got=got,
        hint="plan again with --engine llama.cpp, whose menu holds what this container can store",
    )  # fmt: skip


def _header(path: Path) -> Any:
    return read_gguf(path / FILE)


def _pooling(folder: Path) -> int:
    """llama.cpp's pooling type of a sentence-transformers folder: 0 none, 1 mean, 2 CLS."""
    file = folder / "1_Pooling" / "config.json"
    try:
        data = json.loads(file.read_bytes()) if file.is_file() and file.stat().st_size < 1 << 16 else {}
    except ValueError:
        data = {}
    if data.get("pooling_mode_mean_tokens") is True:
        return 1
    return 2 if data.get("pooling_mode_cls_token") is True else 0
