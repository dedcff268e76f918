"""GPT-NeoX (Pythia): fused queries, keys and values, a plain two-matrix MLP, an untied head named embed_out."""

from __future__ import annotations

from bitwright.models.architectures.llama import is_tied
from bitwright.models.architectures.rules import BIAS, NORM, Architecture, Keep, Linear

_BLOCK = r"(?P<block>(?:gpt_neox\.)?layers\.(?P<layer>[0-9]{1,6}))\."

GPT_NEOX = Architecture(
    name="gpt_neox",
    model_types=("gpt_neox",),
    rules=(
        Linear(_BLOCK + r"attention\.query_key_value\.weight", "attention.query_key_value"),
        Linear(_BLOCK + r"attention\.dense\.weight", "attention.dense"),
        Linear(_BLOCK + r"mlp\.dense_h_to_4h\.weight", "mlp.dense_h_to_4h"),
        Linear(_BLOCK + r"mlp\.dense_4h_to_h\.weight", "mlp.dense_4h_to_h"),
        Keep(r"embed_out\.weight", "tied_head", "a stored copy of the embedding: the config ties the two", is_tied),
        Linear(r"embed_out\.weight", "embed_out"),
        Keep(
            r"(?:gpt_neox\.)?embed_in\.weight",
            "embedding",
            "looked up by row, not multiplied; engines keep it in 16 bits",
        ),
        Keep(r".*attention\.(?:bias|masked_bias)", "mask", "a constant mask, computed anew by engines"),
        Keep(r".*rotary_emb\.inv_freq", "rotary", "frequencies of the rotary embedding, computed anew by engines"),
        NORM,
        BIAS,
    ),
)
