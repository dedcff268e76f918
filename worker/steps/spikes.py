"""Lower bounds for layers whose inputs hold activation spikes (sensitivity/spike.py), when a request asks for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.core.canonical import digest_json
from bitwright.core.errors import InvalidInput
from bitwright.core.formats import parse_formats
from bitwright.core.requests import PlanRequest
from sensitivity.base import ScoringTask, numerics
from sensitivity.data import Data
from sensitivity.deltas import Deltas
from sensitivity.spike import THRESHOLD, find_spikes, floors
from worker.steps.study import Study

NAMED = 4


def spike_floors(study: Study[PlanRequest]) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """(cells that stay allowed, units by formats; what to tell). (None, ()) when the request asks for none.

    Raises InvalidInput where there is no data to look for spikes in.
    """
    least, inventory = study.request.spike_bits, study.inventory
    if least is None:
        return None, ()
    if study.calibration is None:
        raise InvalidInput(
            "spikes are found on calibration data, and this plan uses none", got=f"spike_bits {least}",
            hint="use a metric with data (fisher), or leave --spike-bits out",
        )  # fmt: skip
    kappa = _kappa(study, study.calibration.scoring)
    pinned = kappa > THRESHOLD
    named = ", ".join(
        f"{inventory.units[i].name} ({kappa[i]:.0f})" for i in np.argsort(-kappa)[: min(NAMED, int(pinned.sum()))]
    )
    words = (
        f"{int(pinned.sum())} of {len(pinned)} layers have activation spikes above {THRESHOLD:g} times their usual size"
    )
    told = f"{words} and keep at least {least:g} stored bits a weight: {named}" if pinned.any() else words
    return floors(inventory, study.menu.formats, pinned, least), (told,)


def _kappa(study: Study[PlanRequest], data: Data) -> NDArray[np.float64]:
    """How large the spikes of every unit's inputs are, remembered."""
    source, inventory, context = study.source, study.inventory, study.context
    key = {
        "spikes": [unit.name for unit in inventory.units], "model": inventory.digest, "numerics": numerics(),
        "data": data.digest,
    }  # fmt: skip

    def build(path: Path) -> None:
        formats = parse_formats(study.menu.formats[:1])
        deltas = Deltas(source, inventory, formats, study.maker)
        task = ScoringTask(source, inventory, formats, deltas, data, study.request.seed, 1, {}, context.progress)
        with path.open("wb") as file:
            np.save(file, find_spikes(task).kappa)

    found: NDArray[np.float64] = np.load(context.blobs.memo("spikes", digest_json(key), build), allow_pickle=False)
    return found
