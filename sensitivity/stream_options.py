"""Whether a metric reads the model block by block, and how: options that all metrics share that can."""

from __future__ import annotations

import torch

from bitwright.core.errors import InvalidInput
from sensitivity.base import ScoringTask
from sensitivity.memory import too_large
from sensitivity.stream import ACTIVATION_BYTES

#: `stream`: read the model block by block; left out, models that would not fit into the memory at hand are. `dtype`:
#: bfloat16 reads and runs it in that precision, always block by block. `activation_mib`: what waiting block inputs and
#: a batch may take then (1024).
OPTIONS = frozenset({"stream", "dtype", "activation_mib"})
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def streams(task: ScoringTask) -> bool:
    """Whether the model is read block by block: as the options say, else when it would not fit; the same for all who
    share the work. Raises InvalidInput."""
    decided: bool = task.share.decide("stream", lambda: _streams(task))
    return decided


def _streams(task: ScoringTask) -> bool:
    wanted = task.options.get("stream")
    if wanted is not None and not isinstance(wanted, bool):
        raise InvalidInput("the option stream must be true or false", got=repr(wanted)[:80])
    if dtype_of(task) != torch.float32:
        return True
    return too_large(task.inventory) if wanted is None else wanted


def dtype_of(task: ScoringTask) -> torch.dtype:
    name = task.options.get("dtype", "float32")
    if name not in DTYPES:
        raise InvalidInput(
            "the option dtype names no precision", expected=" or ".join(DTYPES), got=repr(name)[:80]
        )  # fmt: skip
    return DTYPES[name]


def activation_bytes(task: ScoringTask) -> int:
    mib = task.options.get("activation_mib", ACTIVATION_BYTES >> 20)
    if isinstance(mib, bool) or not isinstance(mib, int) or mib < 1:
        raise InvalidInput("the option activation_mib must be a positive number of MiB", got=repr(mib)[:80])
    return mib << 20
