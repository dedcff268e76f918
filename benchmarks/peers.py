"""Plans of AutoRound's AutoScheme and ModelOpt's auto_quantize, the real tools, against ours at the bytes they used.

Usage: python -m benchmarks.peers MODEL [--tokens 16384] [--test 16384] [--seed 0] [--out report.json]
       (`make peers` makes .venv-peers with both tools and runs it on both language models)

One model, one draw of calibration tokens from tests/models/text/valid.txt, formats RTN int2,3,4,5,6,8-g64, targets 2.5,
3, 3.5 and 4 code bits; each tool runs in a process of its own on one thread, one after the other. A tool's widths are
laid on bitwright's units, their bytes counted with bitwright's formats (both tools count otherwise: see the scripts in
benchmarks/peer_tools), and bitwright's own plan gets exactly those bytes. KL of both on test.txt. What a tool ties
(q/k/v, gate/up, all experts of a block) it ties; bitwright's plans are free.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metric_plans import BUDGETS, FORMATS, Choice
from benchmarks.peer_plans import PYTHON, TOOLS, bits_used, laid_on, run_tool
from bitwright.core.table import SensitivityTable
from bitwright.models import inspect, open_model
from sensitivity import calibration
from sensitivity.evaluate import measure
from sensitivity.runner import load_runner
from sensitivity.scoring import score
from solvers import solve

TEXT = Path("tests/models/text")


def own_plan(table: SensitivityTable, limit: int) -> Choice:
    return np.asarray(solve(table.problem(limit)).choice)


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    source = open_model(arguments.model)
    inventory = inspect(source)
    parts = calibration.load(
        str(TEXT / "valid.txt"), source, inventory, scoring_tokens=arguments.tokens, confirming_tokens=256,
        seed=arguments.seed,
    )  # fmt: skip
    test = calibration.load_data(str(TEXT / "test.txt"), source, inventory, tokens_wanted=arguments.test)
    # The tools' clocks start when their libraries are imported and their model is in memory: ours, when its own are.
    load_runner(source, inventory)
    start = time.process_time(), time.monotonic()
    table = score(source, inventory, FORMATS, metric=arguments.metric, calibration=parts, seed=arguments.seed)
    seconds = [time.process_time() - start[0], time.monotonic() - start[1]]
    answers = {name: run_tool(script, arguments.model, parts.scoring) for name, script in TOOLS.items()}
    cost, rows = table.cost_bytes(), np.arange(len(inventory.units))
    choices: dict[str, Choice] = {}
    for name, answer in answers.items():
        for bits in BUDGETS:
            theirs = laid_on(inventory, answer["plans"][str(bits)])
            choices[f"{name} {bits}"] = theirs
            choices[f"{name} {bits} own"] = own_plan(table, int(cost[rows, theirs].sum()))
    variants = {name: [FORMATS[j] for j in choice] for name, choice in choices.items()}
    kl = {name: quality.kl for name, quality in measure(source, inventory, variants, test).items()}
    tools = {}
    for name, answer in answers.items():
        lines = []
        for bits in BUDGETS:
            theirs = choices[f"{name} {bits}"]
            lines.append([bits, bits_used(inventory, theirs), kl[f"{name} {bits}"], kl[f"{name} {bits} own"]])
        tools[name] = {
            "version": answer["version"], "lines": lines, "seconds": answer["seconds"][str(BUDGETS[0])],
            "ratio": float(np.exp(np.mean([np.log(own / their) for *_, their, own in lines]))),
        }  # fmt: skip
    return {
        "model": Path(arguments.model).name, "tokens": parts.scoring.tokens, "test": test.tokens,
        "metric": arguments.metric, "seed": arguments.seed, "seconds": seconds, "tools": tools,
    }  # fmt: skip


def markdown(found: dict[str, Any]) -> str:
    own_cpu = found["seconds"][0]
    lines = [
        f"### {found['model']}: {found['metric']} against the tools, {found['tokens']} tokens, tested on "
        f"{found['test']}, seed {found['seed']}",
        "",
        "| tool | target | code bits it used | its KL | own KL at its bytes | own / its |",
        "|---|---|---|---|---|---|",
    ]
    for name, tool in found["tools"].items():
        lines += [
            f"| {name} {tool['version']} | {bits} | {used:.3f} | {their:.5f} | {own:.5f} | {own / their:.3f} |"
            for bits, used, their, own in tool["lines"]
        ]
        lines.append(f"| *geometric mean* | | | | | **{tool['ratio']:.3f}** |")
    lines += ["", "| scoring, one thread | CPU s | own / its |", "|---|---|---|"]
    lines.append(f"| bitwright {found['metric']} | {own_cpu:.1f} | |")
    lines += [
        f"| {name} | {tool['seconds'][0]:.1f} | {own_cpu / tool['seconds'][0]:.2f} |"
        for name, tool in found["tools"].items()
    ]
    return "\n".join(lines)


def on_one_thread() -> None:
    """Starts over with one thread, which libraries look up when they are loaded: a second one's waiting counts too."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        command = [sys.executable, "-m", "benchmarks.peers", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "OMP_NUM_THREADS": "1"})


def main() -> None:
    on_one_thread()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--metric", default="fisher")
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--test", type=int, default=16_384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    if not PYTHON.exists():
        sys.exit("no .venv-peers: run `make peers`")
    found = report(arguments)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(markdown(found))


if __name__ == "__main__":
    main()
