"""Job `plan`: inspect, score, solve, confirm on held-out data, and, if asked, execute. DESIGN section 4."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

import bitwright
import solvers
from bitwright.core.budget import parse_budget
from bitwright.core.certificate import certify, violations
from bitwright.core.errors import Infeasible, Unsupported
from bitwright.core.formats import Format, MixedFormat, parse_format
from bitwright.core.inventory import Inventory
from bitwright.core.mixed_format import is_finer
from bitwright.core.plan import CacheChoice, Measured, plan_from_json
from bitwright.core.problem import IntArray, Problem
from bitwright.core.problem_file import save_problem
from bitwright.core.requests import PlanRequest
from bitwright.core.solution import Solution, uniform_choices
from bitwright.core.table import SensitivityTable
from bitwright.models import ModelSource
from quantizers.containers.catalog import CONTAINERS
from sensitivity.catalog import METRICS
from sensitivity.data import Calibration
from worker.fanout import once
from worker.steps.assemble import build_plan, make_provenance
from worker.steps.confirm import confirm
from worker.steps.context import Context
from worker.steps.execute import write_checkpoint
from worker.steps.joint import joint_plan
from worker.steps.menu import Menu, require_reachable, resolve
from worker.steps.prediction import prediction
from worker.steps.quantizing import Maker, make_quantizer
from worker.steps.redraw import redrawn
from worker.steps.score import calibrate, publish, score
from worker.steps.served import expert_words
from worker.steps.serving import Serving, certify_joint, device_words, serving
from worker.steps.spikes import spike_floors
from worker.steps.terms import constrained, smallest_bytes

#: Whole-file budgets leave room for this container's metadata when the request names none.
DEFAULT_CONTAINER = "packed"


def run(request: PlanRequest, context: Context) -> dict[str, Any]:
    source, inventory = context.open(request.model)
    menu = resolve(request, inventory)
    confirming = request.confirm_tokens if request.confirm and inventory.task != "unknown" else 0
    calibration = calibrate(request, menu, source, inventory, context, confirming=confirming)
    maker = make_quantizer(menu.quantizer, source, inventory, calibration, context, menu.quantizer_options)
    target = _target(request, source, menu.planned(inventory), menu)
    table = score(request, menu, source, inventory, calibration, maker, context, target)
    inventory = menu.planned(inventory)

    def decide() -> dict[str, Any]:
        return _decided(request, menu, source, inventory, calibration, maker, table, context)

    cut = request.to is not None and context.settings.shards > 1 and context.problem_out is None
    result = once(context, _key(request, table), decide) if cut else decide()
    if request.to is not None and result["feasible"]:
        plan = plan_from_json(result["plan"])
        written = write_checkpoint(source, inventory, plan, request.to, maker, context, request.calibration)
        result = {**result, "checkpoint": written}
    return result


def _key(request: PlanRequest, table: SensitivityTable) -> dict[str, Any]:
    """By what a job that was cut while executing finds the plan again that it had made, with its time limit and all."""
    return {
        "plan": request.model_dump(mode="json", exclude_none=True), "table": table.digest,
        "version": bitwright.__version__,
    }  # fmt: skip


def _decided(
    request: PlanRequest,
    menu: Menu,
    source: ModelSource,
    inventory: Inventory,
    calibration: Calibration | None,
    maker: Maker,
    table: SensitivityTable,
    context: Context,
) -> dict[str, Any]:
    """The result but for the checkpoint."""
    table = table.without_units(inventory)
    floors, spiked = spike_floors(request, menu, source, inventory, calibration, maker, context)
    allowed = menu.allowed(inventory)
    require_reachable(allowed, inventory, menu)
    if floors is not None:
        allowed = floors if allowed is None else allowed & floors
    rows = [inventory.units[i] for i in table.row_units]
    found = serving(request, menu, source, inventory, table, calibration, context)
    limit = _limit(request, source, inventory, menu, found)
    plain = table.problem(limit, tie_kinds=menu.tie_kinds, allowed=allowed)
    problem = constrained(plain, menu.recipe, rows)
    joined = None if found is None else found.joined(problem)
    joint = solution = _solve(request, menu, problem if joined is None else joined.problem, context)
    if not solution.feasible:
        return _infeasible(request, problem, solution, source, inventory, menu, table, context, found)
    cache = () if found is None else found.chosen(joint, problem)
    if found is not None:
        # The cache's share is decided; the weights get the rest, with a certificate of their own.
        left = plain.with_limit("bytes", limit - sum(choice.bytes for choice in cache))
        problem = constrained(left, menu.recipe, rows)
        solution = _solve(request, menu, problem, context)
    solved = solution
    solution, measured = _confirmed(
        request, maker, source, inventory, calibration, table, problem, solution, context, cache
    )
    provenance = make_provenance(request, menu, table, solution, calibration, maker)
    provenance |= prediction(table, problem, solution, request.solver or menu.recipe.solver)
    said = (*spiked, *maker.warnings(inventory), *expert_words(request, inventory, table, problem, solution))
    # A plan that was taken because it measured better does not hang on predicted losses.
    solver = request.solver or menu.recipe.solver
    steady = redrawn(table, problem, solution, solver, request.seed) if solution is solved else None
    plan = build_plan(request, menu, source, inventory, table, problem, solution, measured, provenance, said, steady)
    if found is not None and joined is not None:
        file_bytes = plan.totals.bytes + _other_bytes(request, source, inventory, menu)
        plan = plan.model_copy(
            update={"memory": found.memory(cache, file_bytes, certify_joint(joined, solution, cache, joint))}
        )
    digest = plan.digest
    context.blobs.put_as("plans", digest, plan)
    return {
        "feasible": True,
        "plan_digest": digest,
        "plan": plan.to_json(),
        "table_digest": publish(table, context),
        "checkpoint": None,
        "infeasible": None,
    }


def _target(request: PlanRequest, source: ModelSource, inventory: Inventory, menu: Menu) -> float | None:
    """Stored bits a weight that the budget leaves, for metrics that look at one target only.

    Raises Unsupported for budgets that something else takes an unknown part of.
    """
    if not METRICS.get(menu.metric).traits.get("target"):
        return None
    if parse_budget(request.budget).served is not None:
        raise Unsupported(
            f"the metric {menu.metric} looks at plans of one size, and a device shares its memory with a cache",
            expected="a budget of weights, such as 3bpw or 120MB", got=request.budget,
        )  # fmt: skip
    return 8 * _limit(request, source, inventory, menu, None) / inventory.weights


def _limit(request: PlanRequest, source: ModelSource, inventory: Inventory, menu: Menu, found: Serving | None) -> int:
    """The limit on the units' bytes (and the KV cache's, for a device) that the budget leaves."""
    other = _other_bytes(request, source, inventory, menu) + (found.reserved_bytes if found else 0)
    return parse_budget(request.budget).unit_bytes(weights=inventory.weights, other_bytes=other)


def _other_bytes(request: PlanRequest, source: ModelSource, inventory: Inventory, menu: Menu) -> int:
    """What a whole-file budget pays for besides the units: the unquantized rest and, at most, the metadata."""
    if not parse_budget(request.budget).whole_file:
        return 0
    container = CONTAINERS.load(request.to or DEFAULT_CONTAINER)
    formats: list[Format] = [parse_format(name) for name in menu.formats]
    if is_finer(menu.granularity):
        formats = [MixedFormat(menu.granularity, tuple(formats))]
    overhead: int = container.max_overhead(inventory, formats, source=source)
    return inventory.rest_bytes + overhead


def _solve(request: PlanRequest, menu: Menu, problem: Problem, context: Context) -> Solution:
    context.progress("solve", 0.0, f"{problem.groups} groups of units, {problem.k} formats")
    if context.problem_out is not None:
        save_problem(problem, context.problem_out)
    name = request.solver or menu.recipe.solver
    solution = solvers.solve(problem, name, time_limit=request.time_limit, seed=request.seed)
    context.progress("solve", 1.0, f"{solution.solver}: {solution.certificate.status}")
    return solution


def _infeasible(
    request: PlanRequest,
    problem: Problem,
    solution: Solution,
    source: ModelSource,
    inventory: Inventory,
    menu: Menu,
    table: SensitivityTable,
    context: Context,
    found: Serving | None,
) -> dict[str, Any]:
    """An infeasible budget is an answer: it says the smallest budget that can be met, in the words of the request."""
    try:
        solution.require()
    except Infeasible as error:
        answer = error.to_problem()
    answer["got"] = f"a budget of {request.budget}"
    smallest = smallest_bytes(problem, menu.recipe, [inventory.units[i] for i in table.row_units])
    if smallest is not None:
        words, answer["smallest_budget"] = _smallest_words(request, smallest, source, inventory, menu, found)
        answer["hint"] = f"the smallest feasible budget is {words}"
    return {
        "feasible": False, "plan_digest": None, "plan": None, "checkpoint": None,
        "table_digest": publish(table, context), "infeasible": answer,
    }  # fmt: skip


def _smallest_words(
    request: PlanRequest,
    smallest: int,
    source: ModelSource,
    inventory: Inventory,
    menu: Menu,
    found: Serving | None,
) -> tuple[str, dict[str, Any]]:
    """(the smallest budget in the words of the request, the same as numbers), from the units' smallest bytes."""
    budget = parse_budget(request.budget)
    if found is not None:
        whole = smallest + found.smallest_bytes + _other_bytes(request, source, inventory, menu)
        words, device = device_words(budget, whole, found)
        return words, {"device_bytes": device}
    bpw = math.ceil(1e4 * 8 * smallest / inventory.weights) / 1e4
    numbers: dict[str, Any] = {"bpw": bpw, "unit_bytes": smallest}
    words = f"{bpw}bpw ({smallest} bytes in planned units)"
    if budget.whole_file:
        numbers["file_bytes"] = smallest + _other_bytes(request, source, inventory, menu)
        words = f"{numbers['file_bytes']}B for the whole file, or {words}"
    return words, numbers


