"""Measured quality of plans and checkpoints: both models really run, on data that made no decision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, InvalidPlan
from bitwright.core.formats import parse_format
from bitwright.core.inventory import Inventory, Unit
from bitwright.models import ModelSource
from quantizers.base import Quantizer
from sensitivity.base import Progress, silent
from sensitivity.data import Calibration, Data
from sensitivity.deltas import load_quantizer, quantized_layer, read_weight
from sensitivity.memory import too_large
from sensitivity.partial import FORGETFUL, Partial, State
from sensitivity.quality import COMPARISONS, Comparison, Quality
from sensitivity.runner import Runner, load_runner
from sensitivity.stream import ACTIVATION_BYTES
from sensitivity.stream_measure import Variant, stream_measure, whole
from sensitivity.units_map import Changed

__all__ = ["Quality", "measure", "measure_checkpoint", "measure_variants", "measure_weights"]

#: Outputs of the original model that are kept for comparison at once.
KEPT_BYTES = 1 << 30
#: Outputs of one batch.
BATCH_BYTES = 16 << 20
BATCH_ITEMS = 32


class Original(Protocol):
    """The original model's outputs where they are known: of a batch that starts at a multiple of batch_items."""

    @property
    def batch_items(self) -> int: ...

    def __call__(self, rows: NDArray[np.int64], /) -> torch.Tensor: ...


def measure(
    source: ModelSource,
    inventory: Inventory,
    variants: Mapping[str, Sequence[str] | None],
    data: Data | Calibration,
    *,
    quantizer: str | Quantizer = "rtn",
    progress: Progress | None = None,
    runner: Runner | None = None,
    partial: Partial = FORGETFUL,
    stream: bool | None = None,
) -> dict[str, Quality]:
    """Quality of each variant against the original: KL, and what else the task has (see sensitivity.quality).

    variants: name -> one format name a unit in the inventory's order, or None for the original itself. data: held-out
    data (of a Calibration, the confirming part). The original runs once for all variants. partial: keeps what is
    measured of exactly this question; a run that finds some goes on from there. stream: see `measure_variants`.
    Raises InvalidPlan, NotFinite, InvalidCalibration, Unsupported.
    """
    maker = load_quantizer(quantizer)
    for name, formats in variants.items():
        if formats is not None and len(formats) != len(inventory.units):
            raise InvalidPlan(
                f"variant {name} does not fit the model",
                expected=f"{len(inventory.units)} formats",
                got=f"{len(formats)}",
            )

    def of(name: str) -> Variant:
        chosen = variants[name]
        names = None if chosen is None else {u.name: f for u, f in zip(inventory.units, chosen, strict=True)}

        def weights(unit: Unit) -> Changed | None:
            if names is None:
                return None
            return quantized_layer(maker, source, inventory, unit, parse_format(names[unit.name]))

        return weights

    makers = {name: of(name) for name in variants}
    return measure_variants(
        source, inventory, makers, data, progress=progress, runner=runner, partial=partial, stream=stream
    )


def measure_variants(
    source: ModelSource,
    inventory: Inventory,
    variants: Mapping[str, Variant],
    data: Data | Calibration,
    *,
    progress: Progress | None = None,
    runner: Runner | None = None,
    partial: Partial = FORGETFUL,
    stream: bool | None = None,
    activation_bytes: int = ACTIVATION_BYTES,
    original: Original | None = None,
) -> dict[str, Quality]:
    """As `measure`, for variants that give each unit's weights: in memory, or block by block where it would not fit.

    stream: decides instead. A runner that is given is always used. activation_bytes: of a walk block by block.
    original: see `measure_weights`.
    """
    if runner is None and (too_large(inventory) if stream is None else stream):
        items = _items(data)
        comparisons = _resumed(variants, inventory.task, partial)
        stream_measure(
            source, inventory, variants, items, _by_length(items), comparisons,
            lambda: partial.save(lambda: _kept(comparisons)), progress or silent,
            activation_bytes=activation_bytes,
        )  # fmt: skip
        return {name: comparison.result() for name, comparison in comparisons.items()}
    makers = {name: (lambda make=make: whole(make, inventory.units)) for name, make in variants.items()}
    return measure_weights(
        runner or load_runner(source, inventory), makers, data, progress=progress, partial=partial, original=original
    )


def measure_probes_streamed(
    source: ModelSource,
    inventory: Inventory,
    probes: Mapping[str, tuple[int, Callable[[], NDArray[np.float32]]]],
    data: Data,
    *,
    progress: Progress,
    partial: Partial,
    activation_bytes: int,
) -> dict[str, Quality]:
    """Quality of each change of one unit, by (its number, its float32 weights), the model read block by block."""
    comparisons = _resumed(probes, inventory.task, partial)

    def variant(unit: int, weights: Callable[[], NDArray[np.float32]]) -> Variant:
        name = inventory.units[unit].name
        return lambda spec: weights() if spec.name == name else None

    stream_measure(
        source, inventory, {name: variant(*probe) for name, probe in probes.items()}, data, _by_length(data),
        comparisons, lambda: partial.save(lambda: _kept(comparisons)), progress, activation_bytes=activation_bytes,
        alone={name: unit for name, (unit, _) in probes.items()},
    )  # fmt: skip
    return {name: comparison.result() for name, comparison in comparisons.items()}


