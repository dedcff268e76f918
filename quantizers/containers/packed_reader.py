"""A stand-alone reader of `packed` checkpoints: numpy and the standard library, nothing of bitwright.

    python packed_reader.py FOLDER             lists the tensors; as a module: read("FOLDER")["tensor's name"]

The specification is docs/packed.md. Copy the files packed_*.py (and gaussian_grids.npz for higgs formats) freely."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

if __package__:
    from . import packed_blocks, packed_parts
else:
    import packed_blocks  # type: ignore[import-not-found, no-redef]
    import packed_parts  # type: ignore[import-not-found, no-redef]

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?", "F8_E4M3": "u1", "F8_E5M2": "u1",
}  # fmt: skip


def stored(folder: str | Path) -> dict[str, np.ndarray[Any, Any]]:
    """Every tensor of every safetensors file, as stored (BF16 widened to float32), mapped from disk."""
    tensors = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        data = np.memmap(path, dtype=np.uint8, mode="r")
        base = 8 + int(data[:8].view("<u8")[0])
        header = json.loads(data[8:base].tobytes())
        header.pop("__metadata__", None)
        for name, entry in header.items():
            start, stop = entry["data_offsets"]
            array = np.frombuffer(data[base + start : base + stop].tobytes(), DTYPES[entry["dtype"]])
            if entry["dtype"] == "BF16":
                array = (array.astype(np.uint32) << 16).view(np.float32)
            tensors[name] = array.reshape(entry["shape"])
    return tensors


def unpack(words: np.ndarray[Any, Any], bits: int, count: int) -> np.ndarray[Any, Any]:
    """(rows, words) -> (rows, count): code i is bits [i*b, (i+1)*b) of its row's little-endian stream."""
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")
    digits = stream[:, : count * bits].reshape(words.shape[0], count, bits)
    return np.packbits(digits, axis=2, bitorder="little")[:, :, 0]


def unit(entry: Mapping[str, Any], tensors: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """float32 (out, in) weights of one unit of the manifest."""
    name, columns, kind = entry["name"], entry["shape"][1], entry["format"]
    if "(" in kind:
        return packed_parts.values(entry, tensors, unit)
    if f"{name}.blocks" in tensors:
        return packed_blocks.values(tensors[f"{name}.blocks"], tensors.get(f"{name}.scales"), kind, columns)
    match = re.fullmatch(r"(?:sign|int(?:-l)?([0-9]+)(-sym)?)-(?:g([0-9]+)|channel|tensor)(?:-bf16|-fp32)?", kind)
    if match is None:
        return tensors[name].astype(np.float32)
    sign, levels = match[1] is None, int(match[1]) if "-l" in kind else 1 << int(match[1] or 1)
    bits, group, words = (levels - 1).bit_length(), int(match[3] or columns), tensors[f"{name}.codes"]
    each = max(k for k in range(33) if levels**k <= 2**32)
    codes = packed_blocks.digits(words, levels, columns) if each * bits > 32 else unpack(words, bits, columns)
    scales = tensors[f"{name}.scales"].astype(np.float32) * (1 + sign)
    zeros = np.full(scales.shape, levels // 2 / (1 + sign), np.float32)
    if not (match[2] or sign):
        zeros = unpack(tensors[f"{name}.zeros"], bits, len(scales)).T.astype(np.float32)
    at = np.arange(columns) // group
    return np.asarray((codes.astype(np.float32) - zeros[:, at]) * scales[:, at], np.float32)


def items(folder: str | Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """(original tensor name, weights): units dequantized, stacked experts put together, the rest as it is."""
    manifest = json.loads((Path(folder) / "bitwright.json").read_bytes())
    if (manifest["bitwright_container"], manifest["version"]) != ("packed", 1):
        raise ValueError("not a packed checkpoint of version 1")
    tensors = stored(folder)
    stacks: dict[str, dict[int, np.ndarray[Any, Any]]] = {}
    used = {entry["name"] + suffix for entry in manifest["units"] for suffix in packed_parts.SUFFIXES}
    for entry in manifest["units"]:
        if entry["index"] is None:
            yield entry["tensor"], unit(entry, tensors)
        else:
            stacks.setdefault(entry["tensor"], {})[entry["index"]] = unit(entry, tensors)
    yield from ((name, np.stack([parts[i] for i in sorted(parts)])) for name, parts in stacks.items())
    yield from ((name, tensor) for name, tensor in tensors.items() if name not in used)


def read(folder: str | Path) -> dict[str, np.ndarray[Any, Any]]:
    return dict(items(folder))  # the whole model by original tensor name


if __name__ == "__main__":
    for tensor_name, weights in items(sys.argv[1]):
        print(f"{tensor_name}  {weights.dtype}  {list(weights.shape)}")
