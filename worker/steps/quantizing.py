"""The quantizer that a request names, together with the calibration that it needs: one object for scoring, confirming
and executing, so that all three see the same errors."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.canonical import canonical_json, digest_json
from bitwright.core.errors import InvalidCalibration, InvalidInput, InvalidPlan, OutOfResources
from bitwright.core.formats import Format, MixedFormat
from bitwright.core.inventory import Inventory, Unit
from bitwright.core.plan import Plan
from bitwright.core.requests import PlanRequest
from bitwright.models import ModelSource
from gpu_kernels.compute import device_words
from quantizers.base import Float32Matrix, Quantizer, Stored
from quantizers.bias import bias_shift
from quantizers.blas import ready
from quantizers.catalog import QUANTIZERS
from quantizers.mixed import quantize
from sensitivity import calibration as calibrations
from sensitivity.base import numerics
from sensitivity.data import Calibration, Data
from worker.steps.context import Context
from worker.steps.finite import require_finite
from worker.steps.texts import locate_text

if TYPE_CHECKING:
    from sensitivity.input_walk import Gathered

#: What quantizers call the moments that they fit to.
MOMENTS = "hessian"
#: And what they call the mean inputs of the same tokens, those that move biases.
MEANS = {MOMENTS: "mean", "held_out": "held_out_mean"}
#: Of how many items one is kept apart for quantizers that judge what they fitted.
HELD_OUT = 8


def reads_data(name: str) -> bool:
    """Whether that quantizer uses second moments of the inputs. Raises UnknownName."""
    return str(QUANTIZERS.get(name).traits["data"]) != "none"


@dataclass(frozen=True, eq=False)
class Maker:
    """A member of the catalog that already knows each unit's input moments; itself a `quantizers.base.Quantizer`.

    folders: where the moments lie, one folder a pass, by what the quantizer calls them. data: digest of what they were
    gathered from, or None.
    """

    quantizer: Quantizer
    folders: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    data: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    _last: dict[str, tuple[Path, NDArray[np.float32]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.quantizer.name

    @property
    def key(self) -> dict[str, Any]:
        """What the made weights depend on besides weights and format, for keys of remembered results."""
        more = {"options": dict(self.options) or None, "device": self.device}
        return {"name": self.name, "data": self.data, **{name: value for name, value in more.items() if value}}

    @property
    def device(self) -> str | None:
        """Where codes are made, in words, when that is not the CPU: plain rounding always is on the CPU."""
        return device_words() if reads_data(self.name) else None

    @property
    def context_key(self) -> str | None:
        """The same in one word, for a half-written checkpoint; None when weights and format are all."""
        return self.data if not self.options and self.device is None else digest_json(self.key)

    def quantize(self, weight: Float32Matrix, format: Format, *, name: str = "weight", **context: Any) -> Stored:
        """See quantizers.base.Quantizer."""
        return self.quantizer.quantize(weight, format, name=name, **{**self.context(name, weight.shape[1]), **context})

    def quantize_mixed(
        self, weight: Float32Matrix, format: MixedFormat, *, name: str = "weight", **context: Any
    ) -> Stored:
        """See quantizers.mixed: the quantizer's own way, with the unit's moments."""
        return quantize(self.quantizer, weight, format, name=name, **{**self.context(name, weight.shape[1]), **context})

    def context(self, unit: str, inputs: int) -> Mapping[str, Any]:
        """What the quantizer gets for a unit of so many inputs. Units that no token reached get moments of zero."""
        if self.data is None:
            return self.options
        found: dict[str, Any] = {name: self._moments(name, unit, inputs) for name in self.folders}
        if self.moves_biases:
            found |= {MEANS[name]: self._mean(name, unit, inputs) for name in self.folders}
        return {**self.options, **found}

    @property
    def moves_biases(self) -> bool:
        return hasattr(self.quantizer, "bias_shift")

    def bias_shift(
        self, weight: Float32Matrix, value: Stored, *, name: str = "weight", **context: Any
    ) -> NDArray[np.float64] | None:
        """float64 (out,) for the bias of the unit `name`; None from quantizers that move none."""
        return bias_shift(
            self.quantizer, weight, value, name=name, **{**self.context(name, weight.shape[1]), **context}
        )

    def _mean(self, name: str, unit: str, inputs: int) -> NDArray[np.float32]:
        path = self._places[name].get(unit)
        if path is None:
            return np.zeros(inputs, np.float32)
        found: NDArray[np.float32] = np.load(path.with_suffix(".mean.npy"))
        return found

    def _moments(self, name: str, unit: str, inputs: int) -> NDArray[np.float32]:
        path = self._places[name].get(unit)
        if path is None:
            return np.zeros((inputs, inputs), np.float32)
        last = self._last.get(name)
        if last is None or last[0] != path:
            # One at a time: q, k and v come one after the other and share theirs.
            self._last.pop(name, None)
            last = self._last[name] = (path, np.load(path))
        return last[1]

    def warnings(self, inventory: Inventory) -> tuple[str, ...]:
        """What fell back: units that no calibration token reached are quantized without data, or have no bias; and the
        device, where codes can differ from the CPU's."""
        found = [] if self.device is None else [f"codes were made on {self.device}: some can differ from the CPU's"]
        if not self.data:
            return tuple(found)
        seen = self._places[MOMENTS]
        bare = [unit.name for unit in inventory.units if unit.name not in seen]
        if bare:
            found.append(
                f"{self.name} saw no calibration token of {len(bare)} units (first: {bare[0]}): quantized without data"
            )
        without = [unit.name for unit in inventory.units if inventory.bias_of(unit) is None]
        if self.moves_biases and without:
            found.append(
                f"{len(without)} of {len(inventory.units)} units (first: {without[0]}) have no bias that {self.name} "
                "could correct: nothing is done there"
            )
        return tuple(found)

    def provenance(self, request: PlanRequest, calibration: Calibration | None) -> dict[str, Any] | None:
        """What `planned_quantizer` needs to find the same data again."""
        if self.data is None or calibration is None:
            return None
        tokens = request.calibration_tokens
        return {"digest": self.data, "tokens": tokens, "confirm_tokens": request.confirming_tokens or tokens}

    @cached_property
    def _places(self) -> dict[str, dict[str, Path]]:
        found: dict[str, dict[str, Path]] = {name: {} for name in self.folders}
        for name, folders in self.folders.items():
            for folder in folders:
                index: dict[str, int] = json.loads((folder / "index.json").read_bytes())
                found[name] |= {unit: folder / f"{number}.npy" for unit, number in index.items()}
        return found


