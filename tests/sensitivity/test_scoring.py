"""`score` and its catalog: contract of every metric, provenance, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bitwright.core.errors import InvalidCalibration, InvalidInput, InvalidModel, NotFinite, UnknownName, Unsupported
from bitwright.core.formats import parse_format
from bitwright.core.table import load_table
from quantizers.rtn import QUANTIZER
from sensitivity.catalog import METRICS
from sensitivity.deltas import Deltas, unit_weight
from sensitivity.scoring import score
from tests.sensitivity.tiny_models import DATA, Opened, calibrated, changed, token_data

FORMATS = ("int2-g32", "int8-g32", "fp16")


@pytest.mark.parametrize("entry", list(METRICS), ids=lambda entry: entry.name)
def test_contract(tiny: dict[str, Opened], entry, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    model = "mixtral" if entry.traits.get("models") == "experts" else "llama"
    table = score(
        *tiny[model], FORMATS, metric=entry.name, calibration=calibrated(DATA[model]()), seed=1,
        progress=lambda stage, fraction, message: told.append((stage, fraction)),
    )  # fmt: skip
    assert (table.metric, table.formats) == (entry.name, FORMATS)
    assert table.loss.dtype == table.stderr.dtype == np.float64
    assert (table.loss[:, 0] > table.loss[:, 1]).mean() > 0.9
    assert (table.loss[:, 2] == 0).all()
    assert (np.nan_to_num(table.stderr) >= 0).all()
    assert told
    assert all(0 <= fraction <= 1 for _, fraction in told)
    assert {"metric", "parameters", "quantizer", "seed", "calibration", "numerics", "warnings"} <= set(table.provenance)
    json.dumps(dict(table.provenance), allow_nan=False)
    table.save(tmp_path / "t.npz")
    assert load_table(tmp_path / "t.npz").digest == table.digest


#: Metrics that look at linear layers have nothing to see in GPT-2, and `lrp` knows some kinds of layers only.
REFUSED = {
    "gpt2": {
        "fisher-token", "fisher-pooled", "grad-output", "taylor", "hessian", "hessian-trace", "kron", "salience",
        "awq-scale", "lrp", "output-kl", "gptq-loss",
    },
    "deepseek": {"lrp"},
}  # fmt: skip


@pytest.mark.parametrize("model", ["gpt2", "opt", "deepseek", "gpt-neox"])
@pytest.mark.parametrize("entry", list(METRICS), ids=lambda entry: entry.name)
def test_any_architecture_gets_a_table_or_a_reason(tiny: dict[str, Opened], entry, model: str) -> None:
    """Weights outside linears, items flattened into one list, latent attention: scored, or refused by a typed error."""
    calibration = calibrated(DATA[model]())
    if entry.name in REFUSED.get(model, set()) or (entry.traits.get("models") == "experts" and model != "deepseek"):
        with pytest.raises(Unsupported) as refused:
            score(*tiny[model], FORMATS, metric=entry.name, calibration=calibration, seed=1)
        assert refused.value.expected or refused.value.hint
    else:
        table = score(*tiny[model], FORMATS, metric=entry.name, calibration=calibration, seed=1)
        assert np.isfinite(table.loss).all()


def test_weight_mse_is_the_squared_error(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["mixtral"]
    table = score(source, inventory, FORMATS, metric="weight-mse")
    for row, unit in enumerate(inventory.units):
        weight = unit_weight(source, unit)
        for column, name in enumerate(FORMATS):
            error = QUANTIZER.quantize(weight, parse_format(name)).dequantize().astype(np.float64) - weight
            assert table.loss[row, column] == pytest.approx((error**2).sum(), rel=1e-12)
    assert (table.stderr == 0).all()
    assert table.provenance["calibration"] is None


def test_errors_that_do_not_fit_in_memory_are_made_again(tiny: dict[str, Opened]) -> None:
    formats = tuple(parse_format(name) for name in FORMATS)
    kept, again = (Deltas(*tiny["llama"], formats, "rtn", keep_bytes=limit) for limit in (1 << 30, 0))
    assert kept.stack(3) is kept.stack(3)
    assert again.stack(3) is not again.stack(3)
    assert np.array_equal(kept.stack(3), again.stack(3))


def test_bad_requests(tiny: dict[str, Opened]) -> None:
    calibration = calibrated(DATA["llama"]())
    with pytest.raises(UnknownName, match="metric"):
        score(*tiny["llama"], FORMATS, metric="fischer", calibration=calibration)
    with pytest.raises(UnknownName, match="format"):
        score(*tiny["llama"], ("int9",), calibration=calibration)
    with pytest.raises(UnknownName, match="quantizer"):
        score(*tiny["llama"], FORMATS, calibration=calibration, quantizer="none")
    with pytest.raises(InvalidCalibration, match="needs calibration"):
        score(*tiny["llama"], FORMATS)
    with pytest.raises(InvalidInput, match="no such option"):
        score(*tiny["llama"], FORMATS, calibration=calibration, options={"tokens": 5})
    with pytest.raises(InvalidInput, match="positive"):
        score(*tiny["llama"], FORMATS, calibration=calibration, samples=0)
    with pytest.raises(InvalidCalibration, match="empty"):
        score(*tiny["llama"], FORMATS, calibration=calibrated(token_data(0, 4)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_forward_of_nan_is_an_error(tmp_path: Path, value: float) -> None:
    opened = changed(tmp_path / "m", "model.norm.weight", value)
    with pytest.raises((NotFinite, InvalidModel)):
        score(*opened, FORMATS, calibration=calibrated(DATA["llama"]()))


def test_a_constant_model_cannot_be_scored(tmp_path: Path) -> None:
    from bitwright.core.errors import JobFailed

    opened = changed(tmp_path / "m", "model.norm.weight", 0.0)
    with pytest.raises(JobFailed, match="no planned unit has any influence"):
        score(*opened, FORMATS, calibration=calibrated(DATA["llama"]()))


def test_models_that_cannot_be_run_say_why(tmp_path: Path) -> None:
    source, inventory = changed(tmp_path / "m", "model.norm.weight", 1.0)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "model_type": "brand-new", "auto_map": {}}))
    with pytest.raises(Unsupported, match="transformers cannot load"):
        score(source, inventory, FORMATS, calibration=calibrated(DATA["llama"]()))
    (tmp_path / "m" / "config.json").unlink()
    with pytest.raises(InvalidModel, match=r"config\.json"):
        score(source, inventory, FORMATS, calibration=calibrated(DATA["llama"]()))
