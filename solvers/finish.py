"""From an Outcome to a Solution: uniform plans as candidates, certificate from the original problem."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bitwright.core.bound import overflows
from bitwright.core.certificate import certify, impossible, infeasible, total_loss, violations
from bitwright.core.errors import OutOfResources
from bitwright.core.problem import AT_LEAST, FloatArray, IntArray, Problem
from bitwright.core.solution import Solution
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
    # Without a multiplier the bound is weaker, but one.
    beyond = [m.name for m in problem.limits if overflows(problem, m, outcome.multipliers.get(m.name, 0.0))]
    if beyond:
        outcome = replace(outcome, multipliers={k: v for k, v in outcome.multipliers.items() if k not in beyond})
    info = dict(outcome.info)
    if outcome.blame is not None:
        shown = infeasible(problem, outcome.blame, reachable=outcome.reachable, multipliers=outcome.multipliers)
        return Solution(np.zeros(0, np.int64), None, shown, name, info)
    made = partial(certify, problem, messages=outcome.messages, curvature=outcome.curvature, cases=outcome.cases)
    proof = outcome.proof
    certificate = None if choice is None else made(choice, outcome.multipliers, proof=proof)
    closed = certificate is not None and certificate.gap == 0  # by its own bound: no plan has less loss
    better = None if closed else best_uniform(problem, None if certificate is None else certificate.loss)
    if better is not None:
        info["uniform"] = int(better[0])
        proof = None if choice is None else proof
        choice, certificate = better, made(better, outcome.multipliers, proof=proof)
    if choice is None and impossible(problem, outcome.multipliers):
        # The dual of a problem without a feasible choice grows without end, so its multipliers end up as a proof.
        against = [name for name, value in outcome.multipliers.items() if value > 0]
        shown = infeasible(problem, together(against), multipliers=outcome.multipliers)
        return Solution(np.zeros(0, np.int64), None, shown, name, info)
    if choice is None or certificate is None:
        raise OutOfResources(
            "time ran out before a plan was found",
            got=f"solver {name}",
            hint="allow more time, loosen a limit or a rule, or use solver 'milp'",
        )
    return Solution(choice, certificate.loss, certificate, name, info)


def _breaks_a_rule(problem: Problem, format_: int) -> bool:
    """Whether a uniform plan breaks a rule: told by the rule alone, where hundreds of them would take long to count."""
    for rule in problem.rules:
        count = len(rule.units) if format_ in rule.formats else 0
        if (count < rule.count) if rule.sense == AT_LEAST else (count > rule.count):
            return True
    return False


def _overruns(problem: Problem, format_: int) -> bool:
    """Whether a uniform plan overruns a compact limit over all units: told by the sum of the sizes."""
    for limit in problem.limits:
        resource = problem.resource(limit.resource)
        if limit.units is not None or resource.rate is None:
            continue
        if resource.sizes.total * int(resource.rate[format_]) > limit.value:
            return True
    return False


def _rough_sums(loss: FloatArray) -> NDArray[np.float64]:
    """Of each format, in float64: many rows at once, since numpy adds up long rows many times as fast as short ones."""
    n, k = loss.shape
    many = next((rows for rows in (64, 8) if n >= 64 * rows and loss.flags.c_contiguous), 1)
    whole = n - n % many
    sums = loss[:whole].reshape(whole // many, many * k).sum(axis=0, dtype=np.float64).reshape(many, k).sum(axis=0)
    return np.asarray(sums + loss[whole:].sum(axis=0, dtype=np.float64))


def best_uniform(problem: Problem, loss: float | None) -> IntArray | None:
    """The best feasible uniform plan, if it has strictly less than `loss` (None: whatever it has)."""
    best, found = np.inf if loss is None else loss, None
    sums = _rough_sums(problem.loss)
    sizes = np.zeros(problem.k)
    if len(problem.pairs):  # the terms that each uniform plan meets, and how far rounding may be off
        alike = problem.pairs.format[:, 0] == problem.pairs.format[:, 1]
        at, terms = problem.pairs.format[alike, 0], problem.pairs.loss[alike]
        sums += np.bincount(at, terms, problem.k)
        sizes += np.bincount(at, np.abs(terms), problem.k) + np.abs(problem.loss).sum(axis=0, dtype=np.float64)
    for format_, (rough, size) in enumerate(zip(sums.tolist(), sizes.tolist(), strict=True)):
        if rough == np.inf or rough > best + SIEVE * (abs(best) + size):
            continue
        if _overruns(problem, format_) or _breaks_a_rule(problem, format_):
            continue
        uniform = np.full(problem.n, format_, np.int64)
        if violations(problem, uniform):
            continue
        total = total_loss(problem, uniform)
        if total < best:
            best, found = total, uniform
    return found
