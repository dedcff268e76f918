"""Recipes on one model at equal true bytes, over several seeds: the tables and plots of docs/recipes/.

Usage: python -m benchmarks.recipes MODEL [--recipes auto,higgs,auto@gptq,mine.toml,...] [--budgets 3.25bpw,4bpw]
           [--seeds 3] [--tokens 4096] [--test 8192] [--shuffles 10] [--baselines int3-sym-g64,int2-g64@gptq]
           [--uniforms] [--state DIR] [--plot FILE.svg]

Every recipe plans within the same budget (bits a weight, scales and all counted) and is measured on held-out text that
no plan was made on; a seed draws calibration, held-out part and noise. `RECIPE@QUANTIZER` is the recipe with another
quantizer. What is measured is the plan that was solved: a uniform plan does not step in. `+outliers` behind MODEL
measures its copy with outlier channels (tests/models/outliers.py).

`--baselines` are formats that every unit takes, by round to nearest or by the quantizer behind the @, measured on the
same text with their own bytes. `--uniforms` adds to every recipe the best uniform plan of its own cut, formats and
quantizer within the budget. With `--shuffles N` plans of experts are also held against N plans that deal their formats
to the experts of each layer at random (the same bytes), and against all experts at 2 bits. Tables and measurements are
kept under --state, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recipes_plot import Rows, plot
from bitwright.core.errors import BitwrightError
from bitwright.core.formats import parse_format
from bitwright.core.plan import Plan, plan_from_json
from bitwright.core.requests import PlanRequest, parse_request
from bitwright.settings import Settings
from sensitivity import calibration as calibrations
from sensitivity.evaluate import Quality, measure
from tests.models.outliers import with_outliers
from worker.steps import run
from worker.steps.context import Context
from worker.steps.quantizing import make_quantizer, planned_quantizer


class Bench:
    """One model and what every run is given alike. rows: recipe -> budget -> (stored bits a weight, KL) a seed."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.model = _model(args)
        self.rows: Rows = {}
        self.notes: dict[str, str] = {}

    def context(self) -> Context:
        return Context(Settings(state_dir=self.args.state), lambda *_: None, allow_path=True)

    def plan(self, name: str, budget: str, seed: int) -> None:
        a, context = self.args, self.context()
        recipe, _, quantizer = name.partition("@")
        members = {
            "kind": "plan", "model": self.model, "budget": budget, "recipe": recipe, "seed": seed, "threads": 1,
            "calibration_tokens": a.tokens, "confirm_tokens": a.test, **({"quantizer": quantizer} if quantizer else {}),
        }  # fmt: skip
        request = parse_request(members)
        assert isinstance(request, PlanRequest)
        name = name.replace(recipe, Path(recipe).stem) if recipe.endswith(".toml") else name
        try:
            result = run(request, context)
        except BitwrightError as error:
            self.notes[f"{name} {budget}"] = error.detail
            return
        if not result["feasible"]:
            self.notes[f"{name} {budget}"] = str(result["infeasible"]["hint"])
            return
        plan = plan_from_json(result["plan"])
        assert plan.measured is not None
        weights = sum(unit.elements for unit in plan.units)
        extra: dict[str, Any] = plan.measured.extra
        solved = extra.get("mixed", {"bytes": plan.totals.bytes, "kl": plan.measured.kl})
        self.add(name, budget, 8 * solved["bytes"] / weights, solved["kl"])
        if a.uniforms and "feasible_uniform" in extra:
            uniform = extra["feasible_uniform"]
            title = f"{name}: {uniform['format'].split('[')[0]} everywhere"
            self.add(title, budget, 8 * uniform["bytes"] / weights, uniform["kl"])
        if a.shuffles and any(unit.expert is not None for unit in plan.units):
            self.shuffled(name, budget, plan, context)

    def add(self, name: str, budget: str, bits: float, kl: float) -> None:
        self.rows.setdefault(name, {}).setdefault(budget, []).append((bits, kl))
        print(f"{name:40}{budget:10}{bits:8.4f}{kl:12.6f}", flush=True)

    def held_out(self, seed: int, context: Context) -> tuple[Any, Any, Any]:
        """(source, inventory, calibration) as a plan of this seed sees them."""
        source, inventory = context.open(self.model)
        sizes = {"scoring_tokens": self.args.tokens, "confirming_tokens": self.args.test}
        return source, inventory, calibrations.load(None, source, inventory, seed=seed, **sizes)

    def shuffled(self, recipe: str, budget: str, plan: Plan, context: Context) -> None:
        """The plan's formats dealt to experts at random, and every expert at 2 bits, by the plan's own quantizer."""
        seed = int(plan.provenance["seed"])
        source, inventory, calibration = self.held_out(seed, context)
        maker = planned_quantizer(plan, None, source, inventory, context)
        rng = np.random.default_rng(seed)
        variants = {f"shuffle {i}": _dealt(plan, rng) for i in range(self.args.shuffles)}
        variants["2 bits"] = ["int2-g64" if u.expert is not None else u.format for u in plan.units]
        key = f"{plan.digest} {self.args.test} {len(variants)}"
        found = self.remembered(key, lambda: measure(source, inventory, variants, calibration, quantizer=maker))
        kls = [found[name] for name in variants if name.startswith("shuffle")]
        self.add(f"{recipe}: dealt at random", budget, plan.totals.bits_per_weight, statistics.median(kls))
        bits = _stored_bits(plan, variants["2 bits"])
        self.add(f"{recipe}: experts at 2 bits", budget, bits, found["2 bits"])

    def remembered(self, key: str, work: Callable[[], dict[str, Quality]]) -> dict[str, float]:
        """What was measured of exactly this before, or is measured now: a run that was stopped goes on."""
        path = self.args.state / "kls.json"
        known: dict[str, dict[str, float]] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        if key not in known:
            known[key] = {name: quality.kl for name, quality in work().items()}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(known), "utf-8")
        return known[key]

    def baselines(self, seed: int) -> None:
        for name in self.args.baselines.split(",") if self.args.baselines else []:
            context = self.context()
            source, inventory, calibration = self.held_out(seed, context)
            format, _, quantizer = name.partition("@")
            maker = make_quantizer(quantizer or "rtn", source, inventory, calibration, context)
            variants = {name: [format] * len(inventory.units)}
            key = f"{inventory.digest} {calibration.confirming.digest} {name} {calibration.scoring.digest}"
            work = lambda: measure(source, inventory, variants, calibration, quantizer=maker)  # noqa: B023, E731
            bits = sum(parse_format(format).storage(u.shape).bits for u in inventory.units) / inventory.weights
            self.add(f"{name} everywhere", "-", bits, self.remembered(key, work)[name])


