"""Plans and files that no engine serves are labelled, with what they would gain over the plan that one does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import solvers
from bitwright.core.inventory import Inventory
from bitwright.core.mixed_format import is_finer
from bitwright.core.problem import Problem
from bitwright.core.requests import PlanRequest
from bitwright.core.solution import Solution
from bitwright.core.table import SensitivityTable
from bitwright.engines import preflight, shipped_profiles
from quantizers.containers.catalog import CONTAINERS
from worker.steps.study import Study

#: The loosest rule for experts that some engine has: those of a role in a block share a format (llama.cpp, MLX).
LOOSEST = "expert_role"
#: The tied plan is only compared with: a bound of it is enough.
COMPARE_SECONDS = 2.0


def expert_words(
    study: Study[PlanRequest], table: SensitivityTable, problem: Problem, solution: Solution
) -> tuple[str, ...]:
    """A warning when experts of one role differ: who loads that, and what tying them would cost.

    Nothing is said of a plan that was made for an engine which loads it.
    """
    request, inventory = study.request, study.inventory
    ties = inventory.tie_ids((LOOSEST,))
    if is_finer(table.granularity) or table.menus or len(solution.choice) != len(ties) or len(set(ties)) == len(ties):
        return ()
    formats: dict[int, set[int]] = {}
    for tie, column in zip(ties, solution.choice.tolist(), strict=True):
        formats.setdefault(tie, set()).add(column)
    uneven = sum(len(columns) > 1 for columns in formats.values())
    if not uneven:
        return ()
    names = [table.formats[column] for column in solution.choice.tolist()]
    choice = {unit.name: name for unit, name in zip(inventory.units, names, strict=True)}
    fine = [name for name, profile in shipped_profiles().items() if not preflight(choice, inventory, profile)]
    if fine and request.engine is not None:
        return ()
    limit = next((limit.value for limit in problem.limits if limit.name == "bytes"), None)
    tied = solvers.solve(
        # Of the formats that the plan could choose from: a recipe's menus hold for the tied plan, too.
        table.problem(None if limit is None else int(limit), tie_kinds=(LOOSEST,), allowed=np.isfinite(problem.loss)),
        "auto", time_limit=min(request.time_limit, COMPARE_SECONDS), seed=request.seed,
    )  # fmt: skip
    who = f"of the engines known here {' and '.join(fine)} alone" if fine else "no known engine"
    words = f"{who} serves this plan: experts differ within a role in {uneven} places"
    if not tied.feasible or tied.loss is None or solution.loss is None:
        return (f"{words}; tied by role, nothing fits the budget",)
    gain = float(tied.loss) - float(solution.loss)
    # Rules of a recipe may cost more than the ties would.
    gained = f" (uneven experts gain {gain:.4g})" if gain > 0 else ""
    return (
        f"{words}; tied by role, as llama.cpp and MLX load them, the best plan of the same bytes is predicted to lose "
        f"{tied.loss:.4g} instead of {solution.loss:.4g}{gained}: plan with --engine",
    )


def file_words(choice: Mapping[str, str], inventory: Inventory, container: str) -> tuple[str, ...]:
    """A warning when the engine that a container is made for does not load this file, and who does.

    choice: unit name to format name. Containers without an engine (`packed`) say nothing.
    """
    own = CONTAINERS.get(container).traits.get("engine")
    if own is None:
        return ()
    names = dict.fromkeys((own, *(p.name for p in shipped_profiles().values() if p.container == container)))
    against = {name: preflight(choice, inventory, shipped_profiles()[name]) for name in names}
    if not against[own]:
        return ()
    fine = [name for name, reasons in against.items() if not reasons]
    said = "; ".join(f"{name}: {reasons[0]}" for name, reasons in against.items() if reasons)
    if fine:
        return (f"of the engines known here, {', '.join(fine)} loads this checkpoint, others do not ({said})",)
    return (f"no engine known here loads this checkpoint ({said}); `packed` holds it as well",)
