"""Plan: a solution tied to a model. Canonical JSON, named by its digest; DESIGN section 5 gives the shape.

Choices of more than 20,000 units go to an `.npz` beside the JSON (`units` then names that file).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from bitwright.core.canonical import canonical_json, digest_json, write_json
from bitwright.core.errors import InvalidPlan
from bitwright.core.formats import parse_format
from bitwright.core.mixed_format import choices
from bitwright.core.problem_file import parse_json
from bitwright.core.sidecar import load_array, save_array
from bitwright.core.solution import SIDECAR_UNITS

PLAN_VERSION = 1


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters are not allowed")
    return text


#: Text that is shown to people: a plan comes from anywhere, and a terminal obeys what it is shown.
Text = Annotated[str, AfterValidator(_printable)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PlanModel(_Frozen):
    ref: Text
    digest: Text
    architecture: Text = ""
    task: Text = "unknown"


class PlanUnit(_Frozen):
    """One unit's choice. bytes: exact storage; loss: predicted; layer, module, expert: where it sits, for pictures.

    rung: the column of the problem, where every unit has a menu of its own; else the format names it.
    """

    name: Text = Field(min_length=1, max_length=1024)
    format: str
    elements: int = Field(ge=0)
    bytes: int = Field(ge=0)
    loss: float
    stderr: float | None = None
    shape: tuple[int, ...] | None = None
    module: Text | None = None
    layer: int | None = None
    expert: int | None = None
    rung: Text | None = None


class Totals(_Frozen):
    """bytes: planned units; unquantized_bytes: the rest; file_bytes: whole file in the given container, if known."""

    bits_per_weight: float
    bytes: int
    unquantized_bytes: int
    predicted_loss: float
    predicted_stderr: float | None = None
    file_bytes: int | None = None


class Uniform(_Frozen):
    """The best uniform plan of no fewer bytes, measured on the same tokens."""

    format: Text
    kl: float
    stderr: float
    bytes: int
    predicted_loss: float | None = None


class Measured(_Frozen):
    """Real quality on held-out calibration data. `kl` is in `unit` per token (or per item); stderr is one sigma."""

    kl: float
    stderr: float
    tokens: int
    unit: Text = "nats of KL per token"
    uniform: Uniform | None = None
    fallback: Text | None = Field(default=None, description="why the uniform plan was taken instead, if it was")
    extra: dict[str, Any] = Field(default_factory=dict)


class CacheChoice(_Frozen):
    """The format of a part of the KV cache (`keys`, `values`, `both`); bytes of all sequences, loss measured alone."""

    part: Text
    format: Text
    bytes: int = Field(ge=0)
    loss: float
    stderr: float | None = None


class Memory(_Frozen):
    """How a device budget is spent. usable_bytes: what the engine may take of the device; reserved_bytes: the rest of
    the device, activations and the engine's own needs; total_bytes: file, cache, activations and the engine's own
    needs, to be held against usable_bytes.

    joint: certificate of this plan's weights and cache in one problem, which `menu`, every format that the cache could
    have taken, completes; the plan's own is that of the weights beside this cache.
    """

    context: int = Field(ge=1)
    batch: int = Field(ge=1)
    device_bytes: int = Field(ge=0)
    usable_bytes: int = Field(ge=0)
    activation_bytes: int = Field(ge=0)
    engine_bytes: int = Field(ge=0)
    cache: tuple[CacheChoice, ...]
    total_bytes: int = Field(ge=0)
    joint: dict[str, Any] = Field(default_factory=dict)
    menu: tuple[CacheChoice, ...] = ()

    @property
    def cache_bytes(self) -> int:
        return sum(choice.bytes for choice in self.cache)

    @property
    def reserved_bytes(self) -> int:
        return self.device_bytes - self.usable_bytes + self.activation_bytes + self.engine_bytes


class Binding(_Frozen):
    """A limit or a rule of the plan's problem in words. name: as the certificate's multipliers spell it.

    value: the limit, or the count of choices asked for; used: what the plan takes of it. price: how much the predicted
    loss would fall if it were looser by one (a byte, a choice), to first order; 0: it does not bind. units: indices
    of those it is about; absent: all. sense and formats: of a rule.
    """

    name: Text
    kind: Literal["limit", "rule"]
    words: Text
    value: int | float
    used: int | float
    price: float
    units: tuple[int, ...] | None = None
    sense: Literal["at least", "at most"] | None = None
    formats: tuple[Text, ...] | None = None


class Redrawn(_Frozen):
    """Plans made anew from losses drawn again within their standard errors, under the same limits, rules and ties.

    units, bytes: share that keeps its format, on average; kept: (index, share of draws) of units that did not always.
    """

    draws: int = Field(ge=1)
    units: float = Field(ge=0, le=1)
    bytes: float = Field(ge=0, le=1)
    kept: tuple[tuple[int, float], ...] = ()


#: Members of a plan's provenance that are numbers predicted from a table, or name such numbers or where they were made.
_NUMBERS = frozenset({"table", "prediction", "device", "made_on"})


class Plan(_Frozen):
    """See the module docstring. `certificate` is `core.claim.Certificate` as JSON."""

    bitwright_plan: int = PLAN_VERSION
    model: PlanModel
    units: tuple[PlanUnit, ...]
    totals: Totals
    certificate: dict[str, Any]
    bindings: tuple[Binding, ...] = Field(default=(), description="limits and rules in words, and what each costs")
    redrawn: Redrawn | None = Field(default=None, description="how much of the plan stays when losses are drawn again")
    measured: Measured | None = None
    memory: Memory | None = Field(default=None, description="how a device budget is spent, KV cache included")
    engine: Text | None = None
    budget: Text | None = None
    ties: tuple[tuple[int, ...], ...] = ()
    kept: tuple[Text, ...] = Field(default=(), description="units that stay unquantized because the engine asks for it")
    warnings: tuple[Text, ...] = ()
    provenance: dict[str, Any] = Field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON value; members without a value are left out, so equal plans give equal bytes."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def digest(self) -> str:
        """Names the decision: model, formats by unit, budget, engine and provenance (docs/adr/0004).

        Predicted and measured numbers stay out of it: their last bits depend on the machine and its thread count,
        and the same inputs and seed must give the same digest everywhere.
        """
        identity: dict[str, Any] = {
            "version": self.bitwright_plan,
            "model": self.model.digest,
            "units": [[unit.name, unit.format] for unit in self.units],
            "kept": list(self.kept),
            "budget": self.budget,
            "engine": self.engine,
            "provenance": {key: value for key, value in self.provenance.items() if key not in _NUMBERS},
        }
        if self.memory is not None:
            identity["cache"] = [[choice.part, choice.format] for choice in self.memory.cache]
        return digest_json(identity)

    @property
    def code_bits(self) -> float:
        """Mean width of the codes over the planned weights, scales and zero points left out: what papers print."""
        weights = sum(unit.elements for unit in self.units)
        return float(sum(parse_format(unit.format).bits * unit.elements for unit in self.units) / weights)

    def formats(self) -> dict[str, str]:
        """Unit name to format name."""
        return {unit.name: unit.format for unit in self.units}

    def save(self, path: str | Path) -> None:
        path = Path(path)
        data = self.to_json()
        if sum(choices(unit.format) for unit in self.units) > SIDECAR_UNITS:
            blob = np.frombuffer(canonical_json(data["units"]), np.uint8)
            data["units"] = save_array(path, "units", blob)
        write_json(path, data)


def plan_from_json(data: Any, *, folder: Path | None = None) -> Plan:
    """Raises InvalidPlan, naming the first member that is wrong."""
    if not isinstance(data, dict) or "bitwright_plan" not in data:
        raise InvalidPlan("this is not a bitwright plan", expected='an object with "bitwright_plan": 1')
    if data["bitwright_plan"] != PLAN_VERSION:
        raise InvalidPlan(
            "the plan has another version", expected=str(PLAN_VERSION), got=repr(data["bitwright_plan"])[:40]
        )
    # `bitwright plan --to ... --json` says beside the plan where the checkpoint lies: not a part of the plan.
    data = {name: value for name, value in data.items() if name != "checkpoint"}
    units = data.get("units")
    if isinstance(units, dict):
        data = {**data, "units": parse_json(load_array(units, "units", folder).tobytes())}
    try:
        plan = Plan.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = "/" + "/".join(str(part) for part in first["loc"])
        raise InvalidPlan(
            f"the plan is wrong at {where}", expected=first["msg"], got=repr(first.get("input"))[:80]
        ) from error
    names = {unit.name for unit in plan.units}
    if len(names) != len(plan.units):
        raise InvalidPlan("a unit stands twice in the plan")
    for unit in plan.units:
        parse_format(unit.format)
    return plan


def load_plan(path: str | Path) -> Plan:
    path = Path(path)
    if not path.is_file():
        raise InvalidPlan("there is no such plan file", got=str(path))
    return plan_from_json(parse_json(path.read_bytes()), folder=path.parent)
