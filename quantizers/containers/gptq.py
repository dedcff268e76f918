"""The `gptq` container: GPTQ checkpoints with GPTQModel's `dynamic`, for GPTQModel, transformers and vLLM.

Per module (research/07 section 2): `qweight` int32 (in*b/32, out), a stream down the inputs; `qzeros` int32
(groups, out*b/32), a stream along the outputs; `scales` float16 (groups, out); `g_idx` int32 (in). One layout a file:
`gptq` (v1: zero points stored less one) for symmetric plans, `gptq_v2` (as they are, so that a zero point of 0 can be
told) when a format is asymmetric, `gptq_p` (planar, zero points as they are) when a width is 5, 6 or 7.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.formats import FloatFormat, Format, IntFormat
from bitwright.core.inventory import Inventory, Unit
from bitwright.engines.exporters.gptqmodel import PLANAR_WIDTHS, quantize_config
from bitwright.engines.names import unfused_experts
from gpu_kernels.kernels import pack, unpack
from quantizers.base import PassThrough, Quantized, Stored
from quantizers.containers.base import Container, float_tensor
from quantizers.containers.tensorfile import TensorSpec
from quantizers.containers.units import plan_units

V1, V2, PLANAR = "gptq", "gptq_v2", "gptq_p"
CONFIG = "quantize_config.json"
#: Planes of the planar layout: (bits, shift), lowest first (GPTQModel 7.6).
PLANES: Mapping[int, tuple[tuple[int, int], ...]] = {
    2: ((2, 0),), 3: ((2, 0), (1, 2)), 4: ((4, 0),), 5: ((4, 0), (1, 4)), 6: ((4, 0), (2, 4)),
    7: ((4, 0), (2, 4), (1, 6)), 8: ((8, 0),),
}  # fmt: skip


@dataclass(frozen=True)
class GptqContainer(Container):
    """`layout`: of the whole file; it follows from the plan's formats."""

    layout: str = V1
    name: str = field(default="gptq", init=False)

    def for_formats(self, formats: Sequence[Format]) -> Container:
        ints = [format for format in formats if isinstance(format, IntFormat)]
        if any(format.width in PLANAR_WIDTHS for format in ints):
            return GptqContainer(PLANAR)
        return GptqContainer(V1 if all(format.symmetric for format in ints) else V2)

    def for_folder(self, path: Path) -> Container:
        layout = _config(path).get("checkpoint_format")
        if layout not in (V1, V2, PLANAR):
            raise InvalidModel(f"{CONFIG} names no layout", expected=f"{V1}, {V2} or {PLANAR}", got=repr(layout)[:40])
        return GptqContainer(str(layout))

    def check(self, inventory: Inventory, formats: Sequence[Format]) -> None:
        """Refuses what GPTQ has not: 1 bit, ragged groups, odd shapes, stacked experts, other families."""
        for unit, format in zip(inventory.units, formats, strict=True):
            why = _refusal(unit, format)
            if why is not None:
                raise Unsupported(
                    f"gptq cannot hold {unit.name} as {format.name}", expected=why, got=f"{format.name}, {unit.shape}",
                    hint="plan again with --engine gptqmodel, or use the packed container",
                )  # fmt: skip
        quantize_config(plan_units(inventory.units, formats))

    def unit_tensors(self, unit: Unit, format: Format) -> tuple[TensorSpec, ...]:
        if isinstance(format, FloatFormat):
            return float_tensor(unit, format, self.rest_name(unit.name))
        assert isinstance(format, IntFormat)
        module, (out, inputs) = _module(unit), unit.shape
        groups, width = format.groups(inputs), format.width
        return (
            TensorSpec(f"{module}.qweight", "I32", (inputs * width // 32, out)),
            TensorSpec(f"{module}.qzeros", "I32", (groups, out * width // 32)),
            TensorSpec(f"{module}.scales", "F16", (groups, out)),
            TensorSpec(f"{module}.g_idx", "I32", (inputs,)),
        )

    def encode(self, unit: Unit, value: Stored) -> dict[str, NDArray[Any]]:
        if isinstance(value, PassThrough):
            return {self.rest_name(unit.name): value.array}
        assert isinstance(value, Quantized)
        format, module = value.format, _module(unit)
        zeros = value.zeros if value.zeros is not None else np.full(value.scales.shape, format.middle, np.uint8)
        stored = (zeros - np.uint8(self.layout == V1)) & np.uint8((1 << format.width) - 1)
        return {
            f"{module}.qweight": np.ascontiguousarray(self._pack(value.codes, format.width).T).view(np.int32),
            f"{module}.qzeros": self._pack(np.ascontiguousarray(stored.T), format.width).view(np.int32),
            f"{module}.scales": np.ascontiguousarray(value.scales.T),
            f"{module}.g_idx": _group_index(format, unit.shape[1]),
        }

    def decode(self, unit: Unit, format: Format, tensors: Callable[[str], NDArray[Any]]) -> Stored:
        if isinstance(format, FloatFormat):
            return PassThrough(tensors(self.rest_name(unit.name)), format)
        assert isinstance(format, IntFormat)
        module, (out, inputs) = _module(unit), unit.shape
        if not np.array_equal(tensors(f"{module}.g_idx"), _group_index(format, inputs)):
            raise InvalidModel(f"{module}.g_idx is not in order", expected="groups one after another")
        words = np.ascontiguousarray(tensors(f"{module}.qweight").view(np.uint32).T)
        codes = self._unpack(words, format.width, inputs)
        zeros = self._unpack(tensors(f"{module}.qzeros").view(np.uint32), format.width, out)
        zeros = (zeros + np.uint8(self.layout == V1)) & np.uint8((1 << format.width) - 1)
        if format.symmetric and not (zeros == format.middle).all():
            raise InvalidModel(f"{module}.qzeros are not those of a symmetric format", expected=str(format.middle))
        zeros = np.ascontiguousarray(zeros.T)
        scales = np.ascontiguousarray(tensors(f"{module}.scales").T)
        return Quantized(codes, scales, None if format.symmetric else zeros, format)

    def rest_name(self, name: str) -> str:
        """Mixtral's experts and routers stand under the names that GPTQModel gives them."""
        return unfused_experts(name)

    def companions(
        self, inventory: Inventory, formats: Sequence[Format], config: Mapping[str, Any]
    ) -> dict[str, bytes]:
        """config.json with `quantization_config`, and the same in quantize_config.json."""
        found = self.config_of(inventory.units, formats)
        return {"config.json": _json({**config, "quantization_config": found}), CONFIG: _json(found)}

    def config_of(self, units: Sequence[Unit], formats: Sequence[Format]) -> dict[str, Any]:
        """The quantize config of this file."""
        found = quantize_config(plan_units(units, formats))
        return {**found, "checkpoint_format": self.layout, "lm_head": False, "meta": {"quantizer": ["bitwright:0"]}}

    def confirm(self, path: Path, units: Sequence[Unit], formats: Sequence[Format]) -> None:
        """quantize_config.json and config.json must say what the manifest says."""
        wanted = self.config_of(units, formats)
        for got in (_config(path), _read(path / "config.json").get("quantization_config")):
            if got != wanted:
                raise InvalidModel(
                    "the quantization config is not that of the manifest", expected=json.dumps(wanted)[:200],
                    got=json.dumps(got)[:200],
                )  # fmt: skip

    def _pack(self, codes: NDArray[np.uint8], width: int) -> NDArray[np.uint32]:
        """(rows, columns) to (rows, columns * width / 32), each row a stream, or 32 codes at a time in planes."""
        if self.layout != PLANAR or len(PLANES[width]) == 1:
            return pack(codes, width)
        rows, columns = codes.shape
        blocks = codes.reshape(-1, 32)
        planes = [pack(((blocks >> shift) & ((1 << bits) - 1)).astype(np.uint8), bits) for bits, shift in PLANES[width]]
        return np.ascontiguousarray(np.concatenate(planes, axis=1).reshape(rows, columns * width // 32))

    def _unpack(self, words: NDArray[np.uint32], width: int, columns: int) -> NDArray[np.uint8]:
        if self.layout != PLANAR or len(PLANES[width]) == 1:
            return unpack(np.ascontiguousarray(words), width, columns)
        blocks = np.ascontiguousarray(words).reshape(-1, width)
        found = np.zeros((blocks.shape[0], 32), np.uint8)
        start = 0
        for bits, shift in PLANES[width]:
            plane = unpack(np.ascontiguousarray(blocks[:, start : start + bits]), bits, 32)
            found |= plane << np.uint8(shift)
            start += bits
        return found.reshape(words.shape[0], columns)


CONTAINER = GptqContainer()


def _module(unit: Unit) -> str:
    return unfused_experts(unit.name.removesuffix(".weight"))


def _group_index(format: IntFormat, inputs: int) -> NDArray[np.int32]:
    return np.arange(inputs, dtype=np.int32) // np.int32(min(format.group or inputs, inputs))


def _refusal(unit: Unit, format: Format) -> str | None:
    if isinstance(format, FloatFormat):
        return None if unit.index is None else "one matrix a tensor"
    if not isinstance(format, IntFormat) or not format.plain or format.width == 1:
        return "an integer format of 2 to 8 bits with float16 scales, bf16 or fp16"
    if unit.layer is None:
        return "bf16 or fp16 for units outside the blocks (lm_head): GPTQ leaves them unquantized"
    if unit.index is not None or not unit.name.endswith(".weight"):
        return "a module's own `.weight`, not an expert of a stacked tensor"
    return None


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _config(path: Path) -> dict[str, Any]:
    return _read(path / CONFIG)


def _read(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidModel(f"{file.name} cannot be read", got=str(error)[:120]) from error
    if not isinstance(data, dict):
        raise InvalidModel(f"{file.name} is not a JSON object", got=type(data).__name__)
    return data