def _items(data: Data | Calibration) -> Data:
    items = data.confirming if isinstance(data, Calibration) else data
    if items.items == 0:
        raise InvalidCalibration("there is no data to measure on", hint="give a longer text")
    return items


def measure_checkpoint(
    source: ModelSource,
    inventory: Inventory,
    checkpoint_dir: str | Path,
    data: Data | Calibration,
    *,
    progress: Progress | None = None,
    runner: Runner | None = None,
    partial: Partial = FORGETFUL,
) -> Quality:
    """Quality of a checkpoint that `bitwright execute` wrote, from the weights that it really stores.

    Raises InvalidModel for a folder that is no checkpoint, InvalidPlan for one of another model.
    """
    from quantizers.containers.catalog import CONTAINERS
    from quantizers.containers.checkpoint import load_manifest

    folder = Path(checkpoint_dir)
    checkpoint = CONTAINERS.load(str(load_manifest(folder).get("bitwright_container"))).read(folder)
    stored, wanted = set(checkpoint.formats()), {unit.name for unit in inventory.units}
    if stored != wanted or checkpoint.model_digest not in (inventory.digest, "None"):
        raise InvalidPlan(
            "the checkpoint is of another model", expected=f"{len(wanted)} units of {inventory.digest}",
            got=f"{len(stored)} units of {checkpoint.model_digest}", hint="name the model it was made from",
        )  # fmt: skip

    def weights(unit: Unit) -> Changed:
        weight, bias = np.asarray(checkpoint.dequantized(unit.name), np.float32), inventory.bias_of(unit)
        if bias is None or not checkpoint.holds(bias.name):
            return weight
        stored = checkpoint.read_float32(bias.name)
        return weight if np.array_equal(stored, read_weight(source, bias.name)) else (weight, stored)

    makers = {"checkpoint": weights}
    return measure_variants(source, inventory, makers, data, progress=progress, runner=runner, partial=partial)[
        "checkpoint"
    ]


def measure_weights(
    runner: Runner,
    variants: Mapping[str, Any],
    data: Data | Calibration,
    *,
    progress: Progress | None = None,
    partial: Partial = FORGETFUL,
    original: Original | None = None,
) -> dict[str, Quality]:
    """As `measure`, for variants that are functions giving float32 weights by unit name (units left out stay).

    original: gives what the model itself puts out, for data whose items are all of one length; None: it is run.
    """
    tell, items = progress or silent, _items(data)
    comparisons = _resumed(variants, runner.inventory.task, partial)
    order = _by_length(items)
    size, chunk = _sizes(runner, items.take(order[-1:]), None if original is None else original.batch_items)
    total = len(order) * (1 + len(variants))
    with torch.inference_mode():
        for start in range(0, len(order), chunk):
            rows = order[start : start + chunk]
            left = {name: make for name, make in variants.items() if comparisons[name].items < start + len(rows)}
            if not left:
                continue
            done = start * (1 + len(variants)) + len(rows) * (len(variants) - len(left))
            cuts = [rows[i : i + size] for i in range(0, len(rows), size)]
            batches = [items.take(cut).trimmed() for cut in cuts]
            reference: list[torch.Tensor] = []
            for number, output in enumerate(_outputs(runner, batches) if original is None else map(original, cuts)):
                reference.append(output)
                done += batches[number].items
                tell("measure", done / total, "original model")
            for name, make in left.items():
                with runner.replaced(make()):
                    for batch, first, second in zip(batches, reference, _outputs(runner, batches), strict=True):
                        comparisons[name].add(first, second, batch)
                        done += batch.items
                        tell("measure", done / total, name)
                partial.save(lambda: _kept(comparisons))
    return {name: comparison.result() for name, comparison in comparisons.items()}


def _kept(comparisons: Mapping[str, Comparison]) -> State:
    return {f"{name}/{key}": array for name, one in comparisons.items() for key, array in one.state().items()}


def _resumed(names: Iterable[str], task: str, partial: Partial) -> dict[str, Comparison]:
    """A comparison for each variant, holding what was kept of it."""
    kept: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in partial.load().items():
        variant, key = name.rsplit("/", 1)
        kept.setdefault(variant, {})[key] = array
    return {name: COMPARISONS[task](kept.get(name, {})) for name in names}


def _outputs(runner: Runner, batches: Sequence[Data]) -> Iterator[torch.Tensor]:
    for batch in batches:
        yield runner.output(batch)


def _by_length(data: Data) -> NDArray[np.int64]:
    mask = data.inputs.get("attention_mask")
    if mask is None:
        return np.arange(data.items, dtype=np.int64)
    return np.argsort(mask.sum(axis=1), kind="stable").astype(np.int64)


def _sizes(runner: Runner, longest: Data, wanted: int | None) -> tuple[int, int]:
    """Items a batch, and items whose original outputs are kept at once, from the output of the longest item."""
    with torch.inference_mode():
        one = runner.output(longest.trimmed())
    size = max(1, min(BATCH_ITEMS, BATCH_BYTES // (4 * one.numel()))) if wanted is None else wanted
    return size, size * max(1, KEPT_BYTES // (4 * one.numel() * size))
