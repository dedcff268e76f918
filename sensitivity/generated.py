"""Text that a language model writes itself: calibration data for models whose training text nobody has.

Sequences begin with a random token and go on with draws from the model's own distribution (temperature 1), which is how
data-free calibration was first done for language models (LLM-QAT, arXiv:2305.17888). Draws depend on (seed, sequence).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, Unsupported
from bitwright.core.inventory import Inventory
from bitwright.models import ModelSource
from sensitivity.data import Data
from sensitivity.heads import draw_labels
from sensitivity.on_device import back, here
from sensitivity.runner import load_runner
from sensitivity.tokens import sequence_length, vocabulary_size

_STREAM = 0x5E1F
#: Sequences written at once.
BATCH = 32


def self_written(source: ModelSource, inventory: Inventory, wanted: int, part: int, seed: int) -> Data:
    """About `wanted` tokens in whole sequences, written by the model. Raises Unsupported for other tasks than text."""
    if inventory.task != "causal-lm":
        raise Unsupported(
            "only causal language models write text", got=f"task {inventory.task}", hint="use --calibration random"
        )
    size, length = vocabulary_size(source), sequence_length(source, part)
    if size is None:
        raise InvalidCalibration("writing text needs the size of the vocabulary", expected="vocab_size in config.json")
    runner = load_runner(source, inventory)
    count = max(2, round(wanted / length))
    ids = np.zeros((count, length), np.int64)
    with torch.inference_mode():
        for start in range(0, count, BATCH):
            rows = np.arange(start, min(start + BATCH, count))
            keys = [np.random.Generator(np.random.Philox(key=[seed ^ _STREAM, int(row)])) for row in rows]
            uniforms = np.stack([key.random(length) for key in keys])
            ids[rows] = _written(runner.model, uniforms, size)
    return Data("tokens", {"input_ids": ids})


def _written(model: torch.nn.Module, uniforms: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """(sequences, length) ids. uniforms: one a token; the first chooses the first token evenly."""
    tokens = here((uniforms[:, 0] * size).astype(np.int64))[:, None]
    written, cache = [tokens], None
    for step in range(1, uniforms.shape[1]):
        output = model(input_ids=written[-1], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        probabilities = torch.softmax(output.logits[:, -1].float(), dim=-1)
        written.append(draw_labels(probabilities, uniforms[:, step, None]))
    return np.asarray(back(torch.cat(written, dim=1)), np.int64)
