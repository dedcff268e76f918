"""Mixtral and Phi-3.5-MoE: experts listed one by one (block_sparse_moe.experts.E.w1/w2/w3) or stacked.

Stacked they are mlp.experts.gate_up_proj and down_proj.
"""

from __future__ import annotations

from bitwright.models.architectures.llama import BLOCK, HEAD, REST, attention
from bitwright.models.architectures.rules import Architecture, Keep, Linear

EXPERTS = "{block}.experts"
#: Families of every expert's matrix, whatever its role.
EXPERT_FAMILIES = {"expert": EXPERTS + ".{expert}", "experts": EXPERTS, "all_experts": "experts"}
ROUTER = "chooses the experts: an error here changes the route; engines keep it in 16 bits"


def listed(prefix: str, roles: tuple[tuple[str, bool], ...]) -> tuple[Linear, ...]:
    """Listed experts. roles: (name, whether it is one half of a fused gate/up matrix)."""
    escaped = prefix.replace(".", r"\.")
    pattern = BLOCK + escaped + r"\.(?P<expert>[0-9]{1,6})\."
    return tuple(
        Linear(pattern + rf"{role}\.weight", f"{prefix}.{role}", _families(role, fused)) for role, fused in roles
    )


def stacked(
    prefix: str, roles: tuple[str, ...] = ("gate_up_proj", "gate_proj", "up_proj", "down_proj")
) -> tuple[Linear, ...]:
    """3-D expert tensors (experts, out, in), as transformers >= 5 keeps them in memory and some checkpoints on disk."""
    pattern = BLOCK + prefix.replace(".", r"\.")
    fused = {"gate_proj", "up_proj"}
    return tuple(
        Linear(pattern + rf"\.{role}(?:\.weight)?", f"{prefix}.{role}", _families(role, role in fused), stacked=True)
        for role in roles
    )


def _families(role: str, fused: bool) -> dict[str, str]:
    families = {**EXPERT_FAMILIES, "expert_role": EXPERTS + "." + role}
    return {**families, "gate_up": EXPERTS + ".{expert}.gate_up"} if fused else families


MIXTRAL = Architecture(
    name="mixtral",
    model_types=("mixtral", "phimoe"),
    rules=(
        *attention(),
        *listed("block_sparse_moe.experts", (("w1", True), ("w3", True), ("w2", False))),
        *stacked("block_sparse_moe.experts"),
        *stacked("mlp.experts"),
        Keep(BLOCK + r"(?:block_sparse_moe|mlp)\.(?:gate|router)\.weight", "router", ROUTER),
        *HEAD,
        *REST,
    ),
)