def _model(args: argparse.Namespace) -> str:
    plain = Path(args.model.removesuffix("+outliers"))
    if not args.model.endswith("+outliers"):
        return str(args.model)
    target = args.state / f"{plain.name}-outliers"
    return str(target if target.is_dir() else with_outliers(plain, target))


def _dealt(plan: Plan, rng: np.random.Generator) -> list[str]:
    """Experts of each layer exchange their formats, role by role, so that bytes stay."""
    formats = [unit.format for unit in plan.units]
    for layer in sorted({u.layer for u in plan.units if u.expert is not None and u.layer is not None}):
        experts = sorted({u.expert for u in plan.units if u.layer == layer and u.expert is not None})
        order = dict(zip(experts, rng.permutation(experts).tolist(), strict=True))
        cells = {(u.expert, u.module): u.format for u in plan.units if u.layer == layer}
        for row, unit in enumerate(plan.units):
            if unit.layer == layer and unit.expert is not None:
                formats[row] = cells[order[unit.expert], unit.module]
    return formats


def _stored_bits(plan: Plan, formats: Sequence[str]) -> float:
    bits = sum(parse_format(f).storage(u.shape or ()).bits for f, u in zip(formats, plan.units, strict=True))
    return bits / sum(u.elements for u in plan.units)


def markdown(bench: Bench) -> str:
    """KL: mean over seeds, and every seed."""
    lines = ["| plan | budget | stored bits | KL | each seed |", "|---|---|---|---|---|"]
    ranked = [
        (budget, statistics.mean(kl for _, kl in cells), name, cells)
        for name, budgets in bench.rows.items()
        for budget, cells in budgets.items()
    ]
    for budget, mean, name, cells in sorted(ranked):
        bits = statistics.mean(b for b, _ in cells)
        each = " / ".join(f"{kl:.4g}" for _, kl in cells)
        lines.append(f"| `{name}` | {budget} | {bits:.3f} | {mean:.4g} | {each} |")
    return "\n".join([*lines, "", *(f"{name}: {why}" for name, why in bench.notes.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--recipes", default="auto,data-free,higgs")
    parser.add_argument("--budgets", default="3.25bpw,4bpw")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--test", type=int, default=8192)
    parser.add_argument("--shuffles", type=int, default=0)
    parser.add_argument("--baselines", default="")
    parser.add_argument("--uniforms", action="store_true")
    parser.add_argument("--state", type=Path, default=Path(".bitwright/bench-recipes"))
    parser.add_argument("--plot", type=Path)
    bench = Bench(parser.parse_args())
    for seed in range(bench.args.seeds):
        bench.baselines(seed)
        for recipe in filter(None, bench.args.recipes.split(",")):
            for budget in bench.args.budgets.split(","):
                bench.plan(recipe, budget, seed)
    print(markdown(bench))
    if bench.args.plot is not None:
        title = f"{Path(bench.args.model).name}: recipes at equal true bytes, {bench.args.seeds} seeds"
        bench.args.plot.write_text(plot(bench.rows, title), "utf-8")


if __name__ == "__main__":
    main()
