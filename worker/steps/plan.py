"""Job `plan`: inspect, score, solve, confirm on held-out data, and, if asked, execute. DESIGN section 4."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import bitwright
import solvers
from bitwright.core.certificate import certify
from bitwright.core.plan import CacheChoice, Measured, plan_from_json
from bitwright.core.problem import Problem
from bitwright.core.problem_file import save_problem
from bitwright.core.requests import PlanRequest
from bitwright.core.solution import Solution, solution_from_json
from bitwright.core.table import SensitivityTable
from worker.fanout import once, shared
from worker.steps.assemble import build_plan, make_provenance
from worker.steps.baselines import baselines
from worker.steps.confirm import confirm
from worker.steps.context import Context
from worker.steps.execute import write_checkpoint
from worker.steps.joint import Joint, joint_plan
from worker.steps.limits import bytes_limit, other_bytes, target_bits
from worker.steps.menu import require_reachable
from worker.steps.prediction import prediction
from worker.steps.redraw import redrawn
from worker.steps.score import publish, score
from worker.steps.served import expert_words
from worker.steps.serving import certify_joint, serving
from worker.steps.spikes import spike_floors
from worker.steps.study import Study, open_model, study_of
from worker.steps.terms import constrained
from worker.steps.unreachable import beyond_reach, unreachable

Planning = Study[PlanRequest]


def run(request: PlanRequest, context: Context) -> dict[str, Any]:
    opened = open_model(request, context)
    inventory, context = opened.menu.planned(opened.inventory), opened.context
    answer = beyond_reach(replace(opened, inventory=inventory)) if context.problem_out is None else None
    if answer is not None:
        return _result(None, context, feasible=False, infeasible=answer)
    whole = study_of(opened)
    study = replace(whole, inventory=inventory)
    table = score(whole, target_bits(study))

    def decide() -> dict[str, Any]:
        return _decided(study, table.without_units(study.inventory))

    cut = request.to is not None and shared(context)
    result = once(context, _key(request, table), decide) if cut else decide()
    if request.to is not None and result["feasible"]:
        plan = plan_from_json(result["plan"])
        written = write_checkpoint(
            study.source, study.inventory, plan, request.to, study.maker, context, request.calibration
        )
        result = {**result, "checkpoint": written}
    return result


def _key(request: PlanRequest, table: SensitivityTable) -> dict[str, Any]:
    """By what a job that was cut while executing finds the plan again that it had made, with its time limit and all."""
    return {
        "plan": request.model_dump(mode="json", exclude_none=True), "table": table.digest,
        "version": bitwright.__version__,
    }  # fmt: skip


def _decided(study: Planning, table: SensitivityTable) -> dict[str, Any]:
    """The result but for the checkpoint. table: of the units that are planned."""
    request, menu, inventory, context = study.request, study.menu, study.inventory, study.context
    floors, spiked = spike_floors(study)
    allowed = menu.allowed(inventory)
    require_reachable(allowed, inventory, menu)
    if floors is not None:
        allowed = floors if allowed is None else allowed & floors
    rows = [inventory.units[i] for i in table.row_units]
    found = serving(study, table)
    limit = bytes_limit(study, found)
    plain = table.problem(limit, tie_kinds=menu.tie_kinds, allowed=allowed)
    problem = constrained(plain, menu.recipe, rows)
    joined = None if found is None else found.joined(problem)
    joint = solution = _solve(study, table, problem if joined is None else joined.problem)
    if not solution.feasible:
        answer = unreachable(study, table, problem, solution, found)
        return _result(table, context, feasible=False, infeasible=answer)
    cache = () if found is None else found.chosen(joint, problem)
    if found is not None:
        # The cache's share is decided; the weights get the rest, with a certificate of their own.
        left = plain.with_limit("bytes", limit - sum(choice.bytes for choice in cache))
        problem = constrained(left, menu.recipe, rows)
        solution = _solve(study, table, problem)
    solved = solution
    solution, measured = _confirmed(study, table, problem, solution, cache)
    solver = request.solver or menu.recipe.solver
    provenance = make_provenance(study, table, solution) | prediction(table, problem, solution, solver)
    said = (*spiked, *study.maker.warnings(inventory), *expert_words(study, table, problem, solution))
    # A plan that was taken because it measured better does not hang on predicted losses.
    steady = redrawn(table, problem, solution, solver, request.seed) if solution is solved else None
    plan = build_plan(study, table, problem, solution, measured, provenance, said, steady)
    if found is not None and joined is not None:
        file_bytes = plan.totals.bytes + other_bytes(study)
        plan = plan.model_copy(
            update={"memory": found.memory(cache, file_bytes, certify_joint(joined, solution, cache, joint))}
        )
    digest = plan.digest
    context.blobs.put_as("plans", digest, plan)
    return _result(table, context, feasible=True, plan_digest=digest, plan=plan.to_json())


def _result(table: SensitivityTable | None, context: Context, **members: Any) -> dict[str, Any]:
    """What a plan job answers; what is not given is not there."""
    nothing = {"plan_digest": None, "plan": None, "checkpoint": None, "infeasible": None}
    return {**nothing, "table_digest": None if table is None else publish(table, context), **members}


def _solve(study: Planning, table: SensitivityTable, problem: Problem) -> Solution:
    request, context = study.request, study.context
    context.progress("solve", 0.0, f"{problem.groups} groups of units, {problem.k} formats")
    if context.problem_out is not None:
        save_problem(problem, context.problem_out)
    name = request.solver or study.menu.recipe.solver

    def answer() -> Solution:
        return solvers.solve(problem, name, time_limit=request.time_limit, seed=request.seed)

    if shared(context):  # under a time limit it could come out differently when the job runs again from its start
        limits = [float(limit.value) for limit in problem.limits]
        question = {**_key(request, table), "solve": problem.n, "limits": limits}
        solution = solution_from_json(once(context, question, lambda: answer().to_json()))
    else:
        solution = answer()
    context.progress("solve", 1.0, f"{solution.solver}: {solution.certificate.status}")
    return solution


def _confirmed(
    study: Planning, table: SensitivityTable, problem: Problem, solution: Solution, cache: tuple[CacheChoice, ...]
) -> tuple[Solution, Measured | None]:
    """Measure the solution beside uniform plans; the best feasible uniform one replaces it if it measures better."""
    if study.calibration is None or not study.request.confirm or study.inventory.task == "unknown":
        return solution, None
    beside = baselines(problem, solution.choice, study.request.seed)
    joint = None if cache else _joint(study, table, problem, solution)
    measured, taken = confirm(study, table, solution, beside, cache, joint)
    choice, words = solution.choice, solution.solver
    if taken == "joint" and joint is not None:
        choice, words = joint.choice, "pairs, by measurement"
    if taken == "feasible_uniform" and beside.below is not None:
        choice, words = beside.below, f"{solution.solver}, uniform by measurement"
    if choice is solution.choice:
        return solution, measured
    certificate = certify(problem, choice, solution.certificate.multipliers)
    return Solution(np.asarray(choice), certificate.loss, certificate, words, solution.info), measured


def _joint(study: Planning, table: SensitivityTable, problem: Problem, solution: Solution) -> Joint | None:
    """The plan with pair terms, decided once where the job may run again from its start."""
    if not shared(study.context):
        return joint_plan(study, table, problem, solution)

    def told() -> dict[str, Any] | None:
        found = joint_plan(study, table, problem, solution)
        return None if found is None else {**vars(found), "choice": found.choice.tolist()}

    question = {**_key(study.request, table), "joint": solution.choice.tolist()}
    kept = once(study.context, question, told)
    return None if kept is None else Joint(**{**kept, "choice": np.array(kept["choice"], np.int64)})
