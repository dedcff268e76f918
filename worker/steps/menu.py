"""From a scoring request to the exact question: metric, formats, engine, ties. All defaults are decided here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import Infeasible, Unsupported
from bitwright.core.formats import (
    DEFAULT_GROUP,
    FloatFormat,
    default_formats,
    listed_formats,
    parse_format,
    parse_formats,
)
from bitwright.core.inventory import Inventory
from bitwright.core.mixed_format import MAX_MEMBERS, MixedFormat, cut, is_finer
from bitwright.core.recipe import Recipe
from bitwright.core.requests import PlanRequest, Scoring
from bitwright.engines import EngineProfile, load_profile
from bitwright.recipes import find_recipe
from quantizers.catalog import QUANTIZERS
from quantizers.containers.catalog import CONTAINERS
from sensitivity.catalog import METRICS
from solvers import AUTO
from solvers.catalog import SOLVERS
from worker.steps import terms

#: Pass-through format that keeps a model's own 16-bit weights; float32 models keep 16 of their bits.
_PASSTHROUGH = {"BF16": "bf16", "F16": "fp16", "F32": "fp16"}
#: docs/benchmarks.md: with 4 k tokens row plans measured 1.2 to 1.9 of the tensor plan's KL, with 16 k 0.87 to 0.93.
FINER_TOKENS = 16_384
#: Group sizes that engines know (research/07 section 2), tried from the engine's own downwards.
GROUPS = (128, 64, 32)


@dataclass(frozen=True)
class Menu:
    """formats: columns of the table; tie_kinds: families that the engine ties; warnings: what was assumed."""

    recipe: Recipe
    metric: str
    quantizer: str
    formats: tuple[str, ...]
    profile: EngineProfile | None
    tie_kinds: tuple[str, ...]
    granularity: str
    warnings: tuple[str, ...]
    quantizer_options: Mapping[str, Any] = field(default_factory=dict)

    def planned(self, inventory: Inventory) -> Inventory:
        """The inventory that is planned: units that the engine loads unquantized only are kept as they are.

        Counting them would charge 16 bits a weight to a budget in bits per weight (the accounting trap of research/08
        section 1).
        """
        if self.profile is None:
            return inventory
        coded = [name for name in self.formats if not isinstance(parse_format(name), FloatFormat)]
        coded += [format.name for format in listed_formats() if not isinstance(format, FloatFormat)]
        table = self.profile.allowed(inventory, self.formats)
        quantizable = self.profile.allowed(inventory, coded)
        kept = {
            unit.name
            for unit, any_format, any_coded in zip(inventory.units, table, quantizable, strict=True)
            if any(any_format) and not any(any_coded)
        }
        if len(kept) == len(inventory.units):
            raise Unsupported(
                f"the engine {self.profile.name} loads none of this model quantized in a format known here",
                expected="an engine that loads some of it quantized", got=self.profile.title,
                hint=f"plan without it and `bitwright export --to {self.profile.export or 'TARGET'}`, or see `engines`",
            )  # fmt: skip
        return inventory.keep(kept, f"the engine {self.profile.name} loads it unquantized only") if kept else inventory

    def allowed(self, inventory: Inventory) -> NDArray[np.bool_] | None:
        """(units, formats): what the engine loads and the recipe allows for each unit; None when nothing is cut."""
        asked = terms.allowed(self.recipe, inventory.units, self.formats)
        if self.profile is None:
            return asked
        loaded = np.array(self.profile.allowed(inventory, self.formats), bool)
        return loaded if asked is None else loaded & asked


def resolve(request: Scoring, inventory: Inventory) -> Menu:
    """Raises UnknownName, Unsupported or InvalidInput."""
    if not inventory.units:
        raise Unsupported(
            "the model has no unit to plan",
            got=f"architecture {inventory.architecture}",
            hint="see `bitwright inspect MODEL`",
        )
    known = {"metric": METRICS.names(), "solver": (AUTO, *SOLVERS.names()), "quantizer": QUANTIZERS.names()}
    recipe = find_recipe(request.recipe, known=known)
    terms.require(recipe, inventory)
    warnings = terms.idle(recipe, inventory.units)
    if not request.granularity and not request.formats:
        recipe, words = terms.fitted(recipe, inventory)
        warnings += words
    if request.formats:
        recipe = recipe.model_copy(update={"formats": request.formats})
    granularity = request.granularity or recipe.granularity
    metric = request.metric or recipe.metric
    engine = request.engine
    if engine is None and isinstance(request, PlanRequest) and request.to is not None:
        engine = CONTAINERS.get(request.to).traits.get("engine")
        if engine is not None:
            warnings.append(f"planned for the engine {engine}, because the checkpoint is to be {request.to}")
    profile = load_profile(engine) if engine else None
    if request.metric is None and inventory.task == "unknown" and metric != "weight-mse":
        warnings.append(
            f"the task of this architecture is unknown, so '{metric}' cannot run: 'weight-mse' was used instead"
        )
        metric = "weight-mse"
    names = recipe.format_names() or _default_menu(inventory, profile, granularity)
    formats = tuple(format.name for format in parse_formats(names))
    if is_finer(granularity):
        _require_parts(granularity, inventory, formats, profile)
        if request.calibration_tokens < FINER_TOKENS and METRICS.get(metric).traits["data"] != "none":
            warnings.append(
                f"{request.calibration_tokens} calibration tokens are few for granularity {granularity}: below "
                f"{FINER_TOKENS} such plans can be worse than plans by tensor"
            )
    ties: tuple[str, ...] = tuple(profile.tie_kinds) if profile else ()
    if granularity == "expert":
        ties = (*ties, "expert")
    ties = (*ties, *recipe.ties)
    quantizer = QUANTIZERS.get(request.quantizer or recipe.quantizer).name
    options = recipe.quantizer_options if quantizer == recipe.quantizer else {}
    said = (*inventory.warnings, *warnings)
    return Menu(recipe, metric, quantizer, formats, profile, ties, granularity, said, options)


def _require_parts(
    granularity: str, inventory: Inventory, formats: tuple[str, ...], profile: EngineProfile | None
) -> None:
    """Raises Unsupported when tensors cannot be cut so: by the engine, the formats or a matrix's shape."""
    members = tuple(parse_format(name) for name in formats)
    if len(members) > MAX_MEMBERS:
        raise Unsupported(
            f"the granularity {granularity} takes fewer formats",
            expected=f"at most {MAX_MEMBERS}", got=f"{len(members)}: {', '.join(formats)}"[:200],
            hint="name the formats that the budget needs (--formats)",
        )  # fmt: skip
    for unit in inventory.units:
        parts = cut(granularity, unit.shape, members).parts
        example = MixedFormat(granularity, members, bytes(parts))
        reasons = profile.refusals(unit, example) if profile is not None else []
        if reasons and profile is not None:
            raise Unsupported(
                f"the engine {profile.name} loads one format a tensor",
                expected="granularity tensor or expert",
                got=f"{granularity}: {reasons[0]}"[:300],
                hint="leave --granularity out, or leave the engine out and write a packed checkpoint (--to packed)",
            )


