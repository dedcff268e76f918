"""From an Outcome to a Solution: uniform plans as candidates, certificate from the original problem."""

from __future__ import annotations

import numpy as np

from bitwright.core.certificate import certify, impossible, infeasible, total_loss, violations
from bitwright.core.errors import OutOfResources
from bitwright.core.problem import AT_LEAST, IntArray, Problem
from bitwright.core.solution import Solution, uniform_choices
from solvers.base import Outcome
from solvers.infeasibility import together
from solvers.reduce import Reduced

#: Plain float64 sums decide which uniform plans are worth an exact sum.
SIEVE = 1e-9


def finish(reduced: Reduced, outcome: Outcome, name: str) -> Solution:
    """Solution of an outcome over tie groups. Raises OutOfResources as `conclude` does."""
    choice = None if outcome.choice is None else reduced.expand(outcome.choice)
    return conclude(reduced.problem, choice, outcome, name)


def conclude(problem: Problem, choice: IntArray | None, outcome: Outcome, name: str) -> Solution:
    """Solution of a choice of the original units (`outcome.choice` is not looked at).

    Raises OutOfResources when neither the method nor any uniform plan gives a feasible choice.
    """
    info = dict(outcome.info)
    if outcome.blame is not None:
        certificate = infeasible(problem, outcome.blame, reachable=outcome.reachable, multipliers=outcome.multipliers)
        return Solution(np.zeros(0, np.int64), None, certificate, name, info)
    proof = outcome.proof
    better = best_uniform(problem, choice)
    if better is not None:
        info["uniform"] = int(better[0])
        choice, proof = better, proof if choice is not None else None
    if choice is None and impossible(problem, outcome.multipliers):
        # The dual of a problem without a feasible choice grows without end, so its multipliers end up as a proof.
        against = [name for name, value in outcome.multipliers.items() if value > 0]
        certificate = infeasible(problem, together(against), multipliers=outcome.multipliers)
        return Solution(np.zeros(0, np.int64), None, certificate, name, info)
    if choice is None:
        raise OutOfResources(
            "time ran out before a plan was found",
            got=f"solver {name}",
            hint="allow more time, loosen a limit or a rule, or use solver 'milp'",
        )
    certificate = certify(problem, choice, outcome.multipliers, proof=proof, messages=outcome.messages)
    return Solution(choice, certificate.loss, certificate, name, info)


def _breaks_a_rule(problem: Problem, format_: int) -> bool:
    """Whether a uniform plan breaks a rule: told by the rule alone, where hundreds of them would take long to count."""
    for rule in problem.rules:
        count = len(rule.units) if format_ in rule.formats else 0
        if (count < rule.count) if rule.sense == AT_LEAST else (count > rule.count):
            return True
    return False


def best_uniform(problem: Problem, choice: IntArray | None) -> IntArray | None:
    """The best feasible uniform plan, if it is strictly better than `choice` (or there is none)."""
    best = np.inf if choice is None else total_loss(problem, choice)
    found = None
    column = problem.loss.sum(axis=0, dtype=np.float64)
    if len(problem.pairs) == 0 and np.isfinite(best) and (column > best + SIEVE * abs(best)).all():
        return None
    for format_, uniform in uniform_choices(problem):
        rough = float(column[format_]) + problem.pairs.total(uniform)
        if rough > best + SIEVE * abs(best) or _breaks_a_rule(problem, format_) or violations(problem, uniform):
            continue
        loss = total_loss(problem, uniform)
        if loss < best:
            best, found = loss, uniform
    return found
