"""Losses of parts against `fisher` of a quantizer that changes one part only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitwright.core.errors import Unsupported
from bitwright.core.formats import Format, IntFormat, parse_format
from bitwright.core.mixed_format import cut
from quantizers.base import Float32Matrix
from quantizers.mixed import InCut
from quantizers.rtn import QUANTIZER
from sensitivity.pooling import as_measured
from sensitivity.scoring import score
from tests.sensitivity.tiny_models import DATA, Opened, calibrated

FORMATS = ("int2-g16", "int4-g16")


class OnePart:
    """rtn, but all parts except one keep their weights."""

    name = "one-part"

    def __init__(self, granularity: str, part: int) -> None:
        self.granularity, self.part = granularity, part
        self.weight = np.zeros((0, 0), np.float32)

    def quantize(self, weight: Float32Matrix, format: Format, *, name: str = "", **context: Any) -> Any:
        assert isinstance(format, IntFormat)
        shape = (weight.shape[0], weight.shape[1])
        whole = InCut(QUANTIZER, self.granularity).quantize(weight, format, name=name).dequantize()
        found = cut(self.granularity, shape, (format,))
        lines = found.to_lines(weight, shape).copy()
        some = slice(self.part * found.block, (self.part + 1) * found.block)
        lines[some] = found.to_lines(whole, shape)[some]
        self.weight = found.to_matrix(lines, shape)
        return self

    def dequantize(self) -> Float32Matrix:
        return self.weight


@pytest.mark.parametrize(
    ("name", "granularity"),
    [
        ("llama", "row"), ("llama", "row:5"), ("llama", "column"), ("llama", "column:16"), ("llama", "group"),
        ("mixtral", "row"), ("vit", "row"), ("gpt2", "row"),
    ],
)  # fmt: skip
def test_a_part_is_a_unit_with_one_part_changed(tiny: dict[str, Opened], name: str, granularity: str) -> None:
    source, inventory = tiny[name]
    data = calibrated(DATA[name]())
    parts = score(source, inventory, FORMATS, calibration=data, samples=2, granularity=granularity)
    assert parts.loss.shape == (sum(parts.part_counts), 2) == (len(parts.row_names()), 2)
    for part in (0, 1):
        table = score(source, inventory, FORMATS, calibration=data, samples=2, quantizer=OnePart(granularity, part))
        table = as_measured(table)
        for number, unit in enumerate(inventory.units):
            if unit.name not in table.provenance["unmeasured"]:
                row = int(np.flatnonzero(parts.row_units == number)[part])
                np.testing.assert_allclose(parts.loss[row], table.loss[number], rtol=2e-3, atol=1e-12)
                np.testing.assert_allclose(parts.stderr[row], table.stderr[number], rtol=5e-3, atol=1e-12)


@pytest.mark.parametrize("granularity", ["row", "row:3", "column:16", "group"])
def test_squared_errors_of_parts_sum_to_the_units(tiny: dict[str, Opened], granularity: str) -> None:
    source, inventory = tiny["llama"]
    parts = score(source, inventory, FORMATS, metric="weight-mse", granularity=granularity)
    whole = score(source, inventory, FORMATS, metric="weight-mse")
    sums = np.zeros_like(whole.loss)
    np.add.at(sums, parts.row_units, parts.loss)
    np.testing.assert_allclose(sums, whole.loss, rtol=1e-5)


def test_parts_of_experts_that_saw_no_token_have_a_stated_loss(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["mixtral"]
    few = DATA["mixtral"]().take(np.array([0]))
    short = type(few)(few.kind, {"input_ids": few.inputs["input_ids"][:, :2]})
    table = score(source, inventory, FORMATS, calibration=calibrated(short), samples=1, granularity="row")
    missing = set(table.provenance["unmeasured"])
    assert missing
    rows = [number for number, unit in enumerate(table.row_units) if inventory.units[unit].name in missing]
    assert (table.loss[rows, 0] > 0).all()
    assert np.isnan(table.stderr[rows]).all()


@pytest.mark.parametrize("stream", [False, True])
def test_parts_whose_losses_are_rounding_have_a_stated_loss(tiny: dict[str, Opened], stream: bool) -> None:
    """Regression: rows of queries and keys of one position had 1e-28 nats, and would have lost all bits."""
    source, inventory = tiny["llama"]
    data = DATA["llama"]()
    short = type(data)(data.kind, {"input_ids": data.inputs["input_ids"][:, :1]})
    asked = {"calibration": calibrated(short), "granularity": "row", "options": {"stream": stream}}
    table = score(source, inventory, FORMATS, **asked)
    expected = {unit.name for unit in inventory.units if unit.module.endswith(("q_proj", "k_proj"))}
    assert set(table.provenance["unmeasured"]) == expected
    rows = [number for number, unit in enumerate(table.row_units) if inventory.units[unit].name in expected]
    assert (table.loss[rows, 0] > 1e-12).all()


def test_tables_of_parts_keep_their_granularity(tiny: dict[str, Opened], tmp_path: Any) -> None:
    from bitwright.core.table import load_table

    source, inventory = tiny["llama"]
    table = score(source, inventory, FORMATS, metric="weight-mse", granularity="row:8")
    table.save(tmp_path / "table.npz")
    loaded = load_table(tmp_path / "table.npz")
    assert (loaded.granularity, loaded.digest) == ("row:8", table.digest)
    fewer = inventory.keep({inventory.units[0].name}, "a test")
    cut_down = loaded.without_units(fewer)
    assert len(cut_down.loss) == len(loaded.loss) - loaded.part_counts[0]
    choice = np.zeros(len(cut_down.loss), np.int64)
    formats = [parse_format(name) for name in cut_down.unit_formats(choice)]
    assert [f.storage(u.shape).bytes for f, u in zip(formats, fewer.units, strict=True)] == [
        int(cut_down.cost_bytes()[cut_down.row_units == n, 0].sum()) for n in range(len(fewer.units))
    ]


def test_a_metric_without_parts_says_so(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["llama"]
    with pytest.raises(Unsupported, match="no losses of parts"):
        score(source, inventory, FORMATS, metric="hessian", calibration=calibrated(DATA["llama"]()), granularity="row")
