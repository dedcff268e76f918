"""Certificates and the independent checker. Shares no code with any solver.

For multipliers m >= 0 (one for each limit and each rule),

    L(m) = sum over tie groups of min over formats of (loss + m.cost) - m.limits

is a lower bound on the loss of every feasible choice (Lagrangian duality; a rule "at least c" enters as
-count <= -c). Pair terms enter by their negative parts, or better by messages (`core.pair_bound`). Anyone can recompute
it in one pass over the table. A problem that no choice satisfies is shown by multipliers too: L(m) > 0 without losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.blocks import exact_sum, release, row_blocks
from bitwright.core.bound import lagrangian
from bitwright.core.cases import raised
from bitwright.core.claim import Certificate
from bitwright.core.errors import VerificationFailed
from bitwright.core.problem import AT_LEAST, IntArray, Problem, Resource

#: Relative rounding of a float64 sum of products: gaps below this share of the summed magnitudes count as zero.
ROUNDING = 1e-12
#: What closes a gap that the cases of a certificate leave nothing of: anyone can recompute it.
BY_CASES = "its cases"


def total_loss(problem: Problem, choice: IntArray) -> float:
    """Exact loss of a choice, pair terms included."""
    parts = [_chosen(problem, choice, rows) for rows in row_blocks(problem.n)]
    paired = len(problem.pairs) > 0
    if paired:
        parts.append(problem.pairs.met(choice))
    if problem.n <= 1_000_000:
        terms = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return exact_sum(terms, signed=paired or problem.extremes.least < 0)
    return float(sum(part.sum(dtype=np.longdouble) for part in parts))


def _chosen(problem: Problem, choice: IntArray, rows: slice) -> NDArray[Any]:
    part = problem.loss[rows]
    found: NDArray[Any] = part[np.arange(len(part)), choice[rows]]
    release(part)
    return found


def total_costs(problem: Problem, choice: IntArray) -> dict[str, int | float]:
    """Total by limit name (subset limits over their subset), then by resource that has no limit."""
    costs = {m.name: problem.resource(m.resource).total(choice, m.units) for m in problem.limits}
    for resource in problem.resources:
        if resource.name not in costs:
            costs[resource.name] = resource.total(choice)
    return costs


def violations(problem: Problem, choice: NDArray[Any]) -> list[str]:
    """Every reason why a choice is not feasible; empty means feasible."""
    return _misshapen(problem, choice) or _broken(problem, choice, total_costs(problem, choice))


def _misshapen(problem: Problem, choice: NDArray[Any]) -> list[str]:
    if choice.shape != (problem.n,) or choice.dtype.kind not in "iu":
        return [f"the choice must hold one integer for each of {problem.n} units, got {choice.dtype} {choice.shape}"]
    # As unsigned numbers negative ones are larger than any format: one look is enough.
    unsigned = choice.view(np.uint64) if choice.dtype == np.int64 else choice.view(choice.dtype.str.replace("i", "u"))
    if len(choice) and np.maximum.reduce(unsigned) >= problem.k:
        return [f"a choice is outside 0 .. {problem.k - 1}"]
    return []


def _broken(problem: Problem, choice: IntArray, costs: Mapping[str, int | float]) -> list[str]:
    found = []
    if problem.extremes.forbids:
        parts = [~np.isfinite(_chosen(problem, choice, rows)) for rows in row_blocks(problem.n)]
        forbidden = np.flatnonzero(np.concatenate(parts))
        if len(forbidden):
            found.append(f"{len(forbidden)} units take a forbidden format, first unit {forbidden[0]}")
    if problem.tie is not None:
        low, high = np.full(problem.groups, problem.k), np.full(problem.groups, -1)
        np.minimum.at(low, problem.group_index, choice)
        np.maximum.at(high, problem.group_index, choice)
        broken = int((low != high).sum())
        if broken:
            found.append(f"{broken} tie groups hold different formats")
    for limit in problem.limits:
        total = costs[limit.name]
        # Float resources are compared with their own rounding; integers exactly.
        slack = 0 if isinstance(total, int) else ROUNDING * abs(total)
        if total > limit.value + slack:
            found.append(f"limit {limit.name} is broken: {total} > {limit.value}")
    for index, rule in enumerate(problem.rules):
        count = int(np.isin(choice[rule.units], rule.formats).sum())
        if (count < rule.count) if rule.sense == AT_LEAST else (count > rule.count):
            words = "at least" if rule.sense == AT_LEAST else "at most"
            found.append(f"rule {index} is broken: {count} units, {words} {rule.count} wanted")
    return found


def certify(
    problem: Problem,
    choice: IntArray,
    multipliers: Mapping[str, float],
    *,
    proof: str | None = None,
    messages: tuple[float, ...] | None = None,
    curvature: tuple[float, ...] | None = None,
    cases: tuple[float, ...] | None = None,
) -> Certificate:
    """The certificate of a feasible choice; raises VerificationFailed when the choice is not feasible.

    `proof` names the complete search that closed the gap, when the caller ran one to its end.
    """
    broken = _misshapen(problem, choice)
    costs = {} if broken else total_costs(problem, choice)
    broken = broken or _broken(problem, choice, costs)
    if broken:
        raise VerificationFailed("the choice is not feasible", got="; ".join(broken)[:400])
    loss = total_loss(problem, choice)
    bound, scale = lagrangian(problem, multipliers, messages, curvature)
    none = ROUNDING * max(scale, abs(loss))
    case_bound = None if cases is None else raised(problem, cases, multipliers, loss, (bound, scale), ROUNDING)
    gap = loss - bound
    if gap <= none:
        gap, bound = 0.0, min(bound, loss)
    if case_bound is None or gap == 0.0 or case_bound <= bound:
        cases = case_bound = None
    elif loss - case_bound <= none:
        proof = proof or BY_CASES
    status = "optimal" if gap == 0.0 or proof is not None else "bounded"
    return Certificate(
        status=status,
        loss=loss,
        lower_bound=bound,
        gap=gap,
        cost=costs,
        limits={m.name: m.value for m in problem.limits},
        multipliers={name: float(value) for name, value in multipliers.items()},
        proof=proof if gap > 0 else None,
        messages=messages,
        curvature=curvature,
        cases=cases,
        case_bound=case_bound,
    )


def smallest_totals(problem: Problem) -> dict[str, int | float]:
    """For each limit alone: the smallest total that ties and forbidden cells allow (rules and other limits aside)."""
    smallest: dict[str, int | float] = {}
    for limit in problem.limits:
        resource = problem.resource(limit.resource)
        member = np.ones(problem.n, bool)
        if limit.units is not None:
            member[:] = False
            member[limit.units] = True
        if problem.tie is None:
            parts = [_cheapest(problem, resource, member, rows) for rows in row_blocks(problem.n)]
        else:
            parts = [_cheapest_of_groups(problem, resource, member)]
        totals = [int(part.sum()) if resource.integral else exact_sum(part) for part in parts]
        smallest[limit.name] = sum(totals)
    return smallest


def _cheapest(problem: Problem, resource: Resource, member: NDArray[np.bool_], rows: slice) -> NDArray[Any]:
    top = np.iinfo(np.int64).max if resource.integral else math.inf
    costs = np.where(member[rows, None], resource.costs(rows), 0)
    return np.asarray(np.where(np.isfinite(problem.loss[rows]), costs, top).min(axis=1))


def _cheapest_of_groups(problem: Problem, resource: Resource, member: NDArray[np.bool_]) -> NDArray[Any]:
    allowed = np.ones((problem.groups, problem.k), bool)
    np.logical_and.at(allowed, problem.group_index, np.isfinite(problem.loss))
    costs = np.where(member[:, None], resource.costs(), 0)
    summed = np.zeros((problem.groups, problem.k), costs.dtype)
    np.add.at(summed, problem.group_index, costs)
    top = np.iinfo(np.int64).max if resource.integral else math.inf
    return np.asarray(np.where(allowed, summed, top).min(axis=1))


def infeasible(
    problem: Problem,
    blame: str,
    *,
    reachable: Mapping[str, int | float] | None = None,
    multipliers: Mapping[str, float] | None = None,
) -> Certificate:
    """Certificate of a problem that no choice satisfies.

    reachable: by limit, the least total of a choice that meets every other limit and rule, where one is known.
    multipliers: a proof by `impossible`, if there is one.
    """
    return Certificate(
        status="infeasible",
        limits={m.name: m.value for m in problem.limits},
        smallest_limit={**smallest_totals(problem), **(reachable or {})},
        blame=blame,
        multipliers=multipliers if multipliers and impossible(problem, multipliers) else {},
    )


def impossible(problem: Problem, multipliers: Mapping[str, float]) -> bool:
    """Whether the multipliers prove that no choice meets all limits and rules: L(m) > 0 when every loss is 0."""
    if not multipliers:
        return False
    bound, scale = lagrangian(problem.without_losses(), multipliers)
    return bound > ROUNDING * scale


@dataclass(frozen=True)
class Verdict:
    """Outcome of an independent check; `notes` says what was recomputed and what was taken on trust."""

    ok: bool
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    certificate: Certificate

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "failures": list(self.failures),
            "notes": list(self.notes),
            "certificate": self.certificate.to_json(),
        }


def _close(a: float | None, b: float | None, scale: float) -> bool:
    return a is not None and b is not None and abs(a - b) <= ROUNDING * max(scale, abs(a), abs(b))


def verify(problem: Problem, choice: IntArray, claimed: Certificate) -> Verdict:
    """Recompute cost, loss, feasibility, bound and gap from the problem alone and compare with the claim."""
    if claimed.status == "infeasible":
        return _verify_infeasible(problem, claimed)
    failures = _misshapen(problem, choice)
    costs = {} if failures else total_costs(problem, choice)
    failures = (failures or _broken(problem, choice, costs)) + _other_limits(problem, claimed)
    if failures:
        return Verdict(False, tuple(failures), (), claimed)
    loss = total_loss(problem, choice)
    bound, scale = lagrangian(problem, claimed.multipliers, claimed.messages, claimed.curvature)
    none = ROUNDING * max(scale, abs(loss))
    gap = 0.0 if loss - bound <= none else loss - bound
    notes = [f"recomputed: loss {loss!r}, bound {bound!r}, gap {gap!r}, and feasibility"]
    case_bound = None
    if claimed.cases is not None:
        case_bound = raised(problem, claimed.cases, claimed.multipliers, loss, (bound, scale), ROUNDING)
        notes.append(f"recomputed: the bound of its cases, {case_bound!r}")
    if claimed.case_bound is not None and not _close(case_bound, claimed.case_bound, scale):
        failures.append(f"its cases give the bound {case_bound!r}, the certificate says {claimed.case_bound!r}")
    if not _close(loss, claimed.loss, scale):
        failures.append(f"loss is {loss!r}, the certificate says {claimed.loss!r}")
    if not _close(bound, claimed.lower_bound, scale):
        failures.append(f"the multipliers give the bound {bound!r}, the certificate says {claimed.lower_bound!r}")
    if claimed.gap is None or abs(gap - claimed.gap) > 2 * none:
        failures.append(f"the gap is {gap!r}, the certificate says {claimed.gap!r}")
    for name, value in claimed.cost.items():
        if name not in costs or (
            costs[name] != value if isinstance(value, int) else not _close(costs[name], value, 0.0)
        ):
            failures.append(f"the cost of {name} is {costs.get(name)!r}, the certificate says {value!r}")
    if claimed.status == "optimal" and gap > 0:
        if claimed.proof is None:
            failures.append("status is optimal with a gap, but no complete search is named")
        elif claimed.proof == BY_CASES and (case_bound is None or loss - case_bound > 2 * none):
            failures.append("status is optimal by the cases, but they leave a gap")
        elif claimed.proof != BY_CASES:
            notes.append(f"taken on trust: the gap of {gap!r} was closed by {claimed.proof}")
    checked = certify(
        problem, choice, claimed.multipliers, proof=claimed.proof,
        messages=claimed.messages, curvature=claimed.curvature, cases=claimed.cases,
    )  # fmt: skip
    return Verdict(not failures, tuple(failures), tuple(notes), checked)


def _other_limits(problem: Problem, claimed: Certificate) -> list[str]:
    """Limits that the certificate states otherwise than the problem; members that it leaves out are not claims."""
    real = {limit.name: limit.value for limit in problem.limits}
    return [
        f"the limit {name} is {real.get(name)!r} in the problem, the certificate says {value!r}"
        for name, value in claimed.limits.items()
        if real.get(name) != value
    ]


def _verify_infeasible(problem: Problem, claimed: Certificate) -> Verdict:
    """A limit below its own least total, or multipliers, prove the claim; a claim without either is taken on trust.

    A stated smallest limit may exceed the least total of its own resource only where other limits or rules are.
    """
    least, alone = smallest_totals(problem), not problem.rules and len(problem.limits) == 1
    wrong, trusted = _other_limits(problem, claimed), []
    for name, value in (claimed.smallest_limit or {}).items():
        if name not in least or not (
            _close(float(least[name]), float(value), 0.0) or (value > least[name] and not alone)
        ):
            wrong.append(f"the smallest total of {name} is {least.get(name)!r}, the certificate says {value!r}")
        elif value > least[name]:
            trusted.append(f"taken on trust: {name} cannot be less than {value!r} with every other limit and rule held")
    if wrong:
        return Verdict(False, tuple(wrong), (), claimed)
    certificate = infeasible(
        problem, claimed.blame or "", reachable=claimed.smallest_limit, multipliers=claimed.multipliers
    )
    broken = [limit.name for limit in problem.limits if least[limit.name] > limit.value]
    if broken:
        notes = (f"recomputed: the least total of {', '.join(broken)} exceeds its limit", *trusted)
    elif certificate.multipliers:
        notes = ("recomputed: the multipliers prove that limits and rules together admit no choice", *trusted)
    elif problem.rules or len(problem.limits) > 1:
        notes = ("taken on trust: limits and rules together admit no choice", *trusted)
    else:
        return Verdict(False, ("every limit can be met: the problem is feasible",), (), certificate)
    return Verdict(True, (), notes, certificate)
