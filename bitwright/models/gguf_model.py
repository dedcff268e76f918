"""GGUF files as models: unpacked once into a Hugging Face folder in the cache, named by the file's content.

Types f32, f16, bf16 and q8_0 are read; anything narrower is no model to start from. Matrices of q8_0 become float32,
which holds them exactly, but embeddings, which are not planned, float16. Rows of q and k of the Llama family are put
back in transformers' order, scaled rotary frequencies become `rope_scaling`. The tokenizer is rebuilt where it is
WordPiece, SentencePiece's BPE, or byte-level BPE with a splitting rule known by name.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.canonical import write_error
from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.gguf_names import hugging_face_names
from bitwright.core.inventory import DTYPE_BYTES
from bitwright.models.digest import cache_folder, file_digest
from bitwright.models.files import open_regular
from bitwright.models.gguf_header import GgufHeader, GgufTensor, read_gguf
from bitwright.models.gguf_text import tokenizer_files
from bitwright.models.limits import DEFAULT_LIMITS, Limits
from bitwright.models.rope import rope_from_gguf

#: Architecture of the file -> (`model_type`, class name); a mixture under `llama` is a Mixtral.
_CLASSES = {
    "llama": ("llama", "LlamaForCausalLM"), "mixtral": ("mixtral", "MixtralForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"), "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "qwen2moe": ("qwen2_moe", "Qwen2MoeForCausalLM"), "qwen3moe": ("qwen3_moe", "Qwen3MoeForCausalLM"),
    "bert": ("bert", "BertModel"),
}  # fmt: skip
_DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "F32"}
_NUMPY = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_FREQS = "rope_freqs.weight"
_BLOCK = re.compile(r"blk\.(?P<n>[0-9]+)\.(?P<rest>.+)")


@dataclass(frozen=True)
class _Out:
    """A tensor of the unpacked model: whole, or one expert of a stack. rotated: heads whose rows are put back."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: GgufTensor
    expert: int | None
    rotated: int | None


def is_gguf(path: Path) -> bool:
    return path.suffix == ".gguf" and path.is_file()


def unpack_gguf(path: Path, *, beneath: Path | None = None, limits: Limits = DEFAULT_LIMITS) -> Path:
    """The folder of the unpacked model, made if need be. Raises InvalidModel, Unsupported, OutOfResources."""
    header = read_gguf(path, beneath=beneath, limits=limits)
    config = model_config(header, _rope_freqs(header, path, beneath))
    outs = list(_tensors(header, config))
    digest = file_digest(path, beneath=beneath).removeprefix("sha256:")
    folder = cache_folder() / "gguf" / digest
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=".unpack.", dir=folder.parent))
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        (holder / "config.json").write_text(json.dumps(config, indent=2))
        for name, text in (tokenizer_files(header.metadata) | _pooling(header)).items():
            (holder / name).parent.mkdir(exist_ok=True)
            (holder / name).write_text(text, "utf-8")
        _write(holder / "model.safetensors", outs, path, beneath)
        if not folder.is_dir():
            holder.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise write_error(folder, error) from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)
    return folder


