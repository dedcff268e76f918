"""`fisher` scores of a model that does not fit in memory: one block at a time, forward and backward, with
recomputation.

    forward    for each block: read it, run every batch through it, keep what comes out, drop it
    head       final norm and head of every batch; the directions of the output, K gradients of the last block's output
    backward   for each block from the last: read it, quantize its units, and for every batch run it again from the kept
               input, differentiate along the K gradients, score its units, hand the K gradients on

What is held is one block in float32, the codes of its units in every format (a byte a weight and format), the error
of one unit in one format, a batch's activations inside the block, and block inputs up to `activation_bytes` (more go
to disk). The numbers are those of sensitivity/fisher.py up to float32 rounding: draws depend on (seed, item) alone.
"""

from __future__ import annotations

import math
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, InvalidInput, NotFinite, Unsupported
from quantizers.base import dequantize
from sensitivity.base import Scores, ScoringTask
from sensitivity.blocks import BlockModel, Shelf, open_blocks
from sensitivity.capture import Call, Key, Listener, Part, per_item, weight_key
from sensitivity.data import Data
from sensitivity.deltas import unit_weight
from sensitivity.fallback import fill_unmeasured
from sensitivity.moments import REPLICATES, Moments
from sensitivity.share import Values, add_up

#: Block inputs and gradients kept in memory before they go to disk.
ACTIVATION_BYTES = 1 << 30
#: Tokens of a batch (image models: 8 items).
BATCH_TOKENS = 2048
#: A model in memory, its gradients and its errors need about this much more than its weights.
MEMORY_SHARE = 0.4


class _Reached(Exception):
    """The last block was reached."""


@dataclass(eq=False)
class _Stream:
    task: ScoringTask
    model: BlockModel
    data: Data
    shelf: Shelf
    batches: list[NDArray[np.int64]]
    samples: int
    arguments: dict[tuple[int, int], tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)
    tupled: bool = False
    norms: list[int] = field(default_factory=list)
    weights: list[torch.Tensor] = field(default_factory=list)
    cells: list[NDArray[np.float64]] = field(default_factory=list)
    reached: list[NDArray[np.bool_]] = field(default_factory=list)

    def batch(self, number: int) -> Data:
        return self.data.take(self.batches[number]).trimmed()

    def run(self, block: int, batch: int, inputs: torch.Tensor) -> torch.Tensor:
        args, kwargs = self.arguments[block, batch]
        output = self.model.blocks[block](inputs, *args, **kwargs)
        first: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return first

    @contextmanager
    def replaced_blocks(self, forward: Any) -> Iterator[None]:
        """Every block's forward replaced by forward(block number, hidden, args, kwargs)."""
        try:
            for number, block in enumerate(self.model.blocks):
                block.forward = lambda hidden, *a, _n=number, **k: forward(_n, hidden, a, k)
            yield
        finally:
            for block in self.model.blocks:
                del block.forward


def stream_scores(task: ScoringTask, *, activation_bytes: int = ACTIVATION_BYTES) -> Scores:
    """Scores of `fisher`, block by block. Raises Unsupported for models that cannot be streamed, NotFinite."""
    if task.data is None or task.data.items == 0:
        raise InvalidCalibration("the calibration data is empty", hint="give a longer --calibration text")
    model, data, batches = open_blocks(task.source, task.inventory), task.data, _batches(task.data)
    moments = Moments(*task.shape, replicates=REPLICATES, seed=task.seed)

    def compute(run: range) -> Iterator[Values]:
        with tempfile.TemporaryDirectory(prefix="bitwright-") as folder:
            shelf = Shelf(activation_bytes, Path(folder))
            stream = _Stream(task, model, data, shelf, [batches[number] for number in run], samples)
            _run(stream)
        for rows, cells, reached, weights in zip(
            stream.batches, stream.cells, stream.reached, stream.weights, strict=True
        ):
            yield Values(cells, reached, rows, len(weights))

    samples = model.head.default_samples if task.samples is None else task.samples
    directions = add_up(moments, task.share, len(batches), len(batches[0]), compute)
    return _assembled(task, model, moments, samples, directions)


def _run(stream: _Stream) -> None:
    """Forward and backward through all blocks; what the batches give is then in `cells` and `reached`."""
    blocks = len(stream.model.blocks)
    for rows in stream.batches:
        stream.cells.append(np.zeros((len(rows), *stream.task.shape)))
        stream.reached.append(np.zeros(stream.task.shape[0], np.bool_))
    with torch.inference_mode(False):
        _capture_inputs(stream)
        _forward(stream)
        _head(stream)
        for block in reversed(range(blocks)):
            _backward(stream, block)
            stream.task.progress("score", (blocks - block) / blocks, f"block {block} scored")


def wants_streaming(task: ScoringTask) -> bool:
    """The option `stream`; without it, whether the model in float32 needs more than MEMORY_SHARE of the free memory.

    Raises InvalidInput.
    """
    wanted = task.options.get("stream")
    if wanted is not None:
        if not isinstance(wanted, bool):
            raise InvalidInput("the option stream must be true or false", got=repr(wanted)[:80])
        return wanted
    held = 4 * task.inventory.weights + 2 * task.inventory.rest_bytes
    return held > MEMORY_SHARE * free_memory()


