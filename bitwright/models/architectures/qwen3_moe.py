"""Qwen3-MoE and Qwen2-MoE: listed (mlp.experts.E.gate_proj) or stacked experts, dense blocks, shared experts."""

from __future__ import annotations

from bitwright.models.architectures.llama import BLOCK, HEAD, REST, attention, mlp
from bitwright.models.architectures.mixtral import ROUTER, listed, stacked
from bitwright.models.architectures.rules import Architecture, Keep

QWEN3_MOE = Architecture(
    name="qwen3_moe",
    model_types=("qwen3_moe", "qwen2_moe", "olmoe"),
    rules=(
        *attention(),
        *mlp(),
        *listed("mlp.experts", (("gate_proj", True), ("up_proj", True), ("down_proj", False))),
        *stacked("mlp.experts"),
        *mlp("mlp.shared_expert"),
        Keep(BLOCK + r"mlp\.gate\.weight", "router", ROUTER),
        Keep(
            BLOCK + r"mlp\.shared_expert_gate\.weight",
            "router",
            "mixes in the shared expert: one row, engines keep it in 16 bits",
        ),
        *HEAD,
        *REST,
    ),
)
