"""The library face: the nouns of the command line as functions, run in this process.

Heavy parts (pydantic, torch) are imported by the functions that need them: `bitwright solve` stays fast.

Everything here raises `bitwright.BitwrightError`. Work that was done before (headers, scores) is taken from the cache
under `BITWRIGHT_STATE_DIR` (default ./.bitwright). `progress(stage, fraction, message)` is called while work goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.core.certificate import Verdict
from bitwright.core.claim import Certificate
from bitwright.core.errors import InvalidPlan, from_problem
from bitwright.core.problem import Problem
from bitwright.core.problem_file import load_problem
from bitwright.core.solution import Solution, load_solution, verify_solution

if TYPE_CHECKING:
    from bitwright.core.inventory import Inventory
    from bitwright.core.plan import Plan
    from bitwright.core.table import SensitivityTable
    from bitwright.engines.answer import Preflight
    from solvers.frontier import Frontier
    from worker.steps.context import Context, Progress
    from worker.steps.importing import ImportedPlan


@dataclass(frozen=True)
class PlanResult:
    """A plan, the digest of the sensitivity table it came from, and the checkpoint if one was written."""

    plan: Plan
    table_digest: str
    checkpoint: Mapping[str, Any] | None = None


def _context(progress: Progress | None, out: str | Path | None = None) -> Context:
    from bitwright.settings import load_settings
    from worker.steps.context import Context, silent

    return Context(load_settings(), progress or silent, allow_path=True, out_dir=None if out is None else Path(out))


def _run(kind: str, context: Context, members: Mapping[str, Any]) -> dict[str, Any]:
    from bitwright.core.requests import parse_request
    from worker.steps import run

    given = {key: value for key, value in members.items() if value is not None}
    return run(parse_request({"kind": kind, **given}), context)


def inspect(model: str | Path, *, progress: Progress | None = None) -> Inventory:
    """Units, shapes, ties, bytes and coverage of a model, from its headers alone."""
    from bitwright.core.inventory import Inventory

    return Inventory.from_json(_run("inspect", _context(progress), {"model": str(model)})["inventory"])


def score(
    model: str | Path, *, out: str | Path | None = None, progress: Progress | None = None, **options: Any
) -> SensitivityTable:
    """The sensitivity table of a model.

    Options: metric, formats, quantizer, calibration, calibration_tokens, samples, engine, recipe, seed.
    """
    from bitwright.core.table import load_table

    context = _context(progress)
    result = _run("sensitivity", context, {"model": str(model), **options})
    table = load_table(context.blobs.path("tables", result["table_digest"]))
    if out is not None:
        table.save(out)
    return table


def plan(
    model: str | Path,
    budget: str,
    *,
    out: str | Path | None = None,
    checkpoint_out: str | Path | None = None,
    problem_out: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> PlanResult:
    """A certified, measured plan within a budget such as "3.5bpw" or "120MB". Raises Infeasible with the smallest one.

    problem_out: a file for the problem that the plan answers, the recipe's limits and rules included, for `verify`.

    Options are those of `score`, and solver, recipe, granularity, time_limit, confirm, confirm_tokens, to, spike_bits.
    """
    from bitwright.core.plan import plan_from_json

    context = _context(progress, checkpoint_out)
    if problem_out is not None:
        context = replace(context, problem_out=Path(problem_out))
    result = _run("plan", context, {"model": str(model), "budget": budget, **options})
    if not result["feasible"]:
        raise from_problem(result["infeasible"])
    found = plan_from_json(result["plan"])
    if out is not None:
        found.save(out)
    return PlanResult(found, result["table_digest"], result["checkpoint"])


def solve(
    problem: Problem | str | Path,
    *,
    solver: str = "auto",
    time_limit: float = 10.0,
    seed: int = 0,
    out: str | Path | None = None,
) -> Solution:
    """The certified solution of a problem; `certificate.status` is `infeasible` when nothing fits."""
    import solvers

    loaded = problem if isinstance(problem, Problem) else load_problem(problem)
    solution = solvers.solve(loaded, solver, time_limit=time_limit, seed=seed)
    if out is not None:
        solution.save(out)
    return solution


def frontier(source: SensitivityTable | Problem | str | Path, **options: Any) -> Frontier:
    """Every budget at once, from a sensitivity table or a problem (or a file of either)."""
    from bitwright.core.table import SensitivityTable
    from solvers.frontier import frontier as build

    loaded = load_source(Path(source)) if isinstance(source, str | Path) else source
    return build(loaded.problem(None) if isinstance(loaded, SensitivityTable) else loaded, **options)


def load_source(path: Path) -> SensitivityTable | Problem:
    """A file of either kind, told apart by what it holds."""
    from bitwright.core.npz import read_npz
    from bitwright.core.table import load_table

    if path.suffix == ".npz" and path.is_file() and "meta" in read_npz(path):
        return load_table(path)
    return load_problem(path)


def verify(
    subject: Plan | Solution | str | Path, problem: Problem | SensitivityTable | str | Path | None = None
) -> Verdict:
    """Recompute a plan or solution with none of the solver's code. A solution needs its problem; a plan may have it.

    problem: for a plan its sensitivity table does as well: menu and ties are the plan's own.
    """
    loaded = _load_subject(Path(subject)) if isinstance(subject, str | Path) else subject
    given = None if problem is None else answered_problem(loaded, problem)
    if isinstance(loaded, Solution):
        if given is None:
            raise InvalidPlan("a solution can only be verified against its problem", hint="add --problem PROBLEM.npz")
        return verify_solution(given, loaded)
    from bitwright.core.plan_check import verify_plan

    return verify_plan(loaded, given)


def answered_problem(subject: Plan | Solution | str | Path, source: Problem | SensitivityTable | str | Path) -> Problem:
    """A problem as it is, or the one that a plan made of a sensitivity table answers."""
    loaded = load_source(Path(source)) if isinstance(source, str | Path) else source
    if isinstance(loaded, Problem):
        return loaded
    from bitwright.engines.proving import plan_problem

    made = _load_subject(Path(subject)) if isinstance(subject, str | Path) else subject
    return loaded.problem(None) if isinstance(made, Solution) else plan_problem(made, loaded)


def _load_plan(plan: Plan | str | Path) -> Plan:
    if not isinstance(plan, str | Path):
        return plan
    from bitwright.core.plan import load_plan

    return load_plan(plan)


def _load_subject(path: Path) -> Plan | Solution:
    if not path.is_file():
        raise InvalidPlan("there is no such file", got=str(path))
    try:
        head = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidPlan("the file is not JSON", expected="a plan or a solution", got=str(error)[:80]) from error
    return _load_plan(path) if isinstance(head, dict) and "bitwright_plan" in head else load_solution(path)


def execute(
    model: str | Path,
    plan: Plan | str | Path,
    *,
    to: str = "packed",
    out: str | Path,
    calibration: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Carry a plan out into a checkpoint folder; read back and compared before it appears under its name.

    calibration: for plans of a calibrated quantizer (gptq, clip), the text that the plan was made with.
    """
    loaded = _load_plan(plan)
    text = None if calibration is None else str(calibration)
    members = {"model": str(model), "plan": loaded.to_json(), "to": to, "calibration": text}
    checkpoint: dict[str, Any] = _run("execute", _context(progress, out), members)["checkpoint"]
    return checkpoint


