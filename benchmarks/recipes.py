"""Recipes on one model at equal true bytes, over several seeds: the tables and plots of docs/recipes/.

Usage: python -m benchmarks.recipes MODEL [--recipes auto,higgs,...] [--budgets 3.25bpw,4bpw] [--seeds 3]
           [--tokens 4096] [--test 8192] [--shuffles 10] [--baselines int3-sym-g64,...] [--state DIR] [--plot FILE.svg]

Every recipe plans within the same budget (bits a weight, scales and all counted) and is measured on held-out text that
no plan was made on; a seed draws calibration, held-out part and noise. `--baselines` are formats that every
unit takes, by round to nearest, measured on the same text with their own bytes. With `--shuffles N` plans of experts
are also held against N plans that deal their formats to the experts of each layer at random (the same bytes), and
against all experts at 2 bits. Tables and measurements are kept under --state, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.errors import BitwrightError
from bitwright.core.formats import parse_format
from bitwright.core.plan import Plan, plan_from_json
from bitwright.core.requests import PlanRequest, parse_request
from bitwright.plot.svg import document as picture
from bitwright.plot.svg import element, text
from bitwright.settings import Settings
from sensitivity import calibration as calibrations
from sensitivity.evaluate import Quality, measure
from worker.steps import run
from worker.steps.context import Context
from worker.steps.quantizing import planned_quantizer

COLOURS = ("#1f5fbf", "#c2410c", "#1a7f4b", "#7c3aed", "#b58900", "#0e7490", "#be185d", "#4d7c0f", "#64748b")
Rows = dict[str, dict[str, list[tuple[float, float]]]]


class Bench:
    """One model and what every run is given alike. rows: recipe -> budget -> (stored bits a weight, KL) a seed."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.rows: Rows = {}
        self.notes: dict[str, str] = {}

    def context(self) -> Context:
        return Context(Settings(state_dir=self.args.state), lambda *_: None, allow_path=True)

    def plan(self, recipe: str, budget: str, seed: int) -> None:
        a, context = self.args, self.context()
        members = {
            "kind": "plan", "model": a.model, "budget": budget, "recipe": recipe, "seed": seed, "threads": 1,
            "calibration_tokens": a.tokens, "confirm_tokens": a.test,
        }  # fmt: skip
        request = parse_request(members)
        assert isinstance(request, PlanRequest)
        try:
            result = run(request, context)
        except BitwrightError as error:
            self.notes[f"{recipe} {budget}"] = error.detail
            return
        if not result["feasible"]:
            self.notes[f"{recipe} {budget}"] = str(result["infeasible"]["hint"])
            return
        plan = plan_from_json(result["plan"])
        assert plan.measured is not None
        self.add(recipe, budget, plan.totals.bits_per_weight, plan.measured.kl)
        if a.shuffles and any(unit.expert is not None for unit in plan.units):
            self.shuffled(recipe, budget, plan, context)

    def add(self, name: str, budget: str, bits: float, kl: float) -> None:
        self.rows.setdefault(name, {}).setdefault(budget, []).append((bits, kl))
        print(f"{name:28}{budget:10}{bits:8.4f}{kl:12.6f}", flush=True)

    def held_out(self, seed: int, context: Context) -> tuple[Any, Any, Any]:
        """(source, inventory, calibration) as a plan of this seed sees them."""
        source, inventory = context.open(self.args.model)
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
        names = self.args.baselines.split(",") if self.args.baselines else []
        if not names:
            return
        source, inventory, calibration = self.held_out(seed, self.context())
        variants = {name: [name] * len(inventory.units) for name in names}
        key = f"{inventory.digest} {calibration.confirming.digest} {names}"
        found = self.remembered(key, lambda: measure(source, inventory, variants, calibration))
        for name in names:
            bits = sum(parse_format(name).storage(u.shape).bits for u in inventory.units) / inventory.weights
            self.add(f"{name} everywhere", "-", bits, found[name])


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
    """KL: mean over seeds and, in brackets, every seed."""
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


def plot(bench: Bench, title: str) -> str:
    """Stored bits across, KL up (log); a dot a seed, a line through the means."""
    left, top, width, height = 56.0, 34.0, 420.0, 300.0
    cells = [cell for budgets in bench.rows.values() for found in budgets.values() for cell in found]
    bits, kls = [c[0] for c in cells], [np.log10(c[1]) for c in cells]
    low, high, least, most = min(bits) - 0.1, max(bits) + 0.1, min(kls) - 0.05, max(kls) + 0.05

    def at(b: float, kl: float) -> tuple[float, float]:
        x, y = (b - low) / (high - low), (np.log10(kl) - least) / (most - least)
        return left + width * x, top + height * (1 - float(y))

    parts = [
        text(title, left, 20, size=13),
        element("rect", x=left, y=top, width=width, height=height, fill="none", stroke="#9aa3b2"),
        text("stored bits a weight", left + width / 2, top + height + 30, anchor="middle"),
        text("KL, nats (log)", left, top - 4, size=10),
    ]
    for tick in np.arange(np.ceil(low * 2) / 2, high, 0.5):
        x, _ = at(float(tick), 10**least)
        parts.append(text(f"{tick:g}", x, top + height + 14, size=10, anchor="middle"))
    for tick in (v * 10.0**e for e in range(-5, 2) for v in (1, 2, 5)):
        if least <= np.log10(tick) <= most:
            parts.append(text(f"{tick:g}", left - 4, at(low, tick)[1] + 3, size=10, anchor="end"))
    for number, (name, budgets) in enumerate(sorted(bench.rows.items())):
        colour = COLOURS[number % len(COLOURS)]
        means = sorted(tuple(np.mean(found, axis=0)) for found in budgets.values())
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*mean) for mean in means))
        parts.append(element("polyline", points=points, fill="none", stroke=colour, stroke_width=1.5))
        for found in budgets.values():
            for x, y in (at(*cell) for cell in found):
                parts.append(element("circle", cx=x, cy=y, r=2.6, fill=colour, fill_opacity=0.7))
        y = top + 12 + 16 * number
        parts.append(element("rect", x=left + width + 14, y=y - 9, width=10, height=10, fill=colour))
        parts.append(text(name, left + width + 30, y, size=11))
    return picture(left + width + 230, top + height + 46, title, parts)


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
    parser.add_argument("--state", type=Path, default=Path(".bitwright/bench-recipes"))
    parser.add_argument("--plot", type=Path)
    bench = Bench(parser.parse_args())
    for seed in range(bench.args.seeds):
        bench.baselines(seed)
        for recipe in bench.args.recipes.split(","):
            for budget in bench.args.budgets.split(","):
                bench.plan(recipe, budget, seed)
    print(markdown(bench))
    if bench.args.plot is not None:
        name = Path(bench.args.model).name
        bench.args.plot.write_text(
            plot(bench, f"{name}: recipes at equal true bytes, {bench.args.seeds} seeds"), "utf-8"
        )


if __name__ == "__main__":
    main()
