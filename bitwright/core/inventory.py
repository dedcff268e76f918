"""What a model consists of: planned units, the unquantized rest, and the families that engines may tie."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from bitwright.core.errors import Unsupported

#: Bytes of one element by safetensors dtype name.
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


#: Types in which a bias can be corrected.
BIAS_DTYPES = ("F32", "F16", "BF16")
#: `model_type` of models that store matrices as (in, out) (transformers' Conv1D): a unit's rows are then its inputs.
IN_OUT = frozenset({"gpt2"})
#: Role of rest tensors that could be units, but stay unquantized because an engine asks for it.
KEPT = "kept"
#: Families of units that can be tied (Unit.families says what each is).
TieKind = Literal["qkv", "gate_up", "experts", "all_experts", "expert", "expert_role"]


@dataclass(frozen=True)
class Unit:
    """What gets one choice.

    name: unique; the stored tensor's name, plus `[e]` for matrix e of a stacked (3-D) expert tensor.
    tensor, index: where the weights lie: tensor name in the file, and the leading index of a stacked tensor.
    shape: (out, in) of the unit's matrix. dtype: as stored, safetensors spelling.
    module: role such as `self_attn.q_proj`, the column of the heat map. layer, expert: indices, or None.
    families: tie kinds to keys: units with the same key under a kind share a format where an engine ties that kind.
    Kinds: `qkv`, `gate_up`; of experts `expert` (one expert's matrices), `expert_role` (one role over a block),
    `experts` (all of a block), `all_experts` (all of the model).
    """

    name: str
    tensor: str
    shape: tuple[int, int]
    dtype: str
    module: str
    index: int | None = None
    layer: int | None = None
    expert: int | None = None
    families: Mapping[str, str] = field(default_factory=dict)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def stored_bytes(self) -> int:
        return self.elements * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class RestTensor:
    """A tensor that stays as it is, and why."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    reason: str
    role: str

    @property
    def stored_bytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class Inventory:
    """A model as the allocator sees it. `digest` is the content digest of weights and config.

    task: `causal-lm`, `image-classification`, `text-classification`, `embedding` or `unknown`.
    """

    ref: str
    digest: str
    architecture: str
    model_type: str
    task: str
    layers: int
    units: tuple[Unit, ...]
    rest: tuple[RestTensor, ...]
    warnings: tuple[str, ...] = ()

    @property
    def weights(self) -> int:
        """Elements of the planned units."""
        return sum(unit.elements for unit in self.units)

    @property
    def turned(self) -> bool:
        """Whether the matrices are stored as (in, out), which no engine's quantized layers read."""
        return self.model_type in IN_OUT

    @property
    def rest_bytes(self) -> int:
        return sum(tensor.stored_bytes for tensor in self.rest)

    @property
    def unit_stored_bytes(self) -> int:
        return sum(unit.stored_bytes for unit in self.units)

    def tie_ids(self, kinds: Iterable[str]) -> tuple[int, ...]:
        """One id a unit; units joined by any of the kinds (transitively) share an id, numbered by first member."""
        parent = list(range(len(self.units)))

        def find(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        first: dict[tuple[str, str], int] = {}
        wanted = tuple(kinds)
        for i, unit in enumerate(self.units):
            for kind in wanted:
                key = unit.families.get(kind)
                if key is not None:
                    a, b = find(first.setdefault((kind, key), i)), find(i)
                    parent[max(a, b)] = min(a, b)
        return tuple(find(i) for i in range(len(self.units)))

    def bias_of(self, unit: Unit) -> RestTensor | None:
        """The tensor that holds the bias of a unit's layer, one 16- or 32-bit float an output; None: it has none.

        Matrices of a stacked tensor have none of their own.
        """
        if unit.index is not None or not unit.tensor.endswith(".weight"):
            return None
        found = self._rest_by_name.get(unit.tensor.removesuffix("weight") + "bias")
        fits = found is not None and found.shape == unit.shape[:1] and found.dtype in BIAS_DTYPES
        return found if fits else None

    @cached_property
    def _rest_by_name(self) -> dict[str, RestTensor]:
        return {tensor.name: tensor for tensor in self.rest}

    def keep(self, names: Collection[str], reason: str) -> Inventory:
        """The same model with these units left unquantized: they join the rest, for `reason`.

        Raises Unsupported when only some matrices of a stacked tensor would stay.
        """
        stay = [unit for unit in self.units if unit.name in names]
        units = tuple(unit for unit in self.units if unit.name not in names)
        torn = {unit.tensor for unit in stay} & {unit.tensor for unit in units}
        if torn:
            raise Unsupported("a stacked tensor cannot stay unquantized in part", got=min(torn))
        merged: dict[str, RestTensor] = {}
        for unit in stay:
            count = sum(other.tensor == unit.tensor for other in stay) if unit.index is not None else None
            shape = unit.shape if count is None else (count, *unit.shape)
            merged[unit.tensor] = RestTensor(unit.tensor, shape, unit.dtype, reason, KEPT)
        return replace(self, units=units, rest=(*self.rest, *merged.values()))

    def coverage(self) -> dict[str, Any]:
        """What is not quantized and what that costs: bytes and share by role, for people and for JSON."""
        total = self.unit_stored_bytes + self.rest_bytes
        by_role: dict[str, dict[str, Any]] = {}
        for tensor in self.rest:
            row = by_role.setdefault(
                tensor.role, {"role": tensor.role, "reason": tensor.reason, "tensors": 0, "bytes": 0}
            )
            row["tensors"] += 1
            row["bytes"] += tensor.stored_bytes
        for row in by_role.values():
            row["share"] = row["bytes"] / total if total else 0.0
        return {
            "stored_bytes": total,
            "planned_bytes": self.unit_stored_bytes,
            "unquantized_bytes": self.rest_bytes,
            "planned_share": self.unit_stored_bytes / total if total else 0.0,
            "unquantized": sorted(by_role.values(), key=lambda row: -row["bytes"]),
        }

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "weights": self.weights, "coverage": self.coverage()}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Inventory:
        units = tuple(Unit(**{**u, "shape": tuple(u["shape"])}) for u in data["units"])
        rest = tuple(RestTensor(**{**t, "shape": tuple(t["shape"])}) for t in data["rest"])
        keys = ("ref", "digest", "architecture", "model_type", "task", "layers")
        return Inventory(**{k: data[k] for k in keys}, units=units, rest=rest, warnings=tuple(data["warnings"]))