def evaluate(
    model: str | Path,
    *,
    plan: Plan | str | Path | None = None,
    checkpoint: str | Path | None = None,
    text: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Measured quality of a plan or checkpoint against the original (KL, perplexity, agreement ... by task)."""
    loaded = None if plan is None else _load_plan(plan)
    members = {
        "model": str(model),
        "plan": None if loaded is None else loaded.to_json(),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "text": None if text is None else str(text),
        **options,
    }
    return _run("evaluate", _context(progress), members)


def import_plans(
    model: str | Path,
    source: str | Path,
    *,
    kind: str | None = None,
    metric: str = "weight-mse",
    formats: Sequence[str] = (),
    engine: str | None = None,
    progress: Progress | None = None,
) -> ImportedPlan:
    """The mix of another tool's checkpoint, GGUF file or --tensor-type-file of this model: as a plan, and the best plan
    of the same formats in no more bytes, where there is a better one.

    engine: what the better plan must load in; None for the engine whose file it is.
    """
    from worker.steps.importing import import_plan as read

    return read(str(model), Path(source), _context(progress), kind=kind, metric=metric, formats=formats, engine=engine)


def import_plan(model: str | Path, source: str | Path, *, out: str | Path | None = None, **options: Any) -> Plan:
    """The mix alone, as `import_plans` reads it. Its warnings say what a better plan would lose."""
    plan = import_plans(model, source, **options).plan
    if out is not None:
        plan.save(out)
    return plan


def preflight(
    plan: Plan | str | Path,
    engine: str,
    *,
    device: str | None = None,
    model: str | Path | None = None,
    table: SensitivityTable | str | Path | None = None,
) -> Preflight:
    """Does `engine` (NAME[@VERSION]) load the plan? Every reason why not, and the nearest plan that would load.

    model: compare with its digest and units too, else the plan alone is judged. table: for the predicted loss of the
    nearest plan, and for the best plan of the same bytes that would load.
    """
    import solvers
    from bitwright.core.table import load_table
    from bitwright.engines.answer import answer
    from bitwright.engines.best import BEST_SECONDS
    from bitwright.models.planned import inventory_of

    def solve(problem: Problem) -> Solution:
        return solvers.solve(problem, "auto", time_limit=BEST_SECONDS)

    loaded = _load_plan(plan)
    known = load_table(table) if isinstance(table, str | Path) else table
    found = inventory_of(loaded) if model is None else inspect(model)
    return answer(loaded, found, engine, device=device, table=known, solve=solve)


def export(plan: Plan | str | Path, target: str, **options: Any) -> str:
    """The plan in another tool's own syntax, names exact and anchored. Raises Unsupported for what it cannot say."""
    from bitwright.engines import export_plan

    return export_plan(_load_plan(plan), target, **options)


__all__ = [
    "Certificate",
    "PlanResult",
    "evaluate",
    "execute",
    "export",
    "frontier",
    "import_plan",
    "import_plans",
    "inspect",
    "plan",
    "preflight",
    "score",
    "solve",
    "verify",
]
