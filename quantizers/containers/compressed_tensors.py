"""The `compressed-tensors` container: `pack-quantized` checkpoints that transformers and vLLM load.

Layout (compressed-tensors 0.18 to 0.20, research/07 section 2; up to 0.17, widths 3, 5, 6 and 7 were packed otherwise):
per module `weight_packed` int32 (out, ceil(in*b/32)), `weight_scale` float16 (out, groups), `weight_shape` int64 (2),
for asymmetric formats `weight_zero_point` int32 (ceil(out*b/32), groups), and in config.json one config group a format
whose targets are exact module names.

A file that no engine loads is labelled (worker.steps.served); what the layout itself cannot say is refused:
- stacked experts: the layout has one matrix a tensor;
- groups that do not divide the inputs: the library's decompressor refuses them.

transformers fuses experts while loading and decodes all of them with one config group, so it wants one integer format
for them all; vLLM wants one a block; neither says a word about more. Zero points are read by the library and by vLLM;
transformers 5.23 refuses such a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.formats import FloatFormat, Format, IntFormat
from bitwright.core.inventory import Inventory, Unit
from bitwright.engines.exporters.compressed_tensors import (
    EXPERTS,
    expert_pattern,
    quantization_config,
    weight_arguments,
)
from bitwright.engines.names import architecture_of, module_in_memory
from gpu_kernels.kernels import pack, unpack
from quantizers.base import PassThrough, Quantized, Stored
from quantizers.containers.base import Container, float_tensor, stored_words
from quantizers.containers.tensorfile import TensorSpec
from quantizers.containers.units import plan_units

_HINT = "plan again with --engine transformers, whose menu holds what this container can store"


class CompressedTensorsContainer(Container):
    """`<module>.weight_packed`, `.weight_scale`, `.weight_shape`."""

    name = "compressed-tensors"

    def check(self, inventory: Inventory, formats: Sequence[Format]) -> None:
        """See the module's docstring for what is refused."""
        for unit, format in zip(inventory.units, formats, strict=True):
            reason = _refusal(unit, format)
            if reason is not None:
                expected, got, hint = reason
                raise Unsupported(
                    f"compressed-tensors cannot hold {unit.name} as {format.name}",
                    expected=expected,
                    got=got,
                    hint=hint,
                )

    def unit_tensors(self, unit: Unit, format: Format) -> tuple[TensorSpec, ...]:
        """Three tensors a quantized module; a pass-through unit keeps its name."""
        if not isinstance(format, IntFormat):
            assert isinstance(format, FloatFormat)
            return float_tensor(unit, format)
        module, (rows, columns) = unit.name.removesuffix(".weight"), unit.shape
        groups = format.groups(columns)
        zeros = TensorSpec(f"{module}.weight_zero_point", "I32", (self.row_words(rows, format), groups))
        return (
            TensorSpec(f"{module}.weight_packed", "I32", (rows, self.row_words(columns, format))),
            TensorSpec(f"{module}.weight_scale", "F16", (rows, groups)),
            TensorSpec(f"{module}.weight_shape", "I64", (2,)),
            *(() if format.symmetric else (zeros,)),
        )

    def encode(self, unit: Unit, value: Stored) -> dict[str, NDArray[Any]]:
        """Codes and zero points are already offset by 2^(b-1), which is what the library stores."""
        if isinstance(value, PassThrough):
            return {unit.name: value.array}
        assert isinstance(value, Quantized)
        module = unit.name.removesuffix(".weight")
        return {
            f"{module}.weight_packed": self.pack_codes(value.codes, value.format.width).view(np.int32),
            f"{module}.weight_scale": value.scales,
            f"{module}.weight_shape": np.array(unit.shape, dtype=np.int64),
            **({} if value.zeros is None else {f"{module}.weight_zero_point": self._pack_zeros(value)}),
        }

    def decode(self, unit: Unit, format: Format, tensors: Callable[[str], NDArray[Any]]) -> Stored:
        """The inverse of `encode`. Raises InvalidModel when the stored shape is another."""
        if isinstance(format, FloatFormat):
            return PassThrough(tensors(unit.name), format)
        assert isinstance(format, IntFormat)
        module = unit.name.removesuffix(".weight")
        shape = tuple(int(d) for d in tensors(f"{module}.weight_shape"))
        if shape != unit.shape:
            raise InvalidModel(f"{module}.weight_shape is wrong", expected=str(unit.shape), got=str(shape))
        codes = self.unpack_codes(tensors(f"{module}.weight_packed"), format.width, unit.shape[1])
        scales = tensors(f"{module}.weight_scale")
        if format.symmetric:
            return Quantized(codes, scales, None, format)
        words = np.ascontiguousarray(tensors(f"{module}.weight_zero_point").view(np.uint32).T)
        zeros = np.ascontiguousarray(self.unpack_codes(words, format.width, unit.shape[0]).T)
        return Quantized(codes, scales, zeros, format)

    def _pack_zeros(self, value: Quantized) -> NDArray[np.int32]:
        """A stream down the outputs for each group: (words, groups)."""
        assert value.zeros is not None
        words = self.pack_codes(np.ascontiguousarray(value.zeros.T), value.format.width)
        return np.ascontiguousarray(words.T).view(np.int32)

    def row_words(self, columns: int, format: IntFormat) -> int:
        """32-bit words of a row of codes."""
        return stored_words(columns, format)

    def pack_codes(self, codes: NDArray[np.uint8], width: int) -> NDArray[np.uint32]:
        """A dense stream a row."""
        return pack(codes, width)

    def unpack_codes(self, words: NDArray[Any], width: int, columns: int) -> NDArray[np.uint8]:
        """The inverse of `pack_codes`."""
        return unpack(words, width, columns)

    def companions(
        self, inventory: Inventory, formats: Sequence[Format], config: Mapping[str, Any]
    ) -> dict[str, bytes]:
        """config.json with `quantization_config`; everything else in it stays as it was."""
        others = [
            module_in_memory(tensor.name, inventory.architecture)
            for tensor in inventory.rest
            if _is_linear(tensor.name, tensor.shape, tensor.role)
        ]
        units = plan_units(inventory.units, formats)
        found = quantization_config(units, inventory.architecture, inventory.task, others=others)
        merged = {**config, "quantization_config": found}
        return {"config.json": (json.dumps(merged, indent=2, ensure_ascii=False) + "\n").encode()}

    def confirm(self, path: Path, units: Sequence[Unit], formats: Sequence[Format]) -> None:
        """config.json must give every quantized unit the scheme that the manifest names."""
        try:
            config = json.loads((path / "config.json").read_bytes())
            groups = config["quantization_config"]["config_groups"].values()
            schemes = {target: group["weights"] for group in groups for target in group["targets"]}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidModel(
                "config.json has no readable quantization_config", got=f"{type(error).__name__}: {error}"[:160]
            ) from error
        architecture = architecture_of(config)
        for unit, format in zip(plan_units(units, formats), formats, strict=True):
            target = module_in_memory(unit.name, architecture)
            expected = weight_arguments(unit, format) if isinstance(format, IntFormat) else None
            pattern = expert_pattern(target)
            named = (target,) if pattern is None else (target, pattern, EXPERTS)
            got = next((schemes[name] for name in named if name in schemes), None)
            if got != expected:
                raise InvalidModel(
                    f"config.json describes {target} differently from the manifest",
                    expected=f"{format.name}: {expected}",
                    got=str(got),
                )


CONTAINER = CompressedTensorsContainer()


def _refusal(unit: Unit, format: Format) -> tuple[str, str, str] | None:
    """(expected, got, hint) when a unit cannot be held in this format."""
    if unit.index is not None:
        return "one matrix a tensor", "an expert of a stacked tensor", "use the packed container"
    if isinstance(format, FloatFormat):
        return None
    if not isinstance(format, IntFormat):
        return "int, bf16 or fp16 formats", format.name, _HINT
    if not format.plain:
        return "2^bits levels and float16 scales of rows or groups", format.name, _HINT
    if not unit.name.endswith(".weight"):
        return "a module's `.weight`", unit.name, "use the packed container"
    if format.groups(unit.shape[1]) > 1 and unit.shape[1] % (format.group or 1):
        hint = "choose a group size that divides the inputs, or per-channel formats, or use the packed container"
        return f"a group size that divides {unit.shape[1]}", f"groups of {format.group}", hint
    return None


def _is_linear(name: str, shape: tuple[int, ...], role: str) -> bool:
    return name.endswith(".weight") and len(shape) == 2 and "embed" not in role and "embed" not in name
