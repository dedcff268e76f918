"""Relevance through a model that is read block by block: `relevance.py` with recomputation.

    forward   every block once, what goes into each kept (on disk beyond the stream's limit)
    head      run with its rules from what came out of the last block: the relevance that arrives there
    blocks    from the last to the first: read, run again with its rules from the kept input, and what arrives at its
              output is handed back to its input

Relevance is handed on as it is, so what is conserved at every operation is conserved over the model. What stands before
the first block holds no planned weight and is not gone through. One item is a batch: rules rescale totals by item.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from sensitivity.base import ScoringTask
from sensitivity.blocks import OUTSIDE, BlockModel
from sensitivity.data import Data
from sensitivity.relevance import Ledger, Propagation, check_same, eager_attention, norms_unchanged, start
from sensitivity.shelf import Shelf
from sensitivity.stream import Stream
from sensitivity.stream_options import activation_bytes


def propagate(task: ScoringTask, model: BlockModel, data: Data, rows: range, told: tuple[float, float]) -> Ledger:
    """What went through the layers while these items were taken through the whole model, one after another.

    told: share of the work before and after, for the progress. Raises Unsupported, NotFinite, OutOfResources.
    """
    batches = [data.take(np.array([row])).trimmed() for row in rows]
    ledger = Ledger()
    with tempfile.TemporaryDirectory(prefix="bitwright-") as folder, torch.inference_mode(False):
        stream = Stream(model, batches, Shelf(activation_bytes(task) // 2, Path(folder)))
        with eager_attention(model.model):
            for share, words in _walk(stream, ledger):
                task.progress("score", told[0] + (told[1] - told[0]) * share, words)
    return ledger


def _walk(stream: Stream, ledger: Ledger) -> Iterator[tuple[float, str]]:
    """The share of the work that is done, and words."""
    blocks = len(stream.model.blocks)
    stream.begin("x")
    for block in range(blocks):
        with stream.model.loaded(block):
            stream.advance("x", block, keep=True)
        yield (block + 1) / blocks / 3, f"block {block} run"
    for done, block in enumerate((OUTSIDE, *reversed(range(blocks)))):
        with stream.model.loaded(block):
            for number in range(len(stream.batches)):
                _back(stream, block, number, ledger)
        words = "head done" if block == OUTSIDE else f"relevance through block {block}"
        yield 1 / 3 + 2 / 3 * (done + 1) / (blocks + 1), words


def _back(stream: Stream, block: int, number: int, ledger: Ledger) -> None:
    """Relevance of a batch from a loaded block's output to its input."""
    at = stream.last + 1 if block == OUTSIDE else block
    kept = stream.shelf.get(("x", at, number)).detach()
    inputs = kept.clone().requires_grad_()
    layers = stream.listener(stream.model.units_of(block)).layers
    module = stream.model.model if block == OUTSIDE else stream.model.blocks[block]
    with torch.enable_grad(), norms_unchanged(module, ledger), Propagation(layers, ledger):
        output = _run(stream, block, number, inputs)
    if number == 0:
        with torch.no_grad():
            check_same(output.detach(), _run(stream, block, number, kept))
    arriving = start(output.detach()) if block == OUTSIDE else stream.shelf.get(("r", number))
    torch.autograd.backward(output, arriving)
    stream.shelf.put(("r", number), torch.zeros_like(kept) if inputs.grad is None else inputs.grad)
    stream.shelf.drop(("x", at, number))


def _run(stream: Stream, block: int, number: int, inputs: torch.Tensor) -> torch.Tensor:
    return stream.finish(number, inputs) if block == OUTSIDE else stream.run(block, number, inputs)
