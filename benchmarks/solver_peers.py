"""What the solvers are measured against, each as (problem, seconds) -> (choice or None, what it says of it)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bitwright.core.problem import IntArray, Problem
from solvers import solve

Peer = Callable[[Problem, float], tuple[IntArray | None, str]]


def ours(name: str) -> Peer:
    """A solver of the catalog."""

    def run(problem: Problem, limit: float) -> tuple[IntArray | None, str]:
        solution = solve(problem, name, time_limit=limit)
        return solution.choice, solution.certificate.status

    return run


def scipy_raw(problem: Problem, limit: float) -> tuple[IntArray | None, str]:
    """HiGHS through scipy with the losses as they come and its default tolerances."""
    return _scipy(problem, 1.0, {"time_limit": limit})


def scipy_scaled(problem: Problem, limit: float) -> tuple[IntArray | None, str]:
    """HiGHS through scipy, losses scaled to mean 1, relative gap 0."""
    return _scipy(problem, 1 / float(problem.loss.mean()), {"time_limit": limit, "mip_rel_gap": 0.0})


def _scipy(problem: Problem, scale: float, options: dict[str, float]) -> tuple[IntArray | None, str]:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    n, k = problem.loss.shape
    one = csr_array((np.ones(n * k), (np.repeat(np.arange(n), k), np.arange(n * k))))
    cost = problem.resources[0].costs().astype(np.float64).reshape(1, -1)
    rows = [LinearConstraint(one, 1, 1), LinearConstraint(cost, -np.inf, float(problem.limits[0].value))]
    done = milp(
        problem.loss.ravel() * scale, constraints=rows, integrality=np.ones(n * k), bounds=Bounds(0, 1), options=options
    )
    choice = None if done.x is None else done.x.reshape(n, k).argmax(axis=1)
    return choice, "optimal" if done.status == 0 else "bounded"


def cvxpy_highs(problem: Problem, limit: float) -> tuple[IntArray | None, str]:
    """HiGHS through cvxpy, losses scaled to mean 1, its default relative gap of 1e-4."""
    import cvxpy

    n, k = problem.loss.shape
    x = cvxpy.Variable((n, k), boolean=True)
    cost = problem.resources[0].costs() / float(problem.limits[0].value)
    rows = [cvxpy.sum(x, axis=1) == 1, cvxpy.sum(cvxpy.multiply(cost, x)) <= 1]
    model = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum(cvxpy.multiply(problem.loss / problem.loss.mean(), x))), rows)
    model.solve(solver=cvxpy.HIGHS, time_limit=limit)
    choice = None if x.value is None else x.value.argmax(axis=1)
    return choice, "optimal" if model.status == "optimal" else "bounded"


def cp_sat(problem: Problem, limit: float) -> tuple[IntArray | None, str]:
    """CP-SAT, one worker, losses as integers of 2^40 steps over their total."""
    from ortools.sat.python import cp_model

    n, k = problem.loss.shape
    cost, loss = problem.resources[0].costs(), np.rint(problem.loss / problem.loss.sum() * 2.0**40).astype(np.int64)
    step = int(np.gcd.reduce(cost.ravel()))
    model = cp_model.CpModel()
    cells = [[model.new_bool_var("") for _ in range(k)] for _ in range(n)]
    for row in cells:
        model.add_exactly_one(row)
    flat = [cell for row in cells for cell in row]
    model.add(
        cp_model.LinearExpr.weighted_sum(flat, (cost.ravel() // step).tolist()) <= int(problem.limits[0].value) // step
    )
    model.minimize(cp_model.LinearExpr.weighted_sum(flat, loss.ravel().tolist()))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = limit
    solver.parameters.num_workers = 1
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None, solver.status_name(status)
    choice = np.array([[solver.value(cell) for cell in row] for row in cells]).argmax(axis=1)
    return choice, "optimal" if status == cp_model.OPTIMAL else "bounded"


def scip(problem: Problem, limit: float) -> tuple[IntArray | None, str]:
    """SCIP through MathOpt, losses scaled to mean 1, both gaps at zero."""
    import datetime

    from ortools.math_opt.python import mathopt

    n, k = problem.loss.shape
    cost, loss = problem.resources[0].costs() / float(problem.limits[0].value), problem.loss / problem.loss.mean()
    model = mathopt.Model()
    cells = [[model.add_binary_variable() for _ in range(k)] for _ in range(n)]
    for row in cells:
        model.add_linear_constraint(mathopt.fast_sum(row) == 1)
    terms = [(float(cost[i, j]), float(loss[i, j]), cells[i][j]) for i in range(n) for j in range(k)]
    model.add_linear_constraint(mathopt.fast_sum(c * x for c, _, x in terms) <= 1)
    model.minimize(mathopt.fast_sum(v * x for _, v, x in terms))
    wanted = mathopt.SolveParameters(
        time_limit=datetime.timedelta(seconds=limit), threads=1, relative_gap_tolerance=0.0, absolute_gap_tolerance=0.0
    )
    done = mathopt.solve(model, mathopt.SolverType.GSCIP, params=wanted)
    if not done.has_primal_feasible_solution():
        return None, done.termination.reason.name
    values = done.variable_values()
    choice = np.array([[values[cell] for cell in row] for row in cells]).argmax(axis=1)
    return choice, "optimal" if done.termination.reason == mathopt.TerminationReason.OPTIMAL else "bounded"


def pulp_binaries(problem: Problem, limit: float) -> tuple[IntArray | None, str]:
    """ModelOpt's way: PuLP binaries, Python sums, CBC with its defaults, unscaled losses."""
    import pulp

    n, k = problem.loss.shape
    cost, model = problem.resources[0].costs(), pulp.LpProblem("plan", pulp.LpMinimize)
    cells = [[pulp.LpVariable(f"x{i}_{j}", cat="Binary") for j in range(k)] for i in range(n)]
    model += pulp.lpSum(float(problem.loss[i, j]) * cells[i][j] for i in range(n) for j in range(k))
    model += pulp.lpSum(int(cost[i, j]) * cells[i][j] for i in range(n) for j in range(k)) <= int(
        problem.limits[0].value
    )
    for row in cells:
        model += pulp.lpSum(row) == 1
    status = model.solve(pulp.PULP_CBC_CMD(msg=False, timeLimit=limit, threads=1))
    choice = np.array([int(np.argmax([cell.value() or 0 for cell in row])) for row in cells])
    return choice, "optimal" if status == 1 else "bounded"


