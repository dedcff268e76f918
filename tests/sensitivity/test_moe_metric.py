"""MC-MoE's product: whole experts at once, and calibration that reaches too few of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitwright.core.errors import InvalidCalibration, InvalidInput
from bitwright.core.formats import parse_format
from quantizers.rtn import QUANTIZER as RTN
from sensitivity.deltas import unit_weight
from sensitivity.moe import _require_traffic
from sensitivity.routing import run_block, watch
from sensitivity.runner import load_runner
from sensitivity.scoring import score
from tests.sensitivity.tiny_models import Opened, calibrated, token_data

FORMATS = ("int2-g32", "int4-g32")


def test_an_experts_matrices_quantized_together_share_one_error(tiny: dict[str, Opened]) -> None:
    """MC-MoE's own table: tied cells sum to phi w^1.5 eps of the whole expert."""
    source, inventory = tiny["mixtral"]
    data = calibrated(token_data(8, 32))
    found = score(source, inventory, FORMATS, metric="moe", calibration=data, options={"together": True})
    runner = load_runner(source, inventory)
    block = watch(runner, data.scoring)[0]
    number = int(block.frequency().argmax())
    units = list(block.experts[number])
    changed = {}
    for unit in units:
        spec = inventory.units[unit]
        changed[spec.name] = RTN.quantize(unit_weight(source, spec), parse_format(FORMATS[0])).dequantize()
    with runner.replaced(changed):
        after = run_block(runner, block, torch.arange(len(block.inputs)))
    eps = float((after - block.outputs).double().norm() / block.outputs.double().norm())
    expected = block.frequency()[number] * block.weight()[number] ** 1.5 * eps
    assert float(found.loss[units, 0].sum()) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(found.loss[units, 0], found.loss[units[0], 0])
    with pytest.raises(InvalidInput, match="together"):
        score(source, inventory, FORMATS, metric="moe", calibration=data, options={"together": 1})


def test_calibration_that_reaches_few_experts_is_refused(tiny: dict[str, Opened]) -> None:
    """Three of eight; the model's two blocks of four have two each, which is enough."""
    with pytest.raises(InvalidCalibration, match="too few experts") as error:
        _require_traffic([1.0, 0, 0, 0, 0.5, 0.5, 0, 0], 1)
    _require_traffic([0.5, 0.5, 0, 0, 0.5, 0.5, 0, 0], 1)
    found = score(*tiny["mixtral"], FORMATS, metric="moe", calibration=calibrated(token_data(1, 1)))
    assert len(found.provenance["unmeasured"]) == 2 * 2 * 3
    assert "--calibration-tokens" in str(error.value.hint)
