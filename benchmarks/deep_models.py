"""A trained model made wide and deep: a checkpoint of any size whose function is that of a trained model, or near it.

    wide   T copies side by side: matrices become block-diagonal, vectors and embeddings are repeated, what reads the
           last hidden state takes the mean of the copies. The function is exactly that of the original.
    deep   every layer r times in a row, what it adds to the residual stream divided by r.

Written block by block, so that this takes no memory either.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

#: Matrices that add to the residual stream.
_ADDS = ("o_proj", "down_proj", "w2", "attention.output.dense", "output.dense")
_WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")


def _diagonal(matrix: torch.Tensor, copies: int) -> torch.Tensor:
    return torch.block_diag(*[matrix.float()] * copies).to(matrix.dtype)


def _in_layer(name: str, tensor: torch.Tensor, copies: int, times: int) -> torch.Tensor:
    adds = any(part in name for part in _ADDS)
    tensor = (tensor.float() / times).to(tensor.dtype) if adds and times > 1 else tensor
    if name.endswith(("gate.weight",)) and "block_sparse_moe" in name:
        return (tensor.repeat(1, copies).float() / copies).to(tensor.dtype)
    return _diagonal(tensor, copies) if tensor.ndim == 2 else tensor.repeat(copies)


def _outside(name: str, tensor: torch.Tensor, copies: int) -> torch.Tensor:
    if name.startswith(("lm_head", "classifier")):
        return (tensor.repeat(1, copies).float() / copies).to(tensor.dtype) if tensor.ndim == 2 else tensor
    if "projection.weight" in name:  # a convolution: hidden size first
        return tensor.repeat(copies, 1, 1, 1)
    return tensor.repeat(*[1] * (tensor.ndim - 1), copies)


def make_deep(model: Path, folder: Path, copies: int, times: int, dtype: torch.dtype | None = None) -> int:
    """Writes the checkpoint into a new folder, in its own precision or another; its bytes.

    Layers are numbered by `.layers.N.` or `.layer.N.`.
    """
    folder.mkdir()
    config = json.loads((model / "config.json").read_text())
    config |= {key: config[key] * copies for key in _WIDTHS if isinstance(config.get(key), int)}
    config["num_hidden_layers"] *= times
    config |= {} if dtype is None else {"dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        if (model / name).exists():
            shutil.copy(model / name, folder / name)
    index: dict[str, str] = {}
    with safe_open(model / "model.safetensors", framework="pt") as file:
        layers: dict[tuple[str, int], list[str]] = {}
        outside: list[str] = []
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            mark = next((m for m in (".layers.", ".layer.") if m in name), None)
            if mark is None:
                outside.append(name)
            else:
                layers.setdefault((mark, int(name.split(mark)[1].split(".")[0])), []).append(name)
        _write(folder, "outside", {n: _outside(n, file.get_tensor(n), copies) for n in outside}, index, dtype)
        for (mark, layer), names in sorted(layers.items(), key=lambda pair: pair[0][1]):
            tensors = {n: _in_layer(n, file.get_tensor(n), copies, times) for n in names}
            for at in range(layer * times, (layer + 1) * times):
                old, new = f"{mark}{layer}.", f"{mark}{at}."
                _write(folder, f"layer-{at}", {n.replace(old, new, 1): t for n, t in tensors.items()}, index, dtype)
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    )
    return total


def _write(
    folder: Path, stem: str, tensors: dict[str, torch.Tensor], index: dict[str, str], dtype: torch.dtype | None
) -> None:
    stored = {n: (t if dtype is None else t.to(dtype)).contiguous() for n, t in tensors.items()}
    save_file(stored, folder / f"{stem}.safetensors", metadata={"format": "pt"})
    index |= dict.fromkeys(tensors, f"{stem}.safetensors")
