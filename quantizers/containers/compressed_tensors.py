"""The `compressed-tensors` container: `pack-quantized` checkpoints that transformers and vLLM load.

Layout (compressed-tensors 0.18 to 0.20, research/07 section 2; up to 0.17, widths 3, 5, 6 and 7 were packed otherwise):
per module `weight_packed` int32 (out, ceil(in*b/32)), `weight_scale` float16 (out, groups), `weight_shape` int64 (2),
and in config.json one config group a format whose targets are exact module names.

What it cannot hold, and why, each refused with a typed error:
- asymmetric formats: the transformers loader prepares unpacked zero points and fails on packed ones (5.23; only the
  library's own decompressor reads them);
- experts in several formats, or in bf16 or fp16: transformers fuses the experts while loading and decodes all of them
  with one config group, the first one that targets experts by a pattern;
- groups that do not divide the inputs: the library's decompressor refuses them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.formats import FloatFormat, Format, IntFormat
from bitwright.core.inventory import Inventory, Unit
from bitwright.engines.names import architecture_of, module_in_memory
from gpu_kernels.kernels import pack, unpack
from quantizers.base import PassThrough, Quantized, Stored
from quantizers.containers.base import Container, float_tensor, stored_words
from quantizers.containers.tensorfile import TensorSpec

#: Expert matrices of every listed-experts architecture (Mixtral, Qwen-MoE).
EXPERTS = r"re:.*\.experts\.[0-9]+\..*"
_SYMMETRIC_HINT = "plan again with --engine transformers, whose menu holds what this container can store"


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
        _check_experts(inventory, formats)

    def unit_tensors(self, unit: Unit, format: Format) -> tuple[TensorSpec, ...]:
        """Three tensors a quantized module; a pass-through unit keeps its name."""
        if not isinstance(format, IntFormat):
            assert isinstance(format, FloatFormat)
            return float_tensor(unit, format)
        module, (rows, columns) = unit.name.removesuffix(".weight"), unit.shape
        return (
            TensorSpec(f"{module}.weight_packed", "I32", (rows, self.row_words(columns, format))),
            TensorSpec(f"{module}.weight_scale", "F16", (rows, format.groups(columns))),
            TensorSpec(f"{module}.weight_shape", "I64", (2,)),
        )

    def encode(self, unit: Unit, value: Stored) -> dict[str, NDArray[Any]]:
        """The codes are already offset by 2^(b-1), which is what the library stores."""
        if isinstance(value, PassThrough):
            return {unit.name: value.array}
        assert isinstance(value, Quantized)
        module = unit.name.removesuffix(".weight")
        return {
            f"{module}.weight_packed": self.pack_codes(value.codes, value.format.width).view(np.int32),
            f"{module}.weight_scale": value.scales,
            f"{module}.weight_shape": np.array(unit.shape, dtype=np.int64),
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
        return Quantized(codes, tensors(f"{module}.weight_scale"), None, format)

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
        merged = {**config, "quantization_config": quantization_config(inventory, formats)}
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
        for unit, format in zip(units, formats, strict=True):
            target = module_in_memory(unit.name, architecture)
            expected = _scheme(unit, format) if isinstance(format, IntFormat) else None
            got = schemes.get(EXPERTS if re.fullmatch(EXPERTS.removeprefix("re:"), target) else target)
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
        return "int, bf16 or fp16 formats", format.name, _SYMMETRIC_HINT
    if not format.plain:
        return "2^bits levels and float16 scales of rows or groups", format.name, _SYMMETRIC_HINT
    if not format.symmetric:
        why = "a symmetric format: the transformers loader cannot read packed zero points"
        return why, format.name, _SYMMETRIC_HINT
    if not unit.name.endswith(".weight"):
        return "a module's `.weight`", unit.name, "use the packed container"
    if format.groups(unit.shape[1]) > 1 and unit.shape[1] % (format.group or 1):
        hint = "choose a group size that divides the inputs, or per-channel formats, or use the packed container"
        return f"a group size that divides {unit.shape[1]}", f"groups of {format.group}", hint
    return None


def _check_experts(inventory: Inventory, formats: Sequence[Format]) -> None:
    """All experts of the model in one integer format, or Unsupported."""
    pairs = zip(inventory.units, formats, strict=True)
    used = {
        json.dumps(_scheme(u, f)) if isinstance(f, IntFormat) else f.name: f for u, f in pairs if u.expert is not None
    }
    if len(used) > 1 or any(not isinstance(format, IntFormat) for format in used.values()):
        raise Unsupported(
            "compressed-tensors cannot hold experts in these formats",
            expected="one integer format for all experts: transformers fuses them while loading, in a single scheme",
            got=", ".join(sorted({format.name for format in used.values()})),
            hint="plan again with --engine transformers, which ties the experts, or use the packed container",
        )


def _scheme(unit: Unit, format: IntFormat) -> dict[str, Any]:
    """`weights` of a config group. One short group a row is what the library calls `channel`.

    A group of exactly the row stays `group`: all experts must show one scheme, whatever their numbers of inputs.
    """
    per_row = format.group is None or format.group > unit.shape[1]
    return {
        "num_bits": format.width,
        "type": "int",
        "symmetric": True,
        "strategy": "channel" if per_row else "group",
        "group_size": None if per_row else format.group,
        "dynamic": False,
    }


def quantization_config(inventory: Inventory, formats: Sequence[Format]) -> dict[str, Any]:
    """The `quantization_config` of config.json: a group a scheme, exact module names, everything else ignored by name.

    transformers takes unnamed modules as unquantized; vLLM wants every unquantized linear in `ignore`. Experts are in a
    group of their own whose only target is the pattern by which transformers finds their scheme.
    """
    groups: dict[str, dict[str, Any]] = {}
    linear = [t.name for t in inventory.rest if _is_linear(t.name, t.shape, t.role)]
    ignore = [module_in_memory(name, inventory.architecture) for name in linear]
    for unit, format in zip(inventory.units, formats, strict=True):
        target = module_in_memory(unit.name, inventory.architecture)
        if not isinstance(format, IntFormat):
            ignore.append(target)
            continue
        scheme = _scheme(unit, format)
        expert = unit.expert is not None
        group = groups.setdefault(
            json.dumps([expert, scheme]),
            {
                "targets": [EXPERTS] if expert else [],
                "weights": scheme,
                "input_activations": None,
                "output_activations": None,
                "format": "pack-quantized",
            },
        )
        if not expert:
            group["targets"].append(target)
    targets = {target for group in groups.values() for target in group["targets"]}
    if inventory.task == "causal-lm" and "lm_head" not in targets:
        ignore.append("lm_head")
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {f"group_{i}": group for i, group in enumerate(groups.values())},
        "ignore": sorted(set(ignore)),
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def _is_linear(name: str, shape: tuple[int, ...], role: str) -> bool:
    return name.endswith(".weight") and len(shape) == 2 and "embed" not in role and "embed" not in name
