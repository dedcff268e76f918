"""Row losses against `fisher` of a quantizer that changes one row only."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.core.formats import parse_format
from quantizers.rtn import QUANTIZER
from sensitivity.base import ScoringTask, silent
from sensitivity.deltas import Deltas
from sensitivity.rows import row_losses
from sensitivity.scoring import score
from tests.sensitivity.tiny_models import DATA, Opened, calibrated

FORMATS = ("int2-g32", "int4-g32")


class OneRow:
    """rtn, but all rows except one keep their weights."""

    name = "one-row"

    def __init__(self, row: int) -> None:
        self.row = row
        self.weight = np.zeros(0, np.float32)

    def quantize(self, weight, format, *, name="", **context):
        self.weight = weight.copy()
        self.weight[self.row] = QUANTIZER.quantize(weight, format).dequantize()[self.row]
        return self

    def dequantize(self):
        return self.weight


@pytest.mark.parametrize("name", ["llama", "mixtral", "vit"])
def test_a_row_is_a_unit_with_one_row_changed(tiny: dict[str, Opened], name: str) -> None:
    source, inventory = tiny[name]
    data = DATA[name]()
    formats = tuple(parse_format(f) for f in FORMATS)
    task = ScoringTask(source, inventory, formats, Deltas(source, inventory, formats, "rtn"), data, 0, 2, {}, silent)
    rows = row_losses(task)
    assert {n: loss.shape for n, loss in rows.items()} == {u.name: (u.shape[0], 2) for u in inventory.units}
    for row in (0, 3):
        table = score(source, inventory, FORMATS, calibration=calibrated(data), samples=2, quantizer=OneRow(row))
        for number, unit in enumerate(inventory.units):
            if unit.name not in table.provenance["unmeasured"]:
                np.testing.assert_allclose(rows[unit.name][row], table.loss[number], rtol=2e-3, atol=1e-12)
