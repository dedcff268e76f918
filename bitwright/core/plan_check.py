"""The independent check of a plan document: exact bytes from shapes, totals, ties; with its problem the bound too."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bitwright.core.budget import parse_budget
from bitwright.core.certificate import ROUNDING, Verdict, verify
from bitwright.core.claim import Certificate
from bitwright.core.device import join
from bitwright.core.formats import parse_format
from bitwright.core.mixed_format import expand
from bitwright.core.plan import Memory, Plan
from bitwright.core.problem import Problem


def verify_plan(plan: Plan, problem: Problem | None = None) -> Verdict:
    """Recompute everything that the document and, if given, its problem allow; `notes` says what was not recomputed."""
    failures = [*_unit_failures(plan), *_total_failures(plan), *_tie_failures(plan)]
    certificate = Certificate.from_json(plan.certificate)
    failures += [
        *_budget_failures(plan, certificate),
        *_claim_failures(certificate),
        *_memory_failures(plan, certificate),
    ]
    notes = [f"recomputed: exact bytes of {len(plan.units)} units, totals, ties, budget"]
    if plan.measured is not None:
        notes.append("not recomputed: the measured quality, which needs the model (`bitwright evaluate`)")
    if problem is None:
        failures += _certificate_failures(plan, certificate)
        notes.append("not recomputed: the lower bound, which needs the problem (--problem)")
        return Verdict(not failures, tuple(failures), tuple(notes), certificate)
    names, formats = problem.unit_names, problem.format_names
    chosen = [
        pair
        for unit in plan.units
        for pair in ([(unit.name, unit.rung)] if unit.rung else expand(unit.name, parse_format(unit.format)))
    ]
    if names is None or formats is None or list(names) != [name for name, _ in chosen]:
        failures.append("the problem's units are not the plan's units")
        return Verdict(False, tuple(failures), tuple(notes), certificate)
    unknown = sorted({format for _, format in chosen} - set(formats))
    if unknown:
        failures.append(f"the problem has no format {', '.join(unknown)}")
        return Verdict(False, tuple(failures), tuple(notes), certificate)
    column = {name: number for number, name in enumerate(formats)}
    choice = np.array([column[format] for _, format in chosen], np.int64)
    limited = problem
    for name, value in certificate.limits.items():
        limited = limited.with_limit(name, value)
    verdict = verify(limited, choice, certificate)
    together = None if plan.memory is None else _verify_joint(plan.memory, problem, choice)
    failures += _rung_failures(plan, problem, choice)
    failures += [*verdict.failures, *(() if together is None else together.failures)]
    notes += [*verdict.notes, *(() if together is None else together.notes)]
    return Verdict(not failures, tuple(failures), tuple(notes), verdict.certificate)


def _verify_joint(memory: Memory, problem: Problem, choice: NDArray[np.int64]) -> Verdict:
    """Weights and KV cache in one problem: the bound for both, from the weights' problem and the cache's menu."""
    claimed = Certificate.from_json(memory.joint)
    if not memory.menu:
        note = "not recomputed: the joint bound of weights and cache, whose formats the plan does not list"
        return Verdict(True, (), (note,), claimed)
    joint = join(problem, memory.menu)
    limited = joint.problem
    for name, value in claimed.limits.items():
        limited = limited.with_limit(name, value)
    try:
        whole = joint.choice(choice, memory.cache)
    except KeyError as error:
        return Verdict(False, (f"the cache's menu has no {error.args[0]}",), (), claimed)
    verdict = verify(limited, whole, claimed)
    words = "weights and cache together: "
    return Verdict(
        verdict.ok, tuple(words + text for text in verdict.failures), tuple(words + text for text in verdict.notes),
        verdict.certificate,
    )  # fmt: skip


def _memory_failures(plan: Plan, certificate: Certificate) -> list[str]:
    """What a device plan says of its cache must agree with itself and with its two certificates."""
    memory = plan.memory
    if memory is None:
        return []
    joint = Certificate.from_json(memory.joint)
    found = [f"weights and cache together: {text}" for text in _claim_failures(joint)]
    if memory.menu:
        parts = [*dict.fromkeys(one.part for one in memory.menu)]
        if [one.part for one in memory.cache] != parts or not set(memory.cache) <= set(memory.menu):
            found.append("the cache's formats are not one of each part of its menu")
        spent, loss = plan.totals.bytes + memory.cache_bytes, plan.totals.predicted_loss
        loss += math.fsum(one.loss for one in memory.cache)
        if joint.cost.get("bytes") != spent:
            found.append(f"weights and cache take {spent} bytes, their certificate says {joint.cost.get('bytes')}")
        if joint.loss is None or not math.isclose(joint.loss, loss, rel_tol=1e-9, abs_tol=ROUNDING):
            found.append(f"weights and cache lose {loss!r}, their certificate says {joint.loss!r}")
    limit, shared = certificate.limits.get("bytes"), joint.limits.get("bytes")
    if limit is None or shared is None or limit + memory.cache_bytes != shared:
        found.append(f"the limit of weights and cache is {shared}, that of the weights {limit} beside the cache")
    if memory.total_bytes > memory.usable_bytes:
        found.append(f"{memory.total_bytes} bytes are more than the {memory.usable_bytes} that the engine may take")
    return found


def _unit_failures(plan: Plan) -> list[str]:
    found = []
    for unit in plan.units:
        if unit.shape is None:
            found.append(f"{unit.name}: without its shape its bytes cannot be recomputed")
            continue
        storage, elements = parse_format(unit.format).storage(unit.shape), math.prod(unit.shape)
        if (storage.bytes, elements) != (unit.bytes, unit.elements):
            found.append(
                f"{unit.name}: {unit.bytes} bytes of {unit.elements} weights, recomputed {storage.bytes} of {elements}"
            )
    return found[:20]


def _rung_failures(plan: Plan, problem: Problem, choice: NDArray[np.int64]) -> list[str]:
    """A unit with a menu of its own names its column beside its format: that cell must be what the format costs."""
    costs = [resource for resource in problem.resources if resource.name == "bytes"]
    rows = [1 if unit.rung else len(expand(unit.name, parse_format(unit.format))) for unit in plan.units]
    found = []
    for unit, row in zip(plan.units, np.cumsum(rows) - rows, strict=True):
        if not unit.rung:
            continue
        cell = slice(row, row + 1)
        spent, loss = [int(cost.costs(cell)[0, choice[row]]) for cost in costs], float(problem.loss[row, choice[row]])
        if any(number != unit.bytes for number in spent) or not math.isclose(loss, unit.loss, rel_tol=1e-9):
            found.append(
                f"{unit.name}: {unit.format} takes {unit.bytes} bytes and loses {unit.loss!r}, "
                f"{unit.rung} of the problem {', '.join(map(str, spent)) or 'unknown'} and {loss!r}"
            )
    return found[:20]


def _total_failures(plan: Plan) -> list[str]:
    total = sum(unit.bytes for unit in plan.units)
    weights = sum(unit.elements for unit in plan.units)
    loss = math.fsum(unit.loss for unit in plan.units)
    found = []
    if total != plan.totals.bytes:
        found.append(f"totals.bytes is {plan.totals.bytes}, the units sum to {total}")
    if weights and not math.isclose(8 * total / weights, plan.totals.bits_per_weight, rel_tol=ROUNDING):
        found.append(f"totals.bits_per_weight is {plan.totals.bits_per_weight!r}, recomputed {8 * total / weights!r}")
    if not math.isclose(loss, plan.totals.predicted_loss, rel_tol=1e-9, abs_tol=ROUNDING):
        found.append(f"totals.predicted_loss is {plan.totals.predicted_loss!r}, the units sum to {loss!r}")
    return found


def _tie_failures(plan: Plan) -> list[str]:
    found = []
    for group in plan.ties:
        if any(not 0 <= index < len(plan.units) for index in group):
            found.append(f"a tie names a unit that is not there: {group[:4]}")
        elif len({plan.units[index].format for index in group}) > 1:
            found.append(f"tied units hold different formats: {plan.units[group[0]].name} ...")
    return found


def _certificate_failures(plan: Plan, certificate: Certificate) -> list[str]:
    found = []
    if certificate.status == "infeasible":
        found.append("the certificate says that no plan fits")
    if certificate.cost.get("bytes", plan.totals.bytes) != plan.totals.bytes:
        found.append(f"the certificate's bytes are {certificate.cost['bytes']}, the plan's {plan.totals.bytes}")
    limit = certificate.limits.get("bytes")
    if limit is not None and plan.totals.bytes > limit:
        found.append(f"the plan's {plan.totals.bytes} bytes exceed its limit of {limit}")
    if certificate.loss is not None and not math.isclose(
        certificate.loss, plan.totals.predicted_loss, rel_tol=1e-9, abs_tol=ROUNDING
    ):
        found.append(f"the certificate's loss is {certificate.loss!r}, the plan's {plan.totals.predicted_loss!r}")
    return found


def _budget_failures(plan: Plan, certificate: Certificate) -> list[str]:
    """The limit that was solved for must be the one that the plan's own words ask for."""
    limit = certificate.limits.get("bytes")
    if plan.budget is None or limit is None:
        return []
    budget = parse_budget(plan.budget)
    weights = sum(unit.elements for unit in plan.units)
    other = plan.totals.unquantized_bytes if budget.whole_file else 0
    if budget.served is not None:
        if plan.memory is None:
            return ["the budget is for a device, but the plan does not say how its memory is spent"]
        other += plan.memory.reserved_bytes + plan.memory.cache_bytes
    most = budget.unit_bytes(weights=weights, other_bytes=other)
    # In a whole file the metadata takes a part that only the container knows.
    if limit > most or (limit < most and not budget.whole_file):
        return [f"the budget {plan.budget} leaves {most} bytes to the units, the certificate's limit is {limit}"]
    return []


def _claim_failures(certificate: Certificate) -> list[str]:
    """What a certificate must say to agree with itself, whatever the problem."""
    loss, bound, gap = certificate.loss, certificate.lower_bound, certificate.gap
    if certificate.status == "infeasible":
        return []
    if loss is None or bound is None or gap is None:
        return ["the certificate lacks its loss, its lower bound or its gap"]
    slack = 1e-9 * max(abs(loss), abs(bound))
    found = []
    if gap < 0 or abs(gap - max(0.0, loss - bound)) > slack:
        found.append(f"the certificate's gap is {gap!r}, its loss less its bound {loss - bound!r}")
    if bound > loss + slack:
        found.append(f"the certificate's lower bound {bound!r} is above its loss {loss!r}")
    by_cases = certificate.case_bound
    if by_cases is not None and not (certificate.cases and bound - slack <= by_cases <= loss + slack):
        found.append(f"the certificate's bound by cases {by_cases!r} has none, or is not from {bound!r} to {loss!r}")
    if certificate.status == "optimal" and gap > 0 and certificate.proof is None:
        found.append("the certificate says optimal with a gap, but names no complete search")
    return found
