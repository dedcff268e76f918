"""Plans with pair terms, for budgets so small that errors of units no longer simply add up.

Made only below LOW_BITS code bits, or when the joint prediction of the additive plan (from the signed samples of its
table) differs from the additive one by more than APART; never for mixtures of experts, where cross terms from probes
made plans worse (research/08, conclusion 7). Whether it is taken is for the measurement to say (confirm.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import solvers
from bitwright.core.canonical import digest_json
from bitwright.core.formats import Format, parse_format
from bitwright.core.inventory import Inventory
from bitwright.core.mixed_format import is_finer
from bitwright.core.problem import IntArray, Pairs, Problem
from bitwright.core.requests import PlanRequest
from bitwright.core.solution import Solution
from bitwright.core.table import SensitivityTable
from sensitivity.base import numerics
from sensitivity.data import Data
from sensitivity.doubt import joint_loss
from sensitivity.memory import too_large
from sensitivity.pooling import samples_of
from sensitivity.sketches import Cell, pair_terms, sketch
from worker.steps.study import Study

LOW_BITS, APART = 2.5, 1 / 3
#: Tokens of the probes: as many as these positions over all cells allow, and none of it below the least.
PROBE_TOKENS, POSITIONS, LEAST_TOKENS = 1024, 1 << 20, 256
#: Items at most, of models whose items are single positions.
PROBE_ITEMS = 128
#: Columns that are probed: those of the plan and their neighbours, at most so many, the narrowest first.
COLUMNS = 4
SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class Joint:
    """A plan made with pair terms. predicted: its joint loss; of_plan: that of the additive plan; why: what asked."""

    choice: IntArray
    predicted: float
    of_plan: float
    why: str


def joint_plan(
    study: Study[PlanRequest], table: SensitivityTable, problem: Problem, solution: Solution
) -> Joint | None:
    """None where pair terms are not asked for or cost too much."""
    why = reason(table, solution.choice) if _able(study.inventory, table, problem) else None
    if why is None or study.calibration is None:
        return None
    cells = probed_cells(table, problem, solution.choice)
    data = _probe_data(study.calibration.scoring, len(cells))
    if data is None:
        return None
    products = _products(study, table, cells, data)
    paired = replace(problem, pairs=Pairs(*pair_terms(cells, products)))
    found = solvers.solve(paired, "pairs", time_limit=SECONDS, seed=study.request.seed)
    if not found.feasible:
        return None
    rows = np.arange(problem.n)
    first, second = (
        float(problem.loss[rows, choice].sum()) + paired.pairs.total(choice)
        for choice in (found.choice, solution.choice)
    )
    return Joint(found.choice, first, second, why)


def reason(table: SensitivityTable, choice: IntArray) -> str | None:
    """Why a plan is made again with pair terms; None: it is not."""
    bits = code_bits(table, choice)
    if bits <= LOW_BITS:
        return f"{bits:.3g} code bits a weight are at most {LOW_BITS}"
    _, signed = samples_of(table)
    if signed is None or is_finer(table.granularity):
        return None
    additive = float(table.loss[np.arange(len(choice)), choice].sum())
    together = joint_loss(table.loss, signed, choice)
    if abs(together - additive) > APART * additive:
        return f"the joint prediction {together:.3g} is far from the sum {additive:.3g}"
    return None


def code_bits(table: SensitivityTable, choice: IntArray) -> float:
    """Bits of the codes alone, a weight."""
    widths = np.array([_width(parse_format(name)) for name in table.formats])
    elements = np.array([table.inventory.units[i].elements for i in table.row_units], np.float64)
    return float((widths[choice] * elements).sum() / elements.sum())


def _width(format: Format) -> float:
    return float(getattr(format, "width", format.bits))


def _able(inventory: Inventory, table: SensitivityTable, problem: Problem) -> bool:
    """Dense models of known outputs that fit in memory, whole tensors with one menu, losses in nats."""
    outputs = inventory.task in ("causal-lm", "image-classification", "text-classification")
    dense = all(unit.expert is None for unit in inventory.units)
    plain = (
        problem.loss.shape == table.loss.shape
        and not table.menus
        and not is_finer(table.granularity)
        and not len(problem.pairs)
    )
    return outputs and dense and plain and table.loss_unit.startswith("nats") and not too_large(inventory)


def probed_cells(table: SensitivityTable, problem: Problem, choice: IntArray) -> list[Cell]:
    """Every unit in the columns of the plan and the next ones, where it may take them."""
    order = np.argsort(table.cost_bytes().sum(axis=0), kind="stable")
    rank = {int(column): at for at, column in enumerate(order)}
    used = sorted({rank[int(column)] for column in choice})
    near = sorted({at + step for at in used for step in (-1, 0, 1) if 0 <= at + step < len(order)})[:COLUMNS]
    columns = [int(order[at]) for at in near]
    return [
        (unit, column) for unit in range(problem.n) for column in columns if np.isfinite(problem.loss[unit, column])
    ]


def _probe_data(scoring: Data, cells: int) -> Data | None:
    a_item = max(1.0, scoring.tokens / max(1, scoring.items))
    tokens = min(PROBE_TOKENS, POSITIONS // max(1, cells))
    if tokens < LEAST_TOKENS:
        return None
    return scoring.take(np.arange(min(scoring.items, PROBE_ITEMS, max(1, round(tokens / a_item)))))


def _products(
    study: Study[PlanRequest], table: SensitivityTable, cells: Sequence[Cell], data: Data
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Mean products of the sketches, remembered by everything that can change them."""
    inventory, maker, seed, progress = study.inventory, study.maker, study.request.seed, study.context.progress
    key = {
        "sketches": [list(cell) for cell in cells], "model": inventory.digest, "formats": list(table.formats),
        "units": [unit.name for unit in inventory.units], "data": data.digest, "quantizer": maker.key, "seed": seed,
        "numerics": numerics(),
    }  # fmt: skip

    def build(path: Path) -> None:
        found = sketch(study.source, inventory, maker, table.formats, cells, data, seed=seed, progress=progress)
        with path.open("wb") as file:
            np.save(file, found.products())

    loaded: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = np.load(
        study.context.blobs.memo("sketches", digest_json(key), build), allow_pickle=False
    )
    return loaded
