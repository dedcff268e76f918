"""The independent check of a plan document: exact bytes from shapes, totals, ties; with its problem the bound too."""

from __future__ import annotations

import math

import numpy as np

from bitwright.core.certificate import ROUNDING, Certificate, Verdict, verify
from bitwright.core.formats import parse_format
from bitwright.core.plan import Plan
from bitwright.core.problem import Problem


def verify_plan(plan: Plan, problem: Problem | None = None) -> Verdict:
    """Recompute everything that the document and, if given, its problem allow; `notes` says what was not recomputed."""
    failures = [*_unit_failures(plan), *_total_failures(plan), *_tie_failures(plan)]
    notes = [f"recomputed: exact bytes of {len(plan.units)} units, totals, ties"]
    certificate = Certificate.from_json(plan.certificate)
    if problem is None:
        failures += _certificate_failures(plan, certificate)
        notes.append("not recomputed: the lower bound, which needs the problem (--problem)")
        return Verdict(not failures, tuple(failures), tuple(notes), certificate)
    names, formats = problem.unit_names, problem.format_names
    if names is None or formats is None or list(names) != [unit.name for unit in plan.units]:
        failures.append("the problem's units are not the plan's units")
        return Verdict(False, tuple(failures), tuple(notes), certificate)
    unknown = sorted({unit.format for unit in plan.units} - set(formats))
    if unknown:
        failures.append(f"the problem has no format {', '.join(unknown)}")
        return Verdict(False, tuple(failures), tuple(notes), certificate)
    choice = np.array([formats.index(unit.format) for unit in plan.units], np.int64)
    limited = problem
    for name, value in certificate.limits.items():
        limited = limited.with_limit(name, value)
    verdict = verify(limited, choice, certificate)
    return Verdict(
        verdict.ok and not failures, (*failures, *verdict.failures), (*notes, *verdict.notes), verdict.certificate
    )


def _unit_failures(plan: Plan) -> list[str]:
    found = []
    for unit in plan.units:
        if unit.shape is None:
            continue
        storage, elements = parse_format(unit.format).storage(unit.shape), math.prod(unit.shape)
        if (storage.bytes, elements) != (unit.bytes, unit.elements):
            found.append(
                f"{unit.name}: {unit.bytes} bytes of {unit.elements} weights, recomputed {storage.bytes} of {elements}"
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
