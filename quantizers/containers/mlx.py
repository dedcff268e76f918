"""The `mlx` container: affine checkpoints that mlx-lm loads.

Per module (research/07 section 2): `weight` uint32 (out, in*b/32), a stream along the inputs; `scales` and `biases`
(out, groups) with weight = code * scale + bias, so bias = -zero * scale. Both are float16 for symmetric formats, where
that product is exact (zero is a power of two), and float32 for asymmetric ones, where it needs up to 19 bits.
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
from bitwright.engines.exporters.mlx import quantization
from gpu_kernels.kernels import pack, unpack
from quantizers.base import PassThrough, Quantized, Stored
from quantizers.containers.base import Container, float_tensor, stored_words
from quantizers.containers.tensorfile import TensorSpec
from quantizers.containers.units import plan_units

#: Largest magnitude of a float16, and the least step of its subnormals.
_MAX_HALF = 65504.0


class MlxContainer(Container):
    """`<module>.weight`, `.scales`, `.biases`; listed experts keep their names, mlx-lm stacks them while loading."""

    name = "mlx"

    def check(self, inventory: Inventory, formats: Sequence[Format]) -> None:
        """What mlx cannot say, with every unit: widths 1 and 7, other groups, experts of a role that differ."""
        for unit, format in zip(inventory.units, formats, strict=True):
            if unit.index is not None or not unit.name.endswith(".weight"):
                raise Unsupported(
                    f"mlx cannot hold {unit.name} as {format.name}", expected="a module's own `.weight`",
                    got="an expert of a stacked tensor", hint="use the packed container",
                )  # fmt: skip
        quantization(plan_units(inventory.units, formats))

    def unit_tensors(self, unit: Unit, format: Format) -> tuple[TensorSpec, ...]:
        if isinstance(format, FloatFormat):
            return float_tensor(unit, format)
        assert isinstance(format, IntFormat)
        module, (out, inputs) = unit.name.removesuffix(".weight"), unit.shape
        groups, dtype = format.groups(inputs), "F16" if format.symmetric else "F32"
        return (
            TensorSpec(f"{module}.weight", "U32", (out, stored_words(inputs, format))),
            TensorSpec(f"{module}.scales", dtype, (out, groups)),
            TensorSpec(f"{module}.biases", dtype, (out, groups)),
        )

    def encode(self, unit: Unit, value: Stored) -> dict[str, NDArray[Any]]:
        if isinstance(value, PassThrough):
            return {unit.name: value.array}
        assert isinstance(value, Quantized)
        module, format = unit.name.removesuffix(".weight"), value.format
        dtype: Any = np.float16 if format.symmetric else np.float32
        zeros = np.float32(format.middle) if value.zeros is None else value.zeros.astype(np.float32)
        scales = value.scales.astype(np.float32)
        biases = -zeros * scales
        if format.symmetric and (np.abs(biases) > _MAX_HALF).any():
            raise Unsupported(f"{unit.name}: a bias does not fit float16", expected=f"up to {_MAX_HALF}")
        return {
            f"{module}.weight": pack(value.codes, format.width),
            f"{module}.scales": scales.astype(dtype),
            f"{module}.biases": biases.astype(dtype),
        }

    def decode(self, unit: Unit, format: Format, tensors: Callable[[str], NDArray[Any]]) -> Stored:
        """Raises InvalidModel for a bias that is no whole multiple of its scale."""
        if isinstance(format, FloatFormat):
            return PassThrough(tensors(unit.name), format)
        assert isinstance(format, IntFormat)
        module = unit.name.removesuffix(".weight")
        codes = unpack(tensors(f"{module}.weight"), format.width, unit.shape[1])
        scales = tensors(f"{module}.scales").astype(np.float32)
        biases = tensors(f"{module}.biases").astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            zeros = np.rint(-biases / scales)
        wrong = ~np.isfinite(zeros) | (zeros < 0) | (zeros >= 1 << format.width) | (-zeros * scales != biases)
        if wrong.any() or (format.symmetric and (zeros != format.middle).any()):
            raise InvalidModel(f"{module}.biases are not those of {format.name}", expected="-zero * scale")
        stored = None if format.symmetric else zeros.astype(np.uint8)
        return Quantized(codes, scales.astype(np.float16), stored, format)

    def companions(
        self, inventory: Inventory, formats: Sequence[Format], config: Mapping[str, Any]
    ) -> dict[str, bytes]:
        """config.json with `quantization`, mirrored to `quantization_config` as mlx-lm writes it."""
        found = quantization(plan_units(inventory.units, formats))
        merged = {**config, **_rope(config), "quantization": found, "quantization_config": found}
        return {"config.json": (json.dumps(merged, indent=2, ensure_ascii=False) + "\n").encode()}

    def confirm(self, path: Path, units: Sequence[Unit], formats: Sequence[Format]) -> None:
        """config.json must give every unit the width and group that the manifest names."""
        try:
            got = json.loads((path / "config.json").read_bytes())["quantization"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidModel("config.json has no readable `quantization`", got=repr(error)[:120]) from error
        wanted = quantization(plan_units(units, formats))
        if got != wanted:
            raise InvalidModel(
                "config.json describes the units differently from the manifest", expected=json.dumps(wanted)[:200],
                got=json.dumps(got)[:200],
            )  # fmt: skip


CONTAINER = MlxContainer()


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` at the top, where mlx-lm 0.32 looks for them.

    transformers 5 writes them under `rope_parameters` only; mlx-lm then takes its own default without a word (1e6 for
    Mixtral), and the model talks garbage.
    """
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return {}
    found: dict[str, Any] = {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}
    if rope.get("rope_type", "default") != "default":
        found["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    return found