def _default_menu(inventory: Inventory, profile: EngineProfile | None, granularity: str) -> tuple[str, ...]:
    if is_finer(granularity):
        return default_formats()
    if profile is not None and profile.menu:
        own = _PASSTHROUGH.get(inventory.units[0].dtype)
        return (*profile.menu, own) if own else profile.menu
    symmetric = profile is not None and profile.symmetric_menu
    group = _default_group(inventory, profile) if profile is not None else DEFAULT_GROUP
    kept = _PASSTHROUGH.get(inventory.units[0].dtype)
    return default_formats(symmetric=symmetric, group=group, passthrough=kept)


def _default_group(inventory: Inventory, profile: EngineProfile) -> int:
    """The engine's usual group size, or the largest smaller one it loads for every unit that it loads quantized."""
    sizes = sorted({profile.default_group, *(g for g in GROUPS if g < profile.default_group)}, reverse=True)
    loaded = {
        size: [
            any(row)
            for row in profile.allowed(inventory, default_formats(symmetric=profile.symmetric_menu, group=size))
        ]
        for size in sizes
    }
    quantized = [any(column) for column in zip(*loaded.values(), strict=True)]
    for size in sizes:
        if all(fine or not some for fine, some in zip(loaded[size], quantized, strict=True)):
            return size
    return profile.default_group


def require_reachable(allowed: NDArray[np.bool_] | None, inventory: Inventory, menu: Menu) -> None:
    """Raises Infeasible when the engine loads none of the menu's formats for some unit."""
    if allowed is None or allowed.any(axis=1).all():
        return
    unit = inventory.units[int(np.flatnonzero(~allowed.any(axis=1))[0])]
    reasons = dict.fromkeys(
        why
        for name in menu.formats
        for why in (menu.profile.refusals(unit, parse_format(name)) if menu.profile else ())
    )
    raise Infeasible(
        f"the engine loads none of the formats of the menu for {unit.name}",
        expected="a format that the engine loads for this unit",
        got=f"shape {unit.shape}, menu {', '.join(menu.formats)}: {'; '.join(reasons)}"[:600],
        hint="add formats with a smaller group or per channel, such as int4-sym-channel",
    )


def narrowest(menu: Menu) -> str:
    """The format of least width: what an infeasible budget is compared with."""
    return min(menu.formats, key=lambda name: parse_format(name).bits)