def free_memory() -> float:
    """Bytes that this process may still take: of the machine's, and of its own limit on data; infinite if unknown."""
    known = Path("/proc/meminfo")
    lines = known.read_text(encoding="ascii").splitlines() if known.is_file() else []
    free = next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)
    for limit in (resource.RLIMIT_DATA, resource.RLIMIT_AS):
        soft, _ = resource.getrlimit(limit)
        free = min(free, math.inf if soft == resource.RLIM_INFINITY else float(soft))
    return free


def _batches(data: Data) -> list[NDArray[np.int64]]:
    mask = data.inputs.get("attention_mask")
    lengths = np.ones(data.items, np.int64) if mask is None else mask.sum(axis=1)
    order = np.argsort(lengths, kind="stable").astype(np.int64)
    width = data.inputs["input_ids"].shape[1] if "input_ids" in data.inputs else BATCH_TOKENS // 8
    size = max(1, BATCH_TOKENS // width)
    return [order[start : start + size] for start in range(0, len(order), size)]


def _capture_inputs(stream: _Stream) -> None:
    """What goes into the first block, and the arguments that every block gets beside its input."""
    last = len(stream.model.blocks) - 1

    def forward(number: int, hidden: torch.Tensor, args: Any, kwargs: Any) -> Any:
        stream.arguments[number, current] = (args, kwargs)
        if number == 0:
            stream.shelf.put(("x", 0, current), hidden.detach().clone())
        if number == last:
            raise _Reached
        return (hidden,) if stream.tupled else hidden

    with torch.no_grad():
        for current in range(len(stream.batches)):
            if current == 0:
                _first_block(stream)
            with stream.replaced_blocks(forward):
                try:
                    stream.model.head.output(stream.model.model, stream.batch(current))
                except _Reached:
                    continue
            raise Unsupported("the model does not run its blocks one after another", hint="score it in memory")


def _first_block(stream: _Stream) -> None:
    """Runs one real block to see whether blocks give tuples."""
    block = stream.model.blocks[0]
    seen: list[Any] = []

    def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        seen.append(output)
        raise _Reached

    handle = block.register_forward_hook(hook)
    try:
        with stream.model.loaded(0):
            stream.model.head.output(stream.model.model, stream.batch(0))
    except _Reached:
        stream.tupled = isinstance(seen[0], tuple)
    finally:
        handle.remove()


def _forward(stream: _Stream) -> None:
    blocks = len(stream.model.blocks)
    with torch.no_grad():
        for block in range(blocks):
            with stream.model.loaded(block):
                for batch in range(len(stream.batches)):
                    output = stream.run(block, batch, stream.shelf.get(("x", block, batch)))
                    stream.shelf.put(("x", block + 1, batch), output)
            stream.task.progress("calibrate", (block + 1) / blocks, f"block {block} run")


def _head(stream: _Stream) -> None:
    """Scores the units outside the blocks; keeps the gradients of the last block's output."""
    last = len(stream.model.blocks) - 1
    units = stream.model.units_of(-1)
    codes = _Codes(stream.task, units)
    for number, rows in enumerate(stream.batches):
        end = stream.shelf.get(("x", last + 1, number)).detach().requires_grad_()

        def forward(block: int, hidden: torch.Tensor, args: Any, kwargs: Any, end: torch.Tensor = end) -> Any:
            result = end if block == last else hidden.detach()
            return (result,) if stream.tupled else result

        with stream.replaced_blocks(forward), _listener(stream.model, units).listen() as calls:
            output = stream.model.head.output(stream.model.model, stream.batch(number))
        if not bool(torch.isfinite(output.detach()).all()):
            raise NotFinite("the model's forward pass gave NaN or infinity", hint="the checkpoint is damaged")
        stream.norms.append(stream.model.head.norm(output))
        directions = list(stream.model.head.directions(output, rows, stream.samples, stream.task.seed))
        weight = torch.stack([direction.weight for direction in directions])
        stream.weights.append(weight)
        found = [(output, direction.gradient) for direction in directions]
        gradients, passed = _differentiate(calls, end, found)
        stream.shelf.put(("g", number), torch.stack(passed))
        _add(stream, units, codes, calls, gradients, number)


def _backward(stream: _Stream, block: int) -> None:
    units = stream.model.units_of(block)
    with stream.model.loaded(block):
        codes = _Codes(stream.task, units)
        for number in range(len(stream.batches)):
            inputs = stream.shelf.get(("x", block, number)).detach().requires_grad_()
            with _listener(stream.model, units).listen() as calls:
                output = stream.run(block, number, inputs)
            arriving = stream.shelf.get(("g", number))
            gradients, passed = _differentiate(calls, inputs, [(output, g) for g in arriving])
            stream.shelf.put(("g", number), torch.stack(passed))
            stream.shelf.drop(("x", block + 1, number))
            _add(stream, units, codes, calls, gradients, number)


def _differentiate(
    calls: list[Call], inputs: torch.Tensor, outputs: list[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[list[list[torch.Tensor | None]], list[torch.Tensor]]:
    """Along each direction: gradients of every call's output, and of the inputs."""
    found: list[list[torch.Tensor | None]] = []
    passed = []
    for number, (output, gradient) in enumerate(outputs):
        wanted = [call.output for call in calls] + [inputs]
        keep = number < len(outputs) - 1
        grads = torch.autograd.grad(output, wanted, gradient, retain_graph=keep, allow_unused=True)
        found.append(list(grads[:-1]))
        passed.append(torch.zeros_like(inputs) if grads[-1] is None else grads[-1])
    return found, passed


def _listener(model: BlockModel, units: tuple[int, ...]) -> Listener:
    parameters = dict(model.model.named_parameters())
    layers: dict[Key, tuple[Part, ...]] = {}
    for unit in units:
        weight = parameters[model.units[unit]].data
        layers[weight_key(weight)] = (Part(unit, 0, weight.shape[0]),)
    return Listener(layers, {})


class _Codes:
    """Units as their stored codes, from which the error of one unit in one format is made when asked."""

    def __init__(self, task: ScoringTask, units: tuple[int, ...]) -> None:
        self._task = task
        self._stored = {}
        for unit in units:
            spec = task.inventory.units[unit]
            weight = unit_weight(task.source, spec)
            quantizer = task.deltas.quantizer
            self._stored[unit] = [quantizer.quantize(weight, f, name=spec.name) for f in task.formats]

    def errors(self, unit: int, weight: torch.Tensor) -> Iterator[torch.Tensor]:
        """(out, in) error of the unit in one format after another. weight: the unit's own."""
        for stored in self._stored[unit]:
            yield torch.from_numpy(dequantize(stored)) - weight

    def energy(self, unit: int) -> NDArray[np.float64]:
        weight = torch.from_numpy(unit_weight(self._task.source, self._task.inventory.units[unit]))
        return np.array([float(error.double().square().sum()) for error in self.errors(unit, weight)], np.float64)


def _add(
    stream: _Stream, units: tuple[int, ...], codes: _Codes, calls: list[Call],
    gradients: list[list[torch.Tensor | None]], number: int,
) -> None:  # fmt: skip
    """Scores a batch's calls of a block, (sum over positions) squared an item."""
    rows = stream.batches[number]
    unused = set(units) - {call.parts[0].unit for call in calls}
    if unused:
        raise Unsupported(
            "streaming looks at linear layers, and this model uses planned weights in other ways",
            expected="weights used through torch's linear", got=stream.task.inventory.units[min(unused)].name,
            hint="score it in memory",
        )  # fmt: skip
    parameters = dict(stream.model.model.named_parameters())
    place = {unit: at for at, unit in enumerate(units)}
    scores = torch.zeros(len(gradients), len(rows), len(units), len(stream.task.formats), dtype=torch.float64)
    for at, call in enumerate(calls):
        shaped = per_item(call, len(rows))
        if shaped is None:
            raise Unsupported("a layer mixes the items of a batch", hint="score it in memory")
        inputs, shape = shaped
        unit = call.parts[0].unit
        weight = parameters[stream.model.units[unit]].data
        for column, error in enumerate(codes.errors(unit, weight)):
            change = inputs @ error.T
            for k, grads in enumerate(gradients):
                grad = grads[at]
                if grad is not None:
                    scores[k, :, place[unit], column] += (change * grad.reshape(shape)).sum((1, 2)).double()
    if not bool(torch.isfinite(scores).all()):
        raise NotFinite("the backward pass gave NaN or infinity", hint="the model overflows on this calibration data")
    values = torch.einsum("kb,kbuf->buf", stream.weights[number], scores.square()) / (2 * stream.norms[number])
    if units:
        stream.cells[number][:, list(units)] = values.numpy()
        stream.reached[number][list(units)] = (scores != 0).any(0).any(0).any(1).numpy()


def _assembled(task: ScoringTask, model: BlockModel, moments: Moments, samples_an_item: int, directions: int) -> Scores:
    items = task.data.items if task.data is not None else 0
    samples, reached, resampled = items * directions, moments.reached, moments.resampled()
    loss, stderr = moments.mean(), moments.stderr(samples)
    loss, stderr, unmeasured = fill_unmeasured(task, loss, stderr, reached) if not reached.all() else (loss, stderr, ())
    return Scores(
        loss=loss, stderr=stderr, loss_unit=model.head.loss_unit,
        tokens=task.data.tokens if task.data is not None else 0, samples=samples, unmeasured=unmeasured,
        extras={"resampled": np.where(reached[:, None], resampled, loss)} if len(resampled) else {},
        parameters={
            "samples_an_item": samples_an_item, "directions_an_item": directions, "items": items, "streamed": True,
        },
    )  # fmt: skip
