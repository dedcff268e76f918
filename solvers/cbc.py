"""A thin wall around CBC, the solver that comes with PuLP: write the model, run the program, read its answer.

CBC runs as a process of its own and is killed when it oversteps the clock: its own time limit is not kept inside
preprocessing and single node relaxations.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import JobFailed
from solvers.highs import FEASIBLE, INFEASIBLE, OPTIMAL, UNKNOWN, Answer, Model

#: Share of the time left that CBC is told; at the end of the rest it is killed.
SHARE = 0.9
#: First words of CBC's solution file.
STATUSES = {"Optimal": OPTIMAL, "Infeasible": INFEASIBLE, "Integer infeasible": INFEASIBLE, "Stopped on": FEASIBLE}


def run(model: Model, *, seconds: float, cost_scale: float = 1.0) -> Answer:
    """One call of CBC on the integer program within `seconds`: one thread, both gaps 0. No duals come back."""
    import pulp

    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="cbc-") as folder:
        source, target = Path(folder, "model.mps"), Path(folder, "model.sol")
        with warnings.catch_warnings():  # PuLP 3.3 announces changes of PuLP 4; these names serve all of 2 and 3
            warnings.simplefilter("ignore", DeprecationWarning)
            program(pulp, model, cost_scale).writeMPS(str(source))
            path = pulp.PULP_CBC_CMD(msg=False).path
        left = max(0.05, end - time.monotonic())
        limits = ["-timeMode", "elapsed", "-sec", f"{SHARE * left:.3f}", "-ratio", "0", "-allow", "0"]
        command = [path, str(source), *limits, "-primalT", "1e-9", "-solve"]
        try:
            subprocess.run([*command, "-solution", str(target)], capture_output=True, timeout=left, check=False)
        except subprocess.TimeoutExpired:
            return Answer(UNKNOWN, None, np.zeros(0))
        except OSError as error:
            raise JobFailed("CBC cannot be run", got=str(error)[:200], hint="use solver 'milp'") from error
        return _read(target, len(model.cost))


def program(pulp: Any, model: Model, cost_scale: float) -> Any:
    """The 0-1 program in PuLP's terms; column i is named x followed by eight digits."""
    whole = pulp.LpProblem("allocation", pulp.LpMinimize)
    x = [
        pulp.LpVariable(f"x{i:08d}", 0, 1, pulp.LpInteger if whole else pulp.LpContinuous)
        for i, whole in enumerate(model.integer.tolist())
    ]
    whole += pulp.LpAffineExpression(zip(x, (model.cost * cost_scale).tolist(), strict=True))
    for r, (low, high) in enumerate(zip(model.low.tolist(), model.high.tolist(), strict=True)):
        cells = slice(int(model.start[r]), int(model.start[r + 1]))
        terms = zip(model.index[cells].tolist(), model.value[cells].tolist(), strict=True)
        row = pulp.LpAffineExpression([(x[i], value) for i, value in terms])
        if low == high:
            whole += row == low
        elif np.isneginf(low):
            whole += row <= high
        else:
            whole += row >= low
    return whole


def _read(path: Path, columns: int) -> Answer:
    """First line: status and objective. Then one line a non-zero column: [**] number name value reduced-cost."""
    if not path.exists():
        return Answer(UNKNOWN, None, np.zeros(0))
    first, *lines = path.read_text().splitlines() or [""]
    status = next((known for words, known in STATUSES.items() if first.startswith(words)), UNKNOWN)
    if status in (INFEASIBLE, UNKNOWN) or "no integer solution" in first:
        return Answer(INFEASIBLE if status == INFEASIBLE else UNKNOWN, None, np.zeros(0))
    x: NDArray[np.float64] = np.zeros(columns)
    for line in lines:
        _, name, value, *_ = line.removeprefix("**").split()
        if name.startswith("x"):
            x[int(name[1:])] = float(value)
    return Answer(status, x, np.zeros(0))
