"""The solvers. Order is preference: `auto` takes the first available exact one that supports the problem."""

from __future__ import annotations

from bitwright.core.catalog import Catalog, Entry
from solvers.capabilities import BUDGET, MANY, ORDER, UNITS, traits

SOLVERS = Catalog(
    "solver",
    (
        Entry(
            "hull",
            "solvers.hull:SOLVER",
            "certified multiple-choice knapsack: lower hulls, critical slope, core dynamic programming",
            traits=traits(limits=1, exact=True),
        ),
        Entry(
            "fusion",
            "solvers.fusion:SOLVER",
            "fusion-aware choice: bundles of units that share a format and an operation, exact cover of each block",
            needs=("highspy",),
            traits=traits(limits=MANY, rules=True, ties=False, exact=True, made_for="covers", only_covers=True),
        ),
        Entry(
            "pairs",
            "solvers.pairs:SOLVER",
            "pair terms: local search from the hull plan, a bound by messages, branch and bound",
            needs=("highspy",),
            traits=traits(limits=MANY, rules=True, pairs=True, exact=True, made_for="pairs"),
        ),
        Entry(
            "milp",
            "solvers.milp:SOLVER",
            "mixed-integer program through HiGHS: several limits, rules and pair terms",
            needs=("highspy",),
            traits=traits(limits=MANY, rules=True, pairs=True, exact=True, large=20_000),
        ),
        Entry(
            "vector",
            "solvers.vector:SOLVER",
            "several limits and rules at any size: a vector of multipliers, a repaired plan, often its proof",
            traits=traits(limits=MANY, rules=True, often=True, steady=(ORDER, *UNITS)),
        ),
        Entry(
            "brute",
            "solvers.brute:SOLVER",
            "enumeration of every choice: the oracle for small problems",
            traits=traits(limits=MANY, rules=True, pairs=True, exact=True, max_states=2.0**24),
        ),
        Entry(
            "dp",
            "solvers.dp:SOLVER",
            "dynamic programming over every total of one limit, costs divided by their common divisor",
            traits=traits(exact=True),
        ),
        Entry(
            "closed-form",
            "solvers.closed_form:SOLVER",
            "reverse water-filling on loss = c 4^-bits fitted to each unit, rounded; states its gap",
            traits=traits(continuous=True, steady=(ORDER, *UNITS)),
        ),
        Entry(
            "convex",
            "solvers.convex:SOLVER",
            "the continuous relaxation through cvxpy under any linear limits, repaired to whole formats",
            needs=("cvxpy",),
            traits=traits(limits=MANY, rules=True, continuous=True, steady=(ORDER, *UNITS)),
        ),
        Entry(
            "pulp",
            "solvers.pulp_cbc:SOLVER",
            "the peers' way: PuLP binaries through CBC, losses scaled, the gap stated from a bound of our own",
            needs=("pulp",),
            traits=traits(limits=MANY, rules=True, steady=(ORDER, *UNITS)),
        ),
        Entry(
            "pulp-highs",
            "solvers.pulp_highs:SOLVER",
            "PuLP binaries through HiGHS in a child process, losses scaled, the gap stated from a bound of our own",
            needs=("pulp", "highspy"),
            traits=traits(limits=MANY, rules=True, steady=(ORDER, *UNITS)),
        ),
        Entry(
            "ortools",
            "solvers.cp_sat:SOLVER",
            "OR-Tools CP-SAT on integer losses, in a child process",
            needs=("ortools",),
            traits=traits(limits=MANY, rules=True, pairs=True, exact=True, large=20_000),
        ),
        Entry(
            "ortools-mathopt",
            "solvers.math_opt:SOLVER",
            "SCIP through OR-Tools MathOpt, in a child process, losses scaled",
            needs=("ortools",),
            traits=traits(limits=MANY, rules=True, pairs=True, exact=True, large=20_000),
        ),
        Entry(
            "greedy",
            "solvers.greedy:SOLVER",
            "steepest hull steps first, smaller ones in what is left: a baseline",
            traits=traits(steady=(ORDER, *UNITS, BUDGET)),
        ),
        Entry(
            "positional",
            "solvers.positional:SOLVER",
            "first and last layers high, the rest uniform: a baseline",
            traits=traits(steady=(*UNITS, BUDGET)),
        ),
    ),
)