def model_config(header: GgufHeader, factors: NDArray[np.float32] | None = None) -> dict[str, Any]:
    """config.json from the metadata. factors: what `rope_freqs.weight` holds, where the file has it.

    Raises InvalidModel for keys that are missing, Unsupported for architectures.
    """
    arch = header.architecture
    kind = "mixtral" if arch == "llama" and header.metadata.get("llama.expert_count") else arch
    if kind not in _CLASSES:
        raise Unsupported(
            "GGUF models of this architecture are not read", expected=", ".join(_CLASSES), got=repr(arch)[:80],
            hint="give the model as Hugging Face has it",
        )  # fmt: skip
    model_type, name = _CLASSES[kind]

    def number(key: str, default: Any = None) -> Any:
        value = header.metadata.get(f"{arch}.{key}", default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1 << 31:
            raise InvalidModel(f"the GGUF file lacks {arch}.{key}", expected="a positive number", got=repr(value)[:40])
        return value

    heads = number("attention.head_count")
    config = {
        "architectures": [name], "model_type": model_type, "hidden_size": number("embedding_length"),
        "num_hidden_layers": number("block_count"), "num_attention_heads": heads,
        "intermediate_size": number("feed_forward_length"), "max_position_embeddings": number("context_length"),
        "vocab_size": _shape(header, "token_embd.weight")[0], "torch_dtype": "float16",
    }  # fmt: skip
    if arch == "bert":
        config |= {
            "hidden_act": "gelu", "layer_norm_eps": number("attention.layer_norm_epsilon"),
            "type_vocab_size": _shape(header, "token_types.weight")[0],
            "max_position_embeddings": _shape(header, "position_embd.weight")[0],
        }  # fmt: skip
    else:
        size = number("attention.key_length", number("embedding_length") // heads)
        config |= {
            "num_key_value_heads": number("attention.head_count_kv", heads), "head_dim": size, "hidden_act": "silu",
            "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
            "tie_word_embeddings": "output.weight" not in header.tensors,
            **rope_from_gguf(header.metadata, arch, number, factors, size),
        }  # fmt: skip
    if kind not in ("llama", "bert"):
        config |= _expert_config(header, arch, number)
    for role in ("bos", "eos", "pad"):
        key = {"pad": "padding"}.get(role, role)
        value = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if type(value) is int:
            config[f"{role}_token_id"] = value
    return config


def _rope_freqs(header: GgufHeader, path: Path, beneath: Path | None) -> NDArray[np.float32] | None:
    """The divisors of the rotary frequencies, if the file has them. Raises InvalidModel for another type."""
    tensor = header.tensors.get(_FREQS)
    if tensor is None:
        return None
    if tensor.kind.name != "f32" or len(tensor.shape) != 1:
        raise InvalidModel(f"{_FREQS} is wrong", expected="a float32 vector", got=f"{tensor.kind.name} {tensor.shape}")
    with open_regular(path, beneath) as file:
        return _read(file, _Out(_FREQS, "F32", tensor.shape, tensor, None, None)).astype(np.float32)


def _pooling(header: GgufHeader) -> dict[str, str]:
    """How an embedding model pools, as sentence-transformers says it: llama.cpp's 1 is the mean, 2 the first token."""
    kind = header.metadata.get(f"{header.architecture}.pooling_type")
    if kind not in (1, 2):
        return {}
    size = header.metadata.get(f"{header.architecture}.embedding_length")
    modes = {"pooling_mode_mean_tokens": kind == 1, "pooling_mode_cls_token": kind == 2}
    return {"1_Pooling/config.json": json.dumps({"word_embedding_dimension": size, **modes}, indent=2)}


def _expert_config(header: GgufHeader, arch: str, number: Any) -> dict[str, Any]:
    if not header.metadata.get(f"{arch}.expert_count"):
        return {}
    config = {"num_experts_per_tok": number("expert_used_count")}
    if arch == "llama":
        return {**config, "num_local_experts": number("expert_count")}
    inner = _shape(header, "blk.0.ffn_gate_exps.weight")[-2]
    config |= {"num_experts": number("expert_count"), "moe_intermediate_size": inner}
    if arch == "qwen3moe":
        return {**config, "norm_topk_prob": True}
    shared = _shape(header, "blk.0.ffn_gate_shexp.weight")[-2]
    return {**config, "norm_topk_prob": False, "shared_expert_intermediate_size": shared}


def _shape(header: GgufHeader, name: str) -> tuple[int, ...]:
    found = header.tensors.get(name)
    if found is None or len(found.shape) < 2:
        raise InvalidModel(
            f"the GGUF file lacks {name}", expected="a matrix", got="none" if found is None else "a vector"
        )
    return found.shape


def _tensors(header: GgufHeader, config: Mapping[str, Any]) -> Iterator[_Out]:
    names = hugging_face_names(str(config["model_type"]))
    llama = header.architecture == "llama"
    for tensor in header.tensors.values():
        if tensor.name == _FREQS:
            continue
        match = _BLOCK.fullmatch(tensor.name)
        template = names.get(tensor.name if match is None else f"blk.{{n}}.{match['rest']}")
        if template is None:
            raise Unsupported(f"{tensor.name[:120]} has no name in this architecture", expected="a tensor of its map")
        if tensor.kind.name not in _DTYPES:
            raise InvalidModel(
                "this GGUF model is already quantized: it is no model to start from",
                expected="f32, f16, bf16 or q8_0", got=f"{tensor.name[:120]} in {tensor.kind.name}",
                hint="start from the 16-bit file; `bitwright import` makes a plan of this mix",
            )  # fmt: skip
        dtype = (
            "F16" if tensor.kind.name == "q8_0" and tensor.name == "token_embd.weight" else _DTYPES[tensor.kind.name]
        )
        role = match["rest"].split(".")[0] if match else ""
        key = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get(role)
        rotated = int(config[key]) if llama and key else None
        n = match["n"] if match else None
        if "{e}" not in template:
            shape = (1, *tensor.shape) if template.endswith("shared_expert_gate.weight") else tensor.shape
            yield _Out(template.format(n=n), dtype, shape, tensor, None, rotated)
            continue
        for expert in range(tensor.shape[0]):
            yield _Out(template.format(n=n, e=expert), dtype, tensor.shape[1:], tensor, expert, None)


def _write(target: Path, outs: list[_Out], path: Path, beneath: Path | None) -> None:
    """One safetensors file, a tensor in memory at a time."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    ordered = sorted(outs, key=lambda out: -DTYPE_BYTES[out.dtype])
    for out in ordered:
        end = position + math.prod(out.shape) * DTYPE_BYTES[out.dtype]
        table[out.name] = {"dtype": out.dtype, "shape": list(out.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open_regular(path, beneath) as source, target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for out in ordered:
            file.write(np.ascontiguousarray(_read(source, out)).tobytes())
        file.flush()
        os.fsync(file.fileno())


def _read(source: Any, out: _Out) -> NDArray[Any]:
    """The tensor in its type and order here. Raises InvalidModel when the file has become shorter."""
    tensor = out.source
    size = (tensor.end - tensor.start) // (tensor.shape[0] if out.expert is not None else 1)
    source.seek(tensor.start + (out.expert or 0) * size)
    data = source.read(size)
    if len(data) != size:
        raise InvalidModel(
            "the GGUF file became shorter while it was read", expected=f"{size} bytes", got=str(len(data))
        )
    if tensor.kind.name == "q8_0":
        blocks = np.frombuffer(data, np.uint8).reshape(-1, 34)
        scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
        values = blocks[:, 2:].view(np.int8).astype(np.float32) * scales
        array: NDArray[Any] = values.astype(_NUMPY[out.dtype]).reshape(out.shape)
    else:
        array = np.frombuffer(data, _NUMPY[out.dtype]).reshape(out.shape)
    if out.rotated is None:
        return array
    rows = array.shape[0]
    if rows % (2 * out.rotated):
        raise InvalidModel(
            f"{tensor.name} does not fit its heads", expected=f"rows in {2 * out.rotated}", got=str(rows)
        )
    order = np.arange(rows).reshape(out.rotated, rows // out.rotated // 2, 2).swapaxes(1, 2).reshape(-1)
    return array[order]
