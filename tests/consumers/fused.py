"""Putting a checkpoint's weights, by their names on disk, into a model that transformers 5 may have fused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

_EXPERT = re.compile(r"(?P<block>.+)\.(?:block_sparse_moe|mlp)\.experts\.(?P<e>[0-9]+)\.(?P<role>[a-z_0-9]+)\.weight")
_HALF = {"w1": 0, "gate_proj": 0, "w3": 1, "up_proj": 1}


def place(model: Any, weights: Mapping[str, np.ndarray]) -> None:
    """Copies each float32 (out, in) matrix to where it lives in memory."""
    import torch

    parameters = dict(model.named_parameters())
    for name, weight in weights.items():
        value = torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32))
        match = _EXPERT.fullmatch(name)
        if match is None:
            parameters[name].copy_(value)
            continue
        half = _HALF.get(match["role"])
        stack = parameters[f"{match['block']}.mlp.experts.{'down_proj' if half is None else 'gate_up_proj'}"]
        target = stack[int(match["e"])]
        (target if half is None else target.chunk(2)[half]).copy_(value)