def make_quantizer(
    name: str,
    source: ModelSource,
    inventory: Inventory,
    calibration: Calibration | None,
    context: Context,
    options: Mapping[str, Any] | None = None,
) -> Maker:
    """The quantizer `name` for this model; its moments (of the scoring part) are gathered once and remembered.

    options: of the quantizer, as a recipe names them. Raises UnknownName, InvalidInput for other options,
    InvalidModel for weights that are no numbers, and InvalidCalibration when the quantizer cannot do without data and
    there is none.
    """
    if reads_data(name):
        ready()  # before it is loaded, and scipy with it
    quantizer: Quantizer = QUANTIZERS.load(name)
    asked = dict(options or {})
    known = sorted(getattr(quantizer, "options", ()))
    unknown = sorted(set(asked) - set(known))
    if unknown:
        raise InvalidInput(
            f"the quantizer {name} has no such option",
            expected=", ".join(known) or "no options", got=", ".join(unknown)[:120],
        )  # fmt: skip
    if not reads_data(name):
        return Maker(quantizer, options=asked)
    if calibration is None:
        if QUANTIZERS.get(name).traits["data"] == "optional":
            return Maker(quantizer, options=asked)
        raise InvalidCalibration(
            f"the quantizer {name} needs calibration data, and this model cannot be run on any",
            expected="a model of a known task",
            got=f"architecture {inventory.architecture}, task {inventory.task}",
            hint="use --quantizer rtn",
        )
    from sensitivity.input_moments import passes

    require_finite(source, inventory, context)
    data, runner = calibration.scoring, _Runner(source, inventory)
    parts = {MOMENTS: data} if not QUANTIZERS.get(name).traits.get("held_out") else with_held_out(data)
    folders = {}
    for key, part in parts.items():
        with closing(_Gatherer(runner, part, context)) as made:
            folders[key] = tuple(made.folder(units) for units in passes(inventory, 1))
    return Maker(quantizer, folders, data.digest, asked)


def with_held_out(data: Data) -> dict[str, Data]:
    """Items to fit to, and an eighth of them (of two items or more) to judge by; items come in no order already."""
    first = data.items - data.items // HELD_OUT if data.items >= HELD_OUT else max(1, data.items - 1)
    rows = np.arange(data.items)
    return {MOMENTS: data.take(rows[:first]), "held_out": data.take(rows[first:])}


