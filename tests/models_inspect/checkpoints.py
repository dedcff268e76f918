"""Synthetic checkpoints: every architecture's layout in miniature, written by a few lines of our own.

A layout is (config, {tensor name: (dtype, shape)}); `write` fills it with seeded values in Hugging Face's folder form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.inventory import DTYPE_BYTES

Shapes = dict[str, tuple[str, tuple[int, ...]]]
Layout = tuple[dict[str, Any], Shapes]

HIDDEN, INNER, HEADS, KV, HEAD, VOCABULARY, EXPERTS = 64, 96, 4, 2, 16, 128, 4
#: What config.json says of these models beside their shapes, where an engine needs it.
SIZES = {"vocab_size": 128, "max_position_embeddings": 64, "intermediate_size": 96, "num_attention_heads": 4}


def safetensors(tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> bytes:
    """The bytes of a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values())


def fill(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> bytes:
    """Seeded values: normal for floats, small counts for integers."""
    values = rng.standard_normal(math.prod(shape)).astype(np.float32) * 0.05
    if dtype == "F16":
        return values.astype(np.float16).tobytes()
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    if dtype == "F32":
        return values.tobytes()
    return bytes(math.prod(shape) * DTYPE_BYTES[dtype])


def write(folder: Path, layout: Layout, *, shards: int = 1, seed: int = 0) -> Path:
    """Write a layout as a model folder of one file, or of several with an index."""
    config, shapes = layout
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(seed)
    tensors = {name: (dtype, shape, fill(dtype, shape, rng)) for name, (dtype, shape) in shapes.items()}
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors(tensors))
        return folder
    weight_map: dict[str, str] = {}
    for part in range(shards):
        file = f"model-{part + 1:05d}-of-{shards:05d}.safetensors"
        names = list(tensors)[part::shards]
        weight_map |= dict.fromkeys(names, file)
        (folder / file).write_bytes(safetensors({name: tensors[name] for name in names}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def decoder(
    model_type: str,
    name: str,
    *,
    layers: int = 2,
    biases: bool = False,
    qk_norms: bool = False,
    mlp: bool = True,
    tied: bool = False,
    dtype: str = "BF16",
) -> Layout:
    """The dense decoder of Llama and its kin."""
    shapes: Shapes = {"model.embed_tokens.weight": (dtype, (VOCABULARY, HIDDEN))}
    for layer in range(layers):
        block = f"model.layers.{layer}."
        for role, out in (("q", HEADS * HEAD), ("k", KV * HEAD), ("v", KV * HEAD)):
            shapes[f"{block}self_attn.{role}_proj.weight"] = (dtype, (out, HIDDEN))
            if biases:
                shapes[f"{block}self_attn.{role}_proj.bias"] = (dtype, (out,))
            if qk_norms and role != "v":
                shapes[f"{block}self_attn.{role}_norm.weight"] = (dtype, (HEAD,))
        shapes[f"{block}self_attn.o_proj.weight"] = (dtype, (HIDDEN, HEADS * HEAD))
        if mlp:
            shapes |= _gated(block + "mlp.", dtype)
        shapes |= {
            f"{block}{norm}.weight": (dtype, (HIDDEN,)) for norm in ("input_layernorm", "post_attention_layernorm")
        }
    shapes["model.norm.weight"] = (dtype, (HIDDEN,))
    if not tied:
        shapes["lm_head.weight"] = (dtype, (VOCABULARY, HIDDEN))
    config = {
        "architectures": [name], "model_type": model_type, "hidden_size": HIDDEN, "num_hidden_layers": layers,
        "num_attention_heads": HEADS, "num_key_value_heads": KV, "tie_word_embeddings": tied,
    }  # fmt: skip
    return config, shapes


def _gated(prefix: str, dtype: str, names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")) -> Shapes:
    gate, up, down = names
    return {
        f"{prefix}{gate}.weight": (dtype, (INNER, HIDDEN)),
        f"{prefix}{up}.weight": (dtype, (INNER, HIDDEN)),
        f"{prefix}{down}.weight": (dtype, (HIDDEN, INNER)),
    }


def moe(
    model_type: str, name: str, *, stacked: bool, prefix: str, names: tuple[str, str, str], layers: int = 2
) -> Layout:
    """A mixture of experts, listed one by one or stacked."""
    config, shapes = decoder(model_type, name, mlp=False, layers=layers)
    for layer in range(layers):
        block = f"model.layers.{layer}.{prefix}."
        shapes[f"{block}gate.weight"] = ("BF16", (EXPERTS, HIDDEN))
        if stacked:
            shapes[f"{block}experts.gate_up_proj"] = ("BF16", (EXPERTS, 2 * INNER, HIDDEN))
            shapes[f"{block}experts.down_proj"] = ("BF16", (EXPERTS, HIDDEN, INNER))
        for expert in () if stacked else range(EXPERTS):
            shapes |= _gated(f"{block}experts.{expert}.", "BF16", names)
    return {**config, "num_experts": EXPERTS, "num_experts_per_tok": 2}, shapes


def bert(name: str = "BertModel", *, prefix: str = "", layers: int = 2, head: bool = False) -> Layout:
    """BERT: biases everywhere, three embeddings, a pooler, perhaps a classifier."""
    shapes: Shapes = {f"{prefix}embeddings.position_ids": ("I64", (1, 32))}
    for table, rows in (("word", VOCABULARY), ("position", 32), ("token_type", 2)):
        shapes[f"{prefix}embeddings.{table}_embeddings.weight"] = ("F32", (rows, HIDDEN))
    linears = [(f"attention.self.{r}", HIDDEN, HIDDEN) for r in ("query", "key", "value")]
    linears += [
        ("attention.output.dense", HIDDEN, HIDDEN),
        ("intermediate.dense", INNER, HIDDEN),
        ("output.dense", HIDDEN, INNER),
    ]
    for layer in range(layers):
        for role, out, inputs in linears:
            shapes |= _biased(f"{prefix}encoder.layer.{layer}.{role}", "F32", out, inputs)
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {
                f"{prefix}encoder.layer.{layer}.{norm}.{part}": ("F32", (HIDDEN,)) for part in ("weight", "bias")
            }
    shapes |= _biased(f"{prefix}pooler.dense", "F32", HIDDEN, HIDDEN)
    if head:
        shapes |= _biased("classifier", "F32", 2, HIDDEN)
    return {"architectures": [name], "model_type": "bert", "hidden_size": HIDDEN, "num_hidden_layers": layers}, shapes


def vit(*, layers: int = 2) -> Layout:
    """ViT: a convolution for the patches, learned tokens and positions, a linear head."""
    shapes: Shapes = {
        "vit.embeddings.cls_token": ("F16", (1, 1, HIDDEN)),
        "vit.embeddings.position_embeddings": ("F16", (1, 17, HIDDEN)),
        "vit.embeddings.patch_embeddings.projection.weight": ("F16", (HIDDEN, 3, 4, 4)),
        "vit.embeddings.patch_embeddings.projection.bias": ("F16", (HIDDEN,)),
    }
    linears = [(f"attention.attention.{r}", HIDDEN, HIDDEN) for r in ("query", "key", "value")]
    linears += [
        ("attention.output.dense", HIDDEN, HIDDEN),
        ("intermediate.dense", INNER, HIDDEN),
        ("output.dense", HIDDEN, INNER),
    ]
    for layer in range(layers):
        for role, out, inputs in linears:
            shapes |= _biased(f"vit.encoder.layer.{layer}.{role}", "F16", out, inputs)
        for norm in ("layernorm_before", "layernorm_after"):
            shapes |= {f"vit.encoder.layer.{layer}.{norm}.{part}": ("F16", (HIDDEN,)) for part in ("weight", "bias")}
    shapes |= {f"vit.layernorm.{part}": ("F16", (HIDDEN,)) for part in ("weight", "bias")} | _biased(
        "classifier", "F16", 10, HIDDEN
    )
    config = {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
    }
    return config, shapes


def _biased(name: str, dtype: str, out: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (dtype, (out, inputs)), f"{name}.bias": (dtype, (out,))}


LISTED_W = ("w1", "w3", "w2")
LISTED_PROJ = ("gate_proj", "up_proj", "down_proj")

LAYOUTS: dict[str, Layout] = {
    "llama-gqa": decoder("llama", "LlamaForCausalLM"),
    "llama-tied": decoder("llama", "LlamaForCausalLM", tied=True),
    "mistral": decoder("mistral", "MistralForCausalLM", dtype="F16"),
    "qwen2-biases": decoder("qwen2", "Qwen2ForCausalLM", biases=True, tied=True),
    "qwen3-norms": decoder("qwen3", "Qwen3ForCausalLM", qk_norms=True),
    "mixtral-listed": moe("mixtral", "MixtralForCausalLM", stacked=False, prefix="block_sparse_moe", names=LISTED_W),
    "mixtral-stacked": moe("mixtral", "MixtralForCausalLM", stacked=True, prefix="mlp", names=LISTED_W),
    "qwen3-moe-listed": moe("qwen3_moe", "Qwen3MoeForCausalLM", stacked=False, prefix="mlp", names=LISTED_PROJ),
    "qwen3-moe-stacked": moe("qwen3_moe", "Qwen3MoeForCausalLM", stacked=True, prefix="mlp", names=LISTED_PROJ),
    "bert": bert(),
    "bert-classifier": bert("BertForSequenceClassification", prefix="bert.", head=True),
    "vit": vit(),
    "unknown-experts": moe("foo_moe", "FooMoeForCausalLM", stacked=False, prefix="feed_forward", names=LISTED_PROJ),
    "unknown": (
        {"architectures": ["FooForThings"], "model_type": "foo"},
        {
            "foo.wte.weight": ("F32", (VOCABULARY, HIDDEN)),
            "foo.blocks.0.attn.weight": ("F32", (HIDDEN, HIDDEN)),
            "foo.blocks.0.attn.bias": ("F32", (HIDDEN,)),
            "foo.blocks.0.ln.weight": ("F32", (HIDDEN,)),
            "foo.blocks.1.attn.weight": ("F32", (HIDDEN, HIDDEN)),
            "foo.conv.weight": ("F32", (HIDDEN, 3, 2, 2)),
            "foo.scale": ("F32", (HIDDEN, HIDDEN)),
            "out.weight": ("F32", (10, HIDDEN)),
        },
    ),
}
