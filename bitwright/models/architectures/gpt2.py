"""GPT-2: fused queries, keys and values, matrices stored as (in, out) (transformers' Conv1D), a tied head."""

from __future__ import annotations

from bitwright.models.architectures.llama import is_tied
from bitwright.models.architectures.rules import BIAS, NORM, Architecture, Keep, Linear

ASSUMED = (
    "'{model_type}' stores its matrices as (in, out): groups and rows run over what other models call columns. The "
    "plan and `packed` checkpoints are exact; no engine here is known to load such a file."
)
_BLOCK = r"(?P<block>(?:transformer\.)?h\.(?P<layer>[0-9]{1,6}))\."

GPT2 = Architecture(
    name="gpt2",
    model_types=("gpt2",),
    tied_default=True,
    assumed=ASSUMED,
    rules=(
        *(
            Linear(_BLOCK + role.replace(".", r"\.") + r"\.weight", role)
            for role in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        ),
        Keep(r"lm_head\.weight", "tied_head", "a stored copy of the embedding: the config ties the two", is_tied),
        Linear(r"lm_head\.weight", "lm_head"),
        Linear(r"score\.weight", "score"),
        Keep(
            r"(?:transformer\.)?wte\.weight",
            "embedding",
            "looked up by row, not multiplied; engines keep it in 16 bits",
        ),
        Keep(r"(?:transformer\.)?wpe\.weight", "position_embedding", "added, not multiplied"),
        Keep(r".*\.attn\.(?:bias|masked_bias)", "mask", "a constant mask, computed anew by engines"),
        Keep(r".*ln_[^.]*\.(?:weight|bias)", "norm", "normalization: a vector a layer, sensitive and tiny"),
        NORM,
        BIAS,
    ),
)