def planned_quantizer(
    plan: Plan, reference: str | None, source: ModelSource, inventory: Inventory, context: Context
) -> Maker:
    """The quantizer that a plan was made for, on the same calibration data. `inventory`: the model's whole one.

    Raises InvalidPlan, UnknownName, and InvalidCalibration when `reference` is other data than the plan's.
    """
    name = str(plan.provenance.get("quantizer", "rtn"))
    told, options = plan.provenance.get("quantizer_calibration"), plan.provenance.get("quantizer_options") or {}
    if not isinstance(options, dict):
        raise InvalidPlan("the plan's options of the quantizer cannot be read", got=repr(options)[:80])
    if not reads_data(name) or (told is None and QUANTIZERS.get(name).traits["data"] == "optional"):
        return make_quantizer(name, source, inventory, None, context, options)
    try:
        told = dict(told or {})
        digest, tokens, others = str(told["digest"]), int(told["tokens"]), int(told["confirm_tokens"])
        seed = int(plan.provenance["seed"])
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidPlan(
            f"the plan is to be carried out by {name}, but does not say on which calibration data",
            expected="provenance.quantizer_calibration with digest, tokens and confirm_tokens",
            got=repr(told)[:120],
        ) from error
    calibration = calibrations.load(
        locate_text(reference, context), source, inventory,
        scoring_tokens=tokens, confirming_tokens=others, seed=seed,
    )  # fmt: skip
    if calibration.scoring.digest != digest:
        raise InvalidCalibration(
            f"the plan was made for {name} on other calibration data",
            expected=digest,
            got=f"{calibration.scoring.digest}, {calibration.description}",
            hint="name the text that the plan was made with (--calibration)",
        )
    return make_quantizer(name, source, inventory, calibration, context, options)


#: 2: weights that no linear layer uses have no moments. 3: means beside them.
MOMENTS_VERSION = 3


@dataclass(frozen=True, eq=False)
class _Runner:
    """The model, loaded when somebody needs it."""

    source: ModelSource
    inventory: Inventory

    @cached_property
    def fits(self) -> bool:
        """Decided once: a model that is loaded leaves less room for itself."""
        from sensitivity.memory import too_large

        return not too_large(self.inventory)

    @cached_property
    def loaded(self) -> Any:
        from sensitivity.runner import load_runner

        return load_runner(self.source, self.inventory)


class _Gatherer:
    """Moments of the inputs, a folder for a block: of a model in memory, or block by block of one that would not fit.

    Folders are asked for in the order of the model, so that one walk through it serves them all.
    """

    def __init__(self, runner: _Runner, data: Data, context: Context) -> None:
        self._runner, self._data, self._context = runner, data, context
        self._walk: Generator[Gathered] | None = None
        self._seen: set[int] = set()

    def close(self) -> None:
        """Lets go of the block that is in memory."""
        if self._walk is not None:
            self._walk.close()

    def folder(self, units: tuple[int, ...]) -> Path:
        inventory = self._runner.inventory
        key = {
            "model": inventory.digest,
            "units": [inventory.units[number].name for number in units],
            "data": self._data.digest,
            "numerics": numerics(),
            "version": MOMENTS_VERSION,
        }
        return self._context.blobs.memo("moments", digest_json(key), lambda path: self._gather(path, units))

    def _gather(self, path: Path, units: tuple[int, ...]) -> None:
        """Writes what the walk finds of these units. Raises Unsupported, NotFinite, OutOfResources."""
        from sensitivity.memory import TIGHT, ran_out

        if self._walk is None or self._seen.intersection(units):
            self.close()
            self._walk, self._seen = self._begun(units[0]), set()
        path.mkdir()
        leaders, numbers, missing = dict[str, str](), dict[str, int](), set(units)
        while missing:
            try:
                found = next(self._walk)
            except (MemoryError, RuntimeError) as error:
                if ran_out(error):
                    raise OutOfResources("memory ran out while gathering second moments", hint=TIGHT) from error
                raise
            self._seen.update(found.units)
            if missing.isdisjoint(found.units):  # a block that an earlier run has a folder of
                continue
            missing.difference_update(found.units)
            for unit, moments in found.moments.items():
                numbers[unit] = len(numbers)
                np.save(path / f"{numbers[unit]}.npy", moments)
                np.save(path / f"{numbers[unit]}.mean.npy", found.means[unit])
            leaders |= found.leaders
        (path / "index.json").write_bytes(canonical_json({unit: numbers[leader] for unit, leader in leaders.items()}))

    def _begun(self, first: int) -> Generator[Gathered]:
        """A walk that will come to the unit `first`."""
        from sensitivity.input_walk import gather_blocks, gather_whole

        runner, told = self._runner, (self._data, self._context.progress)
        if runner.fits:
            return gather_whole(runner.loaded, *told, first=first)
        return gather_blocks(runner.source, runner.inventory, *told)


def units_context(maker: Maker) -> Any:
    """`Container.write`'s context: what the quantizer gets for a unit."""

    def of(unit: Unit) -> Mapping[str, Any]:
        return maker.context(unit.name, unit.shape[1])

    return None if maker.data is None and not maker.options else of
