"""SliM-LLM and BAQ beside uniform GPTQ and a plan by weight error at equal true bytes, on held-out text, by seed.

    python -m benchmarks.column_recipes run MODEL --cases slim,baq --seeds 0,1,2 --out rows.jsonl [--name NAME]
    python -m benchmarks.column_recipes table rows.jsonl [--svg figure.svg --cases slim]

A seed draws another part of the calibration text. `+outliers` behind MODEL measures its copy with outlier channels
(tests/models/outliers.py). Plans are measured as they were solved: a uniform plan does not step in.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.requests import PlanRequest
from bitwright.plot.svg import GRID, INK, SOFT, document, element, text
from bitwright.settings import Settings
from sensitivity import calibration as calibrations
from sensitivity.evaluate import measure
from sensitivity.runner import load_runner
from solvers import solve
from tests.models.outliers import with_outliers
from worker.steps.context import Context
from worker.steps.score import score
from worker.steps.study import open_study

TEXT = Path(__file__).parents[1] / "tests" / "models" / "text" / "test.txt"
TOKENS, TEST_TOKENS = 8192, 4096
WEIGHT_ERROR = {
    "metric": "weight-mse", "granularity": "column:64", "quantizer": "sqc",
    "formats": ["sign-g64", "int2-g64", "int3-g64", "int4-g64"],
}  # fmt: skip
#: (case, nominal bits) -> {name: (budget, members of the request)}. Equal true bytes within a case but for what a
#: uniform plan leaves unused.
CASES: dict[str, dict[int, dict[str, tuple[str, dict[str, Any]]]]] = {
    "slim": {
        bits: {
            "uniform GPTQ": (
                f"{bits}.3bpw", {"quantizer": "gptq", "metric": "weight-mse", "formats": [f"int{bits}-g64"]}
            ),
            "slim-llm": (f"{bits}.3bpw", {"recipe": "slim-llm"}),
            "plan by weight error": (f"{bits}.3bpw", WEIGHT_ERROR),
        }
        for bits in (2, 3)
    },
    "baq": {
        bits: {
            "uniform GPTQ by column": (f"{bits}.1bpw", {"recipe": "baq", "formats": [f"int{bits}-channel"]}),
            "baq": (f"{bits}.1bpw", {"recipe": "baq"}),
        }
        for bits in (2, 3)
    },
}  # fmt: skip


def run(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain, stressed = args.model.removesuffix("+outliers"), args.model.endswith("+outliers")
        model = with_outliers(Path(plain), Path(folder) / "model") if stressed else Path(plain)
        context = Context(Settings(state_dir=Path(folder) / "state"), allow_path=True)
        source, inventory = context.open(str(model))
        runner = load_runner(source, inventory)
        test = calibrations.load_data(TEXT, source, inventory, tokens_wanted=TEST_TOKENS)
        for seed in map(int, args.seeds.split(",")):
            for case in args.cases.split(","):
                for bits, variants in CASES[case].items():
                    for name, (budget, members) in variants.items():
                        began = time.process_time()
                        row = _row(PlanRequest(model=str(model), budget=budget, seed=seed, calibration_tokens=TOKENS,
                                               confirm_tokens=256, **members), context, runner, test)  # fmt: skip
                        row |= {"model": args.name or args.model, "seed": seed, "case": case, "bits": bits,
                                "name": name, "seconds": time.process_time() - began}  # fmt: skip
                        print(json.dumps(row), flush=True)
                        with args.out.open("a") as file:
                            file.write(json.dumps(row) + "\n")


def _row(request: PlanRequest, context: Context, runner: Any, test: Any) -> dict[str, Any]:
    """Stored bits, code bits and KL of the plan of one request."""
    study = open_study(request, context)
    inventory = study.inventory
    bits = float(request.budget.removesuffix("bpw"))
    table = score(study, bits)
    limit = int(bits * inventory.weights / 8)
    if len(table.formats) == 1:
        limit = max(limit, int(table.cost_bytes().sum()))
    solution = solve(table.problem(limit), study.menu.recipe.solver).require()
    variants = {"plan": table.unit_formats(solution.choice)}
    found = measure(study.source, inventory, variants, test, quantizer=study.maker, runner=runner)["plan"]
    stored = int(table.cost_bytes()[np.arange(len(solution.choice)), solution.choice].sum())
    return {"stored": 8 * stored / inventory.weights, "kl": found.kl, "stderr": found.stderr}


def rows_of(files: list[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def table(rows: list[dict[str, Any]], case: str) -> str:
    """Mean over seeds, and the lowest and highest; the ratio is to the case's first variant."""
    lines = ["| model | bits | plan | stored | KL, mean (min - max) | to uniform |", "|---|---|---|---|---|---|"]
    for model in dict.fromkeys(row["model"] for row in rows):
        for bits, variants in CASES[case].items():
            base = None
            for name in variants:
                mine = [r for r in rows if (r["model"], r["case"], r["bits"], r["name"]) == (model, case, bits, name)]
                if not mine:
                    continue
                kl = [row["kl"] for row in mine]
                base = base or float(np.mean(kl))
                lines.append(
                    f"| {model} | {bits} | {name} | {mine[0]['stored']:.3f} | {np.mean(kl):.4f} "
                    f"({min(kl):.4f} - {max(kl):.4f}) | {np.mean(kl) / base:.2f} |"
                )
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], case: str) -> str:
    """A bar for each variant: its mean KL over that of the first one, a dot for each seed."""
    groups = [(m, b) for m in dict.fromkeys(r["model"] for r in rows) for b in CASES[case]]
    parts, y, left, unit = [], 24.0, 330.0, 230.0
    for model, bits in groups:
        mine = [r for r in rows if (r["model"], r["case"], r["bits"]) == (model, case, bits)]
        names = [name for name in CASES[case][bits] if any(r["name"] == name for r in mine)]
        if not names:
            continue
        base = float(np.mean([r["kl"] for r in mine if r["name"] == names[0]]))
        parts.append(text(f"{model}, {bits} bits", 8, y, fill=INK, font_weight="bold"))
        for name in names:
            y += 20
            ratios = [r["kl"] / base for r in mine if r["name"] == name]
            shown = min(1.6, float(np.mean(ratios)))
            parts.append(text(name, left - 12, y + 4, anchor="end", fill=SOFT))
            parts.append(
                element(
                    "rect",
                    x=left,
                    y=y - 6,
                    width=unit * shown,
                    height=12,
                    fill="#1f5fbf" if name != names[0] else "#9aa5b8",
                )
            )
            parts += [element("circle", cx=left + unit * min(1.6, r), cy=y, r=2.5, fill="#c2410c") for r in ratios]
            parts.append(text(f"{np.mean(ratios):.2f}", left + unit * 1.6 + 14, y + 4, fill=INK))
        y += 32
    rule = element("line", x1=left + unit, x2=left + unit, y1=12, y2=y - 20, stroke=GRID, stroke_width=1)
    return document(left + unit * 1.6 + 60, y, f"{case}: KL of each plan over that of the uniform one", [rule, *parts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="command")
    runner = commands.add_parser("run")
    runner.add_argument("model")
    runner.add_argument("--cases", default="slim,baq")
    runner.add_argument("--seeds", default="0,1,2")
    runner.add_argument("--name", default=None)
    runner.add_argument("--out", type=Path, required=True)
    shown = commands.add_parser("table")
    shown.add_argument("files", nargs="+", type=Path)
    shown.add_argument("--cases", default="slim,baq")
    shown.add_argument("--svg", type=Path, default=None)
    args = parser.parse_args()
    if args.command == "run":
        run(args)
        return
    rows = rows_of(args.files)
    for case in args.cases.split(","):
        print(table(rows, case) + "\n")
        if args.svg is not None:
            args.svg.write_text(picture(rows, case))


if __name__ == "__main__":
    main()
