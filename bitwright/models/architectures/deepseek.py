"""DeepSeek-V2 and V3: low-rank (latent) attention, dense first blocks, listed or stacked experts, shared experts.

GLM-4.5 has the same names with plain attention.
"""

from __future__ import annotations

from bitwright.models.architectures.llama import BLOCK, HEAD, REST, attention, mlp
from bitwright.models.architectures.mixtral import ROUTER, listed, stacked
from bitwright.models.architectures.rules import Architecture, Keep, Linear

#: Latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1): down- and up-projections of queries, keys and values.
#: The two down-projections read the same input and are one matrix in engines that fuse them.
_LATENT = (
    Linear(BLOCK + r"self_attn\.q_a_proj\.weight", "self_attn.q_a_proj", {"qkv": "{block}.self_attn.latent"}),
    Linear(
        BLOCK + r"self_attn\.kv_a_proj_with_mqa\.weight",
        "self_attn.kv_a_proj_with_mqa",
        {"qkv": "{block}.self_attn.latent"},
    ),
    Linear(BLOCK + r"self_attn\.q_b_proj\.weight", "self_attn.q_b_proj"),
    Linear(BLOCK + r"self_attn\.kv_b_proj\.weight", "self_attn.kv_b_proj"),
)

DEEPSEEK = Architecture(
    name="deepseek",
    model_types=("deepseek_v2", "deepseek_v3", "glm4_moe"),
    rules=(
        *_LATENT,
        *attention(),
        *mlp(),
        *listed("mlp.experts", (("gate_proj", True), ("up_proj", True), ("down_proj", False))),
        *stacked("mlp.experts"),
        *mlp("mlp.shared_experts"),
        Keep(BLOCK + r"mlp\.gate\.(?:weight|e_score_correction_bias)", "router", ROUTER),
        *HEAD,
        *REST,
    ),
)
