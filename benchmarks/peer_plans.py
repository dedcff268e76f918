"""Plans of AutoRound's AutoScheme and ModelOpt's auto_quantize, the real tools, laid on bitwright's units.

Each tool runs in a process of its own (benchmarks/peer_tools) with the Python of .venv-peers, on one thread.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metric_plans import BUDGETS, WIDTHS, Choice
from bitwright.core.inventory import Inventory, Unit
from sensitivity.data import Data

PYTHON = Path(".venv-peers/bin/python")
TOOLS = {"AutoRound AutoScheme": "auto_scheme.py", "ModelOpt auto_quantize": "auto_quantize.py"}
#: Tools that can score models of a task: AutoScheme reads text and a loss over next tokens, auto_quantize asks for a
#: loss, which an embedding model has none of.
ABLE = {"causal-lm": tuple(TOOLS), "image-classification": ("ModelOpt auto_quantize",)}
#: Names of a Mixtral file's matrices -> names in the module that transformers makes of it.
_ROLES = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def module_names(unit: Unit) -> tuple[str, ...]:
    """Names under which a tool may list the layer of a unit: its own, or the stacked experts that hold it."""
    name = unit.name.removesuffix(".weight")
    found = re.fullmatch(r"(.*)\.block_sparse_moe\.experts\.(\d+)\.(w[123])", name)
    if found is None:
        return (name,)
    block = f"{found[1]}.mlp.experts"
    return f"{block}.{found[2]}.{_ROLES[found[3]]}", block


def laid_on(inventory: Inventory, widths: dict[str, int]) -> Choice:
    """Columns of FORMATS for a tool's widths. Raises KeyError for a unit the tool left out or left unquantized."""
    chosen = [next(widths[name] for name in module_names(unit) if name in widths) for unit in inventory.units]
    return np.array([WIDTHS.index(width) for width in chosen], np.int64)


def bits_used(inventory: Inventory, choice: Choice) -> float:
    """Code bits a weight of a choice of FORMATS."""
    weights = np.array([unit.elements for unit in inventory.units])
    return float((weights * np.array(WIDTHS)[choice]).sum() / weights.sum())


def run_tool(script: str, model: str, data: Data) -> dict[str, Any]:
    """The tool's answer on these items: version, plans (target -> module -> width), seconds (target -> CPU, wall)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    with tempfile.TemporaryDirectory() as folder:
        items, out = Path(folder) / "items.npz", Path(folder) / "out.json"
        np.savez(items, **data.inputs, **({} if data.labels is None else {"labels": data.labels}))
        command = [PYTHON, Path("benchmarks/peer_tools") / script, model, items, out, ",".join(map(str, BUDGETS))]
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{script} failed:\n{done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(out.read_text())
    return found
