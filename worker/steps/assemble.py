"""From arrays to the plan document: names, exact bytes, totals, provenance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import bitwright
from bitwright.core.formats import parse_format
from bitwright.core.inventory import KEPT, Inventory
from bitwright.core.mixed_format import is_finer
from bitwright.core.plan import Measured, Plan, PlanModel, PlanUnit, Redrawn, Totals
from bitwright.core.problem import Problem
from bitwright.core.requests import PlanRequest
from bitwright.core.solution import Solution
from bitwright.core.table import SensitivityTable
from gpu_kernels.compute import device_words
from quantizers.containers.catalog import CONTAINERS
from worker.steps.bindings import bindings
from worker.steps.study import Study


def make_provenance(study: Study[PlanRequest], table: SensitivityTable, solution: Solution) -> dict[str, Any]:
    """Where the plan comes from; everything that somebody needs to make it again."""
    request, menu, calibration, maker = study.request, study.menu, study.calibration, study.maker
    return {
        "metric": table.metric,
        "loss_unit": table.loss_unit,
        "solver": solution.solver,
        "recipe": menu.recipe.name,
        "pruning": None if menu.recipe.pruning is None else menu.recipe.pruning.model_dump(),
        "quantizer": maker.name,
        "quantizer_options": dict(menu.quantizer_options) or None,
        "quantizer_calibration": maker.provenance(request, calibration),
        "formats": list(menu.formats),
        "granularity": menu.granularity if is_finer(menu.granularity) else None,
        "seed": request.seed,
        "calibration": calibration.digest if calibration is not None else None,
        "calibration_tokens": request.calibration_tokens,
        "samples": table.provenance.get("samples"),
        "table": table.digest,
        "version": bitwright.__version__,
        "device": device_words(),
    }


def build_plan(
    study: Study[PlanRequest],
    table: SensitivityTable,
    problem: Problem,
    solution: Solution,
    measured: Measured | None,
    provenance: dict[str, Any],
    warnings: tuple[str, ...] = (),
    redrawn: Redrawn | None = None,
) -> Plan:
    """The plan of a feasible solution. Sums are exact: bytes in integers, losses by fsum."""
    inventory, profile = study.inventory, study.menu.profile
    rows = _units(inventory, table, solution)
    total = sum(row.bytes for row in rows)
    return Plan(
        model=PlanModel(
            ref=inventory.ref, digest=inventory.digest, architecture=inventory.architecture, task=inventory.task
        ),
        units=tuple(rows),
        totals=Totals(
            bits_per_weight=8 * total / inventory.weights,
            bytes=total,
            unquantized_bytes=inventory.rest_bytes,
            predicted_loss=math.fsum(row.loss for row in rows),
            predicted_stderr=_root_sum(table, solution),
            file_bytes=_file_bytes(study, rows),
        ),
        certificate=solution.certificate.to_json(),
        bindings=bindings(problem, solution, table),
        redrawn=redrawn,
        measured=measured,
        engine=profile.name if profile else None,
        budget=study.request.budget,
        ties=tie_groups(problem),
        kept=tuple(tensor.name for tensor in inventory.rest if tensor.role == KEPT),
        warnings=(*study.menu.warnings, *table.provenance.get("warnings", ()), *warnings),
        provenance={key: value for key, value in provenance.items() if value is not None},
    )


def _file_bytes(study: Study[PlanRequest], rows: list[PlanUnit]) -> int | None:
    """Exact size of the checkpoint's weight files, when a container was asked for."""
    if study.request.to is None:
        return None
    formats = [parse_format(row.format) for row in rows]
    report = CONTAINERS.load(study.request.to).predict(study.inventory, formats, source=study.source)
    return int(report.file_bytes)


def _units(inventory: Inventory, table: SensitivityTable, solution: Solution) -> list[PlanUnit]:
    """Every unit with its format, exact bytes and predicted loss."""
    return [
        PlanUnit(
            name=unit.name,
            format=format,
            elements=unit.elements,
            bytes=parse_format(format).storage(unit.shape).bytes,
            loss=loss,
            stderr=stderr,
            shape=unit.shape,
            module=unit.module,
            layer=unit.layer,
            expert=unit.expert,
            rung=rung,
        )
        for unit, format, rung, (loss, stderr) in zip(
            inventory.units,
            table.unit_formats(solution.choice),
            _rungs(table, solution),
            _unit_losses(table, solution),
            strict=True,
        )
    ]


def _rungs(table: SensitivityTable, solution: Solution) -> list[str | None]:
    """The column of every unit, where its name is not that of the format."""
    if not table.menus:
        return [None] * len(table.inventory.units)
    return [table.formats[column] for column in solution.choice.tolist()]


def _unit_losses(table: SensitivityTable, solution: Solution) -> Iterator[tuple[float, float | None]]:
    """Loss and standard error of each unit: of its own cell, or over its parts, taken as independent."""
    rows = np.arange(len(solution.choice))
    losses, doubts = table.loss[rows, solution.choice].tolist(), table.stderr[rows, solution.choice].tolist()
    start = 0
    for count in table.part_counts:
        some = slice(start, start + count)
        doubt = math.hypot(*doubts[some])
        yield math.fsum(losses[some]), doubt if math.isfinite(doubt) else None
        start += count


def _root_sum(table: SensitivityTable, solution: Solution) -> float | None:
    """Standard error of the total, cells taken as independent; None when a cell's error is unknown."""
    cells = table.stderr[np.arange(len(solution.choice)), solution.choice]
    return float(math.sqrt(math.fsum((cells**2).tolist()))) if np.isfinite(cells).all() else None


def tie_groups(problem: Problem) -> tuple[tuple[int, ...], ...]:
    """Tie groups of more than one unit, as unit indices."""
    if problem.tie is None:
        return ()
    members: dict[int, list[int]] = {}
    for index, group in enumerate(problem.group_index.tolist()):
        members.setdefault(group, []).append(index)
    return tuple(tuple(group) for group in members.values() if len(group) > 1)
