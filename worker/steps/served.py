"""Plans that no engine serves are labelled, with what they would gain over the plan that one does."""

from __future__ import annotations

import solvers
from bitwright.core.inventory import Inventory
from bitwright.core.mixed_format import is_finer
from bitwright.core.problem import Problem
from bitwright.core.requests import PlanRequest
from bitwright.core.solution import Solution
from bitwright.core.table import SensitivityTable
from bitwright.engines import EngineProfile, shipped_profiles

#: The loosest rule for experts that some engine has: those of a role in a block share a format (llama.cpp, MLX).
LOOSEST = "expert_role"
#: The tied plan is only compared with: a bound of it is enough.
COMPARE_SECONDS = 2.0
_EXPERT_KINDS = frozenset({"expert", "expert_role", "experts", "all_experts"})


def serves_free_experts(profile: EngineProfile) -> bool:
    """Whether the engine loads quantized experts each in a format of its own."""
    rules = (*profile.ints, *profile.blocks)
    return not _EXPERT_KINDS & set(profile.tie_kinds) and any("expert" in rule.classes for rule in rules)


def expert_words(
    request: PlanRequest, inventory: Inventory, table: SensitivityTable, problem: Problem, solution: Solution
) -> tuple[str, ...]:
    """A warning when experts of one role differ and no engine loads that: what tying them would cost."""
    ties = inventory.tie_ids((LOOSEST,))
    if is_finer(table.granularity) or len(solution.choice) != len(ties) or len(set(ties)) == len(ties):
        return ()
    formats: dict[int, set[int]] = {}
    for tie, column in zip(ties, solution.choice.tolist(), strict=True):
        formats.setdefault(tie, set()).add(column)
    uneven = sum(len(columns) > 1 for columns in formats.values())
    if not uneven or any(serves_free_experts(profile) for profile in shipped_profiles().values()):
        return ()
    limit = next((limit.value for limit in problem.limits if limit.name == "bytes"), None)
    tied = solvers.solve(
        table.problem(None if limit is None else int(limit), tie_kinds=(LOOSEST,)), "auto",
        time_limit=min(request.time_limit, COMPARE_SECONDS), seed=request.seed,
    )  # fmt: skip
    words = f"no known engine serves this plan: experts differ within a role in {uneven} places"
    if not tied.feasible or tied.loss is None or solution.loss is None:
        return (f"{words}; tied by role, nothing fits the budget",)
    gain = float(tied.loss) - float(solution.loss)
    return (
        f"{words}; tied by role, as llama.cpp and MLX load them, the best plan of the same bytes is predicted to lose "
        f"{tied.loss:.4g} instead of {solution.loss:.4g} (uneven experts gain {gain:.4g}): plan with --engine",
    )
