"""Pair terms from probes, against the divergence of units that are really changed together."""

from __future__ import annotations

import numpy as np
import pytest

from quantizers.rtn import QUANTIZER
from sensitivity.base import silent
from sensitivity.doubt import joint_loss
from sensitivity.evaluate import measure
from sensitivity.pooling import as_measured
from sensitivity.scoring import score
from sensitivity.sketches import pair_terms, sketch
from tests.sensitivity.tiny_models import Opened, calibrated, token_data

FORMATS = ("int3-g32", "int4-g32")


def test_pairs_predict_what_two_units_cost_together(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["llama"]
    data, units = token_data(12, 24), (0, 3, 6, 9, 12)
    cells = [(unit, 1) for unit in units]
    found = sketch(source, inventory, QUANTIZER, FORMATS, cells, data, seed=1, progress=silent)
    products = found.products()
    np.testing.assert_allclose(np.diagonal(products) / 2, found.kl, rtol=0.25)

    def of(*changed: int) -> list[str]:
        return [FORMATS[1] if i in changed else "fp16" for i in range(len(inventory.units))]

    variants = {f"{u}": of(u) for u in units}
    variants |= {f"{u} {v}": of(u, v) for u in units for v in units if u < v}
    kl = {name: quality.kl for name, quality in measure(source, inventory, variants, data).items()}
    np.testing.assert_allclose([kl[f"{u}"] for u in units], found.kl, rtol=1e-3)
    pairs, columns, loss = pair_terms(cells, products)
    assert (columns == 1).all()
    extra = [kl[f"{u} {v}"] - kl[f"{u}"] - kl[f"{v}"] for u, v in pairs.tolist()]
    assert np.corrcoef(extra, loss)[0, 1] > 0.9
    assert np.abs(np.array(extra) - loss).max() < 0.2 * found.kl.max()


def test_the_joint_prediction_is_the_sum_where_units_do_not_interact(tiny: dict[str, Opened]) -> None:
    table = as_measured(score(*tiny["llama"], FORMATS, calibration=calibrated(token_data(8, 12)), seed=2))
    signed, choice = table.extras["signed"], np.zeros(len(table.loss), np.int64)
    additive = float(table.loss[:, 0].sum())
    apart = np.zeros((len(table.loss) * len(signed), *signed.shape[1:]), np.float32)
    for unit in range(len(table.loss)):
        some = slice(unit * len(signed), (unit + 1) * len(signed))
        apart[some, unit] = signed[:, unit] * len(table.loss) ** 0.5
    assert joint_loss(table.loss, apart, choice) == pytest.approx(additive, rel=1e-4)
    cross = 0.5 * (signed[:, :, 0].astype(np.float64).sum(axis=1) ** 2).mean()
    assert joint_loss(table.loss, signed, choice) == pytest.approx(cross, rel=1e-6)
