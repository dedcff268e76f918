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
from quantizers.containers.checkpoint import Checkpoint

#: Relative difference that rounding to bfloat16 can make; a wrong width or group is orders of magnitude beyond it.
TOLERANCE = 2.0**-7
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
        problem = _compare(modules, target, checkpoint.dequantized(unit_name))
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


def _compare(modules: Mapping[str, Any], target: str, stored: NDArray[np.float32]) -> str | None:
    try:
        loaded = _dense_weight(modules[target]) if target in modules else _fused_expert(modules, target)
    except ValueError as error:
        return str(error)[:200]
    if loaded.shape != stored.shape:
        return f"shape {loaded.shape} instead of {stored.shape}"
    worst = float(np.abs(loaded - stored).max(initial=0))
    limit = TOLERANCE * float(np.abs(stored).max(initial=0))
    return None if worst <= limit else f"weights differ by up to {worst:.3g}"


def _fused_expert(modules: Mapping[str, Any], target: str) -> NDArray[np.float32]:
    """One matrix of experts that transformers fused into `gate_up_proj` (gate rows first) and `down_proj`."""
    prefix, _, rest = target.replace(".block_sparse_moe.", ".mlp.").rpartition(".experts.")
    index, _, role = rest.partition(".")
    experts = modules.get(f"{prefix}.experts")
    if role not in _EXPERT_PARTS or experts is None:
        raise ValueError("no such module")
    parameter, half = _EXPERT_PARTS[role]
    matrix = getattr(experts, parameter)[int(index)].detach().float().cpu().numpy()
    if half is None:
        return np.asarray(matrix, dtype=np.float32)
    return np.asarray(np.split(matrix, 2)[half], dtype=np.float32)


def _dense_weight(module: Any) -> NDArray[np.float32]:
    """The float32 weight that a forward pass would use."""
    state = dict(_state(module))
    if "weight_packed" not in state:
        if "weight" not in state:
            raise ValueError("the module has no weight")
        return np.asarray(state["weight"].detach().float().cpu().numpy(), dtype=np.float32)
    from compressed_tensors.compressors import BaseCompressor

    scheme = module.quantization_scheme
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    dense = compressor.decompress(state, scheme)["weight"]
    return np.asarray(dense.detach().float().cpu().numpy(), dtype=np.float32)


def _state(module: Any) -> Iterator[tuple[str, Any]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)