def dictionary(problem: Problem, limit: float) -> tuple[IntArray | None, str]:
    """AutoRound's way: a dictionary cost -> (loss, path), pruned to the Pareto front after every unit."""
    cost, bound = problem.resources[0].costs(), int(problem.limits[0].value)
    rest = np.append(np.cumsum(cost.min(axis=1)[::-1])[::-1][1:], 0)
    front: list[tuple[int, float, Any]] = [(0, 0.0, None)]
    end = time.process_time() + limit
    for i in range(problem.n):
        table: dict[int, tuple[float, Any]] = {}
        for spent, loss, path in front:
            for j in range(problem.k):
                c, v = spent + int(cost[i, j]), loss + float(problem.loss[i, j])
                if c + int(rest[i]) <= bound and (c not in table or v < table[c][0]):
                    table[c] = (v, (j, path))
        front, least = [], np.inf
        for c in sorted(table):
            if table[c][0] < least:
                least = table[c][0]
                front.append((c, *table[c]))
        if time.process_time() > end:
            return None, f"stopped at unit {i} with {len(front)} states"
    path, choice = front[-1][2], []
    while path is not None:
        choice.append(path[0])
        path = path[1]
    return np.array(choice[::-1]), "optimal"


def bisection(problem: Problem, limit: float) -> tuple[IntArray | None, str]:
    """llama.cpp's way: forty bisections on the multiplier, then one greedy fill."""
    cost, bound, rows = problem.resources[0].costs(), problem.limits[0].value, np.arange(problem.n)
    low, high = 0.0, 1e-3 * float(problem.loss.sum()) / float(cost.sum())
    while int(cost[rows, (problem.loss + high * cost).argmin(axis=1)].sum()) > bound:
        high *= 4
    for _ in range(40):
        middle = (low + high) / 2
        fits = int(cost[rows, (problem.loss + middle * cost).argmin(axis=1)].sum()) <= bound
        low, high = (low, middle) if fits else (middle, high)
    choice = (problem.loss + high * cost).argmin(axis=1)
    room = int(bound - cost[rows, choice].sum())
    extra = cost - cost[rows, choice][:, None]
    gain = np.where(extra > 0, (problem.loss[rows, choice][:, None] - problem.loss) / np.maximum(extra, 1), 0.0)
    best = gain.argmax(axis=1)
    for i in np.argsort(-gain[rows, best], kind="stable"):
        if 0 < extra[i, best[i]] <= room and gain[i, best[i]] > 0:
            choice[i] = best[i]
            room -= int(extra[i, best[i]])
    return choice, "bounded"


PEERS: dict[str, tuple[Peer, str]] = {
    "hull": (ours("hull"), "numpy"),
    "scipy-scaled": (scipy_scaled, "scipy"),
    "greedy": (ours("greedy"), "numpy"),
    "bisection": (bisection, "numpy"),
    "dictionary": (dictionary, "numpy"),
    "scipy-raw": (scipy_raw, "scipy"),
    "pulp-cbc": (pulp_binaries, "pulp"),
    "cvxpy-highs": (cvxpy_highs, "cvxpy"),
    "cp-sat": (cp_sat, "ortools"),
    "scip": (scip, "ortools"),
}
