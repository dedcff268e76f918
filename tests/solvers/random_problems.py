"""Small random problems with random features, and an enumeration in numpy that shares nothing with any solver.

python -m tests.solvers.random_problems --count 20000 --seed 7      # the long form: stops at the first disagreement
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from bitwright.core.certificate import verify
from bitwright.core.problem import AT_LEAST, AT_MOST, Limit, Pairs, Problem, Resource, Rule, compact_bits
from solvers import solve

#: Most choices of one problem.
STATES = 20_000


def random_problem(rng: np.random.Generator) -> Problem:
    """1 to 12 units, 1 to 5 formats; each feature is there or not by the toss of a coin."""
    k = int(rng.integers(1, 6))
    n = int(rng.integers(1, 1 + min(12, int(np.log(STATES) / np.log(max(2, k))))))
    loss = rng.integers(0, 400, (n, k)) / 8 if rng.random() < 0.5 else np.exp(rng.normal(0, 3, (n, k)))
    if rng.random() < 0.3:
        mask = rng.random((n, k)) < 0.2
        mask[:, rng.integers(k)] = False
        loss[mask] = np.inf
    names = ["bits", "latency_us", "bytes"][: rng.integers(0, 4)]
    resources = tuple(_resource(rng, name, n, k) for name in names)
    tie = rng.integers(0, n, n) if rng.random() < 0.3 else None
    limits = [_limit(rng, r, None, n) for r in resources if rng.random() < 0.9]
    if resources and rng.random() < 0.3:
        limits.append(_limit(rng, resources[0], "block", n))
    rules = tuple(
        Rule(_some(rng, n), _some(rng, k), int(rng.choice([AT_LEAST, AT_MOST])), int(rng.integers(0, n + 1)))
        for _ in range(rng.integers(1, 3) if rng.random() < 0.4 else 0)
    )
    pairs = _pairs(rng, n, k) if n > 1 and rng.random() < 0.3 else Pairs()
    return Problem(loss.astype(rng.choice([np.float32, np.float64])), resources, tuple(limits), tie, rules, pairs)


def _resource(rng: np.random.Generator, name: str, n: int, k: int) -> Resource:
    if name == "bits":
        return compact_bits(rng.integers(1, 60, n), rng.integers(0, 16, k), int(rng.choice([1, 16])))
    if rng.random() < 0.3:
        return Resource(name, matrix=np.round(rng.uniform(0, 9, (n, k)), 3))
    return Resource(name, matrix=rng.integers(0, 300, (n, k)).astype(np.int64))


def _limit(rng: np.random.Generator, resource: Resource, subset: str | None, n: int) -> Limit:
    units = None if subset is None else _some(rng, n)
    costs = resource.costs() if units is None else resource.costs()[units]
    low, high = costs.min(axis=1).sum(), costs.max(axis=1).sum()
    value = float(low + rng.uniform(-0.05, 1.0) * (high - low))
    return Limit(resource.name, int(value) if resource.integral else value, subset, units)


def _some(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.sort(rng.choice(n, int(rng.integers(1, n + 1)), replace=False))


def _pairs(rng: np.random.Generator, n: int, k: int) -> Pairs:
    count = int(rng.integers(1, 3 * n))
    unit = np.array([rng.choice(n, 2, replace=False) for _ in range(count)])
    return Pairs(unit, rng.integers(0, k, (count, 2)), np.round(rng.normal(0, 5, count), 2))


@dataclass(frozen=True)
class Truth:
    """loss: least over all feasible choices, or None. reach: by limit, its least total with all else held, or None."""

    loss: float | None
    reach: dict[str, float | None]


def truth(problem: Problem) -> Truth:
    """Every choice at once: (states, n)."""
    groups, k = problem.groups, problem.k
    index = np.arange(k**groups)
    picks = np.stack([index // k**g % k for g in range(groups)], axis=1)
    choice = picks[:, problem.group_index]
    rows = np.arange(problem.n)
    loss = problem.loss.astype(np.float64)[rows, choice].sum(axis=1)
    for unit, form, extra in zip(problem.pairs.unit, problem.pairs.format, problem.pairs.loss, strict=True):
        loss = loss + extra * (choice[:, unit] == form).all(axis=1)
    good = np.isfinite(loss)
    for rule in problem.rules:
        count = np.isin(choice[:, rule.units], rule.formats).sum(axis=1)
        good &= count >= rule.count if rule.sense == AT_LEAST else count <= rule.count
    totals, holds = {}, {}
    for limit in problem.limits:
        resource, units = problem.resource(limit.resource), rows if limit.units is None else limit.units
        total = resource.costs()[units, choice[:, units]].sum(axis=1)
        totals[limit.name] = total
        holds[limit.name] = total <= limit.value if resource.integral else total <= limit.value * (1 + 1e-12)
    reach: dict[str, float | None] = {}
    for name, total in totals.items():
        others = good.copy()
        for other, held in holds.items():
            others &= held if other != name else True
        reach[name] = float(total[others].min()) if others.any() else None
    for held in holds.values():
        good &= held
    return Truth(float(loss[good].min()) if good.any() else None, reach)


def disagreement(problem: Problem, solver: str = "auto") -> str | None:
    """What a solver's answer says that is not so; None when all holds."""
    real, solution = truth(problem), solve(problem, solver, time_limit=60)
    certificate = solution.certificate
    verdict = verify(problem, solution.choice, certificate)
    if not verdict.ok:
        return f"{solution.solver}: {verdict.failures}"
    if solution.feasible != (real.loss is not None):
        return f"{solution.solver}: feasible {solution.feasible}, least loss {real.loss}"
    if real.loss is None:
        return _wrong_reach(problem, real, dict(certificate.smallest_limit or {}))
    scale = max(1e-9, float(np.abs(np.where(np.isfinite(problem.loss), problem.loss, 0)).max()))
    if certificate.status != "optimal" or abs(solution.loss - real.loss) > 1e-9 * abs(real.loss) + 1e-12 * scale:
        return f"{solution.solver}: {certificate.status} {solution.loss}, least loss {real.loss}"
    return None


def _wrong_reach(problem: Problem, real: Truth, said: dict[str, float]) -> str | None:
    """Where every other limit and rule can be held, the smallest limit is the least total with them held."""
    for name, least in real.reach.items():
        if least is not None and abs(said[name] - least) > 1e-9 * abs(least):
            return f"smallest {name}: {said[name]} said, {least} is"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--solver", default="auto")
    args = parser.parse_args()
    for index in range(args.count):
        problem = random_problem(np.random.default_rng([args.seed, index]))
        wrong = disagreement(problem, args.solver)
        if wrong:
            raise SystemExit(f"problem {index} of seed {args.seed}: {wrong}")
    print(f"{args.count} problems of seed {args.seed}: all agree")


if __name__ == "__main__":
    main()