def _confirmed(
    request: PlanRequest,
    maker: Maker,
    source: ModelSource,
    inventory: Inventory,
    calibration: Calibration | None,
    table: SensitivityTable,
    problem: Problem,
    solution: Solution,
    context: Context,
    cache: tuple[CacheChoice, ...],
) -> tuple[Solution, Measured | None]:
    """Measure the solution beside uniform plans; the best feasible uniform one replaces it if it measures better."""
    below, above = uniform_neighbours(problem, solution.choice)
    if calibration is None or not request.confirm or inventory.task == "unknown":
        return solution, None
    # A rule of thumb keeps no recipe's rules, so it is asked for the budget alone.
    budget_alone = replace(problem, rules=(), limits=problem.limits[:1])
    thumb = solvers.solve(budget_alone, "positional", seed=request.seed)
    positional = thumb.choice if thumb.feasible else None
    joint = None
    if not cache:
        joint = joint_plan(request, source, inventory, table, problem, solution, calibration, maker, context)
    measured, taken = confirm(
        source, inventory, table, solution, below, above, positional, calibration, maker, context, cache, joint
    )
    if taken == "joint" and joint is not None:
        certificate = certify(problem, joint.choice, solution.certificate.multipliers)
        solution = Solution(joint.choice, certificate.loss, certificate, "pairs, by measurement", solution.info)
    if taken == "feasible_uniform" and below is not None:
        certificate = certify(problem, below, solution.certificate.multipliers)
        solution = Solution(
            below, certificate.loss, certificate, f"{solution.solver}, uniform by measurement", solution.info
        )
    return solution, measured


def uniform_neighbours(problem: Problem, choice: IntArray) -> tuple[IntArray | None, IntArray | None]:
    """(best feasible uniform choice, cheapest uniform one of no fewer bytes than `choice`); None if there is none."""
    bytes_of = problem.resource("bytes").total
    uniform = [candidate for _, candidate in uniform_choices(problem)]
    feasible = [c for c in uniform if not violations(problem, c)]
    rows = np.arange(problem.n)
    below = min(feasible, key=lambda c: float(problem.loss[rows, c].sum()), default=None)
    no_fewer = [c for c in uniform if bytes_of(c) >= bytes_of(choice)]
    above = min(no_fewer, key=bytes_of, default=None)
    return below, above
