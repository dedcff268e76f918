"""Did an engine load what we wrote? Compares a loaded torch model, weight by weight, with the checkpoint.

Needed because a load can go wrong without a word: transformers 5.23 with `CompressedTensorsConfig(dequantize=True)`
decodes every dense layer with the first config group, whatever the layer's own width is (research/07 section 0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import VerificationFailed
from bitwright.engines.names import module_in_memory
from quantizers.base import Quantized, Stored
from quantizers.containers.checkpoint import Checkpoint

#: Relative difference allowed where the model computes in bfloat16: scales are rounded to it before they are applied.
#: In float32 and float16 nothing is rounded but the product itself, so there the weights must be equal bit for bit.
BF16_TOLERANCE = 2.0**-7
#: Where transformers 5 keeps an expert's matrix: fused parameter, and which half of its rows.
_EXPERT_PARTS: Mapping[str, tuple[str, int | None]] = {
    "w1": ("gate_up_proj", 0), "w3": ("gate_up_proj", 1), "w2": ("down_proj", None),
    "gate_proj": ("gate_up_proj", 0), "up_proj": ("gate_up_proj", 1), "down_proj": ("down_proj", None),
}  # fmt: skip


def check_loaded(checkpoint: Checkpoint, model: Any, architecture: str) -> int:
    """Number of units compared. Raises VerificationFailed when the model computes with other weights than stored.

    model: a torch module as `from_pretrained` gave it, modules still compressed or already dense.
    """
    modules = dict(model.named_modules())
    bad = []
    for unit_name in checkpoint.formats():
        target = module_in_memory(unit_name, architecture)
        problem = _compare(modules, target, checkpoint.quantized(unit_name))
        if problem is not None:
            bad.append(f"{target}: {problem}")
    if bad:
        raise VerificationFailed(
            "the engine loaded other weights than the checkpoint holds",
            expected=f"{len(checkpoint.formats())} units with their stored weights",
            got=f"{len(bad)} wrong, first {bad[0]}",
            hint="load without CompressedTensorsConfig(dequantize=True): it decodes every layer with one config group",
        )
    return len(checkpoint.formats())


def _compare(modules: Mapping[str, Any], target: str, stored: Stored) -> str | None:
    try:
        dense = target in modules
        loaded, kind = _dense_weight(modules[target]) if dense else _fused_expert(modules, target)
    except ValueError as error:
        return str(error)[:200]
    expected = as_loaded(stored, kind, expert=not dense)
    if loaded.shape != expected.shape:
        return f"shape {loaded.shape} instead of {expected.shape}"
    worst = float(np.abs(loaded - expected).max(initial=0))
    limit = BF16_TOLERANCE * float(np.abs(expected).max(initial=0)) if kind == "bfloat16" else 0.0
    return None if worst <= limit else f"weights differ by up to {worst:.3g}"


def as_loaded(stored: Stored, kind: str = "float32", *, expert: bool = False) -> NDArray[np.float32]:
    """Our dequantization at the precision that transformers 5.23 decodes into.

    kind: the model's own type. Experts are decoded into the type of their scales, float16, whatever the model's type:
    transformers decompresses them before it fuses them (CompressedTensorsDequantize).
    """
    weights = stored.dequantize()
    if kind == "float16" or (expert and isinstance(stored, Quantized)):
        return weights.astype(np.float16).astype(np.float32)
    return weights


def _fused_expert(modules: Mapping[str, Any], target: str) -> tuple[NDArray[np.float32], str]:
    """One matrix of experts that transformers fused into `gate_up_proj` (gate rows first) and `down_proj`."""
    prefix, _, rest = target.replace(".block_sparse_moe.", ".mlp.").rpartition(".experts.")
    index, _, role = rest.partition(".")
    experts = modules.get(f"{prefix}.experts")
    if role not in _EXPERT_PARTS or experts is None:
        raise ValueError("no such module")
    parameter, half = _EXPERT_PARTS[role]
    matrix = getattr(experts, parameter)[int(index)]
    return _numbers(matrix if half is None else matrix.chunk(2)[half])


def _dense_weight(module: Any) -> tuple[NDArray[np.float32], str]:
    """The weight that a forward pass would use."""
    state = dict(_state(module))
    if "weight_packed" not in state:
        if "weight" not in state:
            raise ValueError("the module has no weight")
        return _numbers(state["weight"])
    from compressed_tensors.compressors import BaseCompressor

    scheme = module.quantization_scheme
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    return _numbers(compressor.decompress(state, scheme)["weight"])


def _numbers(tensor: Any) -> tuple[NDArray[np.float32], str]:
    """(float32 values, name of the torch type)."""
    values = np.asarray(tensor.detach().float().cpu().numpy(), dtype=np.float32)
    return values, str(tensor.dtype).removeprefix("torch.")


def _state(module: Any) -> Iterator[tuple[str, Any]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)
