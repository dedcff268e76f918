"""Blocks of `higgs-...` formats to weights: numpy only, nothing of bitwright. Stands beside packed_reader.py.

Written from docs/packed.md section 3 and on purpose not from the code that writes, which the tests compare it with.
The points of the grids are data: gaussian_grids.npz, beside this file or where the sources keep it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
HERE = Path(__file__).parent
GRIDS = HERE / "gaussian_grids.npz"
NAME = re.compile(r"(higgs-p([1-4])-n([0-9]+))(?:-g([0-9]+))?")


def values(blocks: Array, name: str, columns: int) -> Array:
    """float32 (rows, columns) weights of a unit in the format `name`."""
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"not a format of grids: {name}")
    dimension, bits, group = int(match[2]), int(match[3]).bit_length() - 1, int(match[4] or 1024)
    with np.load(GRIDS if GRIDS.is_file() else HERE.parents[1] / "gpu_kernels" / GRIDS.name) as stored:
        points = stored[match[1]]
    found, at = [], 0
    for first in range(0, columns, group):
        length = min(group, columns - first)
        count = -(-length // dimension)
        size = 2 + -(-count * bits // 8)
        part = np.ascontiguousarray(blocks[:, at : at + size])
        stream = np.unpackbits(part[:, 2:], axis=1, bitorder="little")[:, : count * bits]
        codes = stream.reshape(-1, count, bits).astype(np.int64) @ (1 << np.arange(bits))
        turned = unrotate(points[codes].reshape(len(blocks), -1)[:, :length])
        found.append(turned * part[:, :2].view("<f2").astype(np.float32) * signs(length))
        at += size
    return np.asarray(np.concatenate(found, axis=1) if found else np.zeros((len(blocks), 0)), np.float32)


def unrotate(x: Array) -> Array:
    """Normalised Hadamard matrices over the powers of two that the length is the sum of, largest first."""
    rows, length, parts, first = len(x), x.shape[1], [], 0
    while first < length:
        width = 1 << ((length - first).bit_length() - 1)
        part, half = x[:, first : first + width], 1
        while half < width:
            pairs = part.reshape(rows, width // (2 * half), 2, half)
            low, high = pairs[:, :, 0], pairs[:, :, 1]
            part, half = np.stack([low + high, low - high], axis=2).reshape(rows, width), 2 * half
        parts.append(part * np.float32(width**-0.5))
        first += width
    return np.concatenate(parts, axis=1)


def signs(length: int) -> Array:
    """-1 where the top bit of splitmix64's i-th number, started at 0, is set."""
    found = []
    for i in range(1, length + 1):
        z = i * 0x9E3779B97F4A7C15 & (1 << 64) - 1
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
        z = (z ^ z >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
        found.append(-1.0 if (z ^ z >> 31) >> 63 else 1.0)
    return np.array(found, np.float32)
