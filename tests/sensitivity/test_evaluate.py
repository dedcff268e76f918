"""Measured quality against naive formulas, written out position by position."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from bitwright.core.errors import InvalidCalibration, InvalidPlan, NotFinite, UnknownName
from bitwright.core.formats import parse_format
from sensitivity.data import Data
from sensitivity.deltas import unit_weight
from sensitivity.evaluate import measure, measure_checkpoint
from sensitivity.quality import share_with_interval, wilson_interval
from sensitivity.runner import load_runner
from tests.sensitivity.tiny_models import DATA, Opened, calibrated

FORMATS = ("int2-g32", "int3-sym-g32", "int8-g32")


def _outputs(opened: Opened, formats: list[str] | None, data: Data) -> list[torch.Tensor]:
    """The model's output for each item alone, its weights quantized by hand."""
    from quantizers.rtn import QUANTIZER

    source, inventory = opened
    runner = load_runner(source, inventory)
    with torch.no_grad():
        for unit, format in zip(inventory.units, formats or (), strict=formats is not None):
            quantized = QUANTIZER.quantize(unit_weight(source, unit), parse_format(format)).dequantize()
            runner.slices[unit.name].view(runner.parameters).copy_(torch.from_numpy(quantized))
        return [runner.output(data.take(np.array([i]))).double()[0] for i in range(data.items)]


def _mixed(opened: Opened) -> list[str]:
    return [FORMATS[i % len(FORMATS)] for i in range(len(opened[1].units))]


def _kl(first: torch.Tensor, second: torch.Tensor) -> float:
    p, q = first.softmax(-1), second.softmax(-1)
    return sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_language_models(tiny: dict[str, Opened], name: str) -> None:
    data, formats = DATA[name](), _mixed(tiny[name])
    before, after = _outputs(tiny[name], None, data), _outputs(tiny[name], formats, data)
    found = measure(*tiny[name], {"original": None, "mixed": formats}, data)
    items = [np.mean([_kl(p, q) for p, q in zip(a, b, strict=True)]) for a, b in zip(before, after, strict=True)]
    quality = found["mixed"]
    assert quality.kl == pytest.approx(np.mean(items), rel=1e-4)
    assert quality.stderr == pytest.approx(np.std(items, ddof=1) / math.sqrt(len(items)), rel=1e-4)
    assert (quality.tokens, quality.unit) == (data.tokens, "nats of KL per token")
    for key, outputs in (("perplexity_original", before), ("perplexity", after)):
        ids = data.inputs["input_ids"]
        losses = [
            -float(out[t].log_softmax(-1)[row[t + 1]])
            for out, row in zip(outputs, ids, strict=True)
            for t in range(len(row) - 1)
        ]
        assert quality.extra[key] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    same = [
        bool(p.argmax() == q.argmax()) for a, b in zip(before, after, strict=True) for p, q in zip(a, b, strict=True)
    ]
    assert quality.extra["agreement"] == pytest.approx(np.mean(same))
    low, high = quality.extra["agreement_interval"]
    assert low <= quality.extra["agreement"] <= high
    assert (found["original"].kl, found["original"].stderr, found["original"].extra["agreement"]) == (0.0, 0.0, 1.0)


def test_classifiers(tiny: dict[str, Opened]) -> None:
    data, formats = DATA["vit"](), _mixed(tiny["vit"])
    before, after = _outputs(tiny["vit"], None, data), _outputs(tiny["vit"], formats, data)
    quality = measure(*tiny["vit"], {"mixed": formats}, data)["mixed"]
    items = [_kl(a, b) for a, b in zip(before, after, strict=True)]
    assert quality.kl == pytest.approx(np.mean(items), rel=1e-4)
    assert quality.stderr == pytest.approx(np.std(items, ddof=1) / math.sqrt(len(items)), rel=1e-4)
    right = [int(out.argmax()) == label for out, label in zip(after, data.labels, strict=True)]
    assert quality.extra["accuracy"] == pytest.approx(np.mean(right))
    assert "accuracy" not in measure(*tiny["vit"], {"m": formats}, Data("images", data.inputs))["m"].extra


def test_embeddings(tiny: dict[str, Opened]) -> None:
    data, formats = DATA["bert"](), _mixed(tiny["bert"])
    before, after = (torch.stack(_outputs(tiny["bert"], f, data)).numpy() for f in (None, formats))
    quality = measure(*tiny["bert"], {"mixed": formats}, data)["mixed"]
    assert quality.kl == pytest.approx(1 - (before * after).sum(1).mean(), rel=1e-4)
    pairs = np.triu_indices(data.items, 1)
    expected = spearmanr((before @ before.T)[pairs], (after @ after.T)[pairs]).statistic
    assert quality.extra["spearman"] == pytest.approx(expected)
    assert quality.unit == "cosine distance per sentence"


def test_chunks_and_batches_change_nothing(tiny: dict[str, Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    data, variants = DATA["llama"](), {"mixed": _mixed(tiny["llama"])}
    whole = measure(*tiny["llama"], variants, data)["mixed"]
    monkeypatch.setattr("sensitivity.evaluate.KEPT_BYTES", 1)
    monkeypatch.setattr("sensitivity.evaluate.BATCH_BYTES", 1)
    assert measure(*tiny["llama"], variants, data)["mixed"].kl == pytest.approx(whole.kl, rel=1e-4)


def test_confirming_part_is_what_a_calibration_is_measured_on(tiny: dict[str, Opened]) -> None:
    calibration, variants = calibrated(DATA["llama"]()), {"mixed": _mixed(tiny["llama"])}
    told: list[float] = []
    found = measure(
        *tiny["llama"], variants, calibration, progress=lambda stage, fraction, message: told.append(fraction)
    )
    assert found == measure(*tiny["llama"], variants, calibration.confirming)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_written_checkpoint_measures_as_its_plan(tiny: dict[str, Opened], tmp_path) -> None:
    from quantizers.containers.catalog import CONTAINERS

    source, inventory = tiny["mixtral"]
    data, formats = DATA["mixtral"](), _mixed(tiny["mixtral"])
    CONTAINERS.load("packed").write(source, inventory, [parse_format(f) for f in formats], tmp_path / "out")
    planned = measure(source, inventory, {"plan": formats}, data)["plan"]
    assert measure_checkpoint(source, inventory, tmp_path / "out", data) == planned
    with pytest.raises(InvalidPlan, match="another model"):
        measure_checkpoint(*tiny["llama"], tmp_path / "out", DATA["llama"]())


def test_wrong_variants_and_data_are_refused(tiny: dict[str, Opened]) -> None:
    data = DATA["llama"]()
    with pytest.raises(InvalidPlan, match="does not fit"):
        measure(*tiny["llama"], {"short": ["int2-g32"]}, data)
    with pytest.raises(UnknownName):
        measure(*tiny["llama"], {"odd": ["int9-g32"] * len(tiny["llama"][1].units)}, data)
    with pytest.raises(InvalidCalibration):
        measure(*tiny["llama"], {"o": None}, data.take(np.array([], np.int64)))


def test_nan_output_is_an_error(tiny: dict[str, Opened]) -> None:
    class Breaks:
        name = "breaks"

        def quantize(self, weight, format, **context):
            self.shape = weight.shape
            return self

        def dequantize(self):
            return np.full(self.shape, np.inf, np.float32)

    source, inventory = tiny["llama"]
    with pytest.raises(NotFinite, match="NaN or infinity"):
        measure(source, inventory, {"b": ["bf16"] * len(inventory.units)}, DATA["llama"](), quantizer=Breaks())


def test_intervals() -> None:
    low, high = wilson_interval(0.5, 100)
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson_interval(1.0, 10)[0] == pytest.approx(0.7225, abs=1e-4)
    share, (below, above) = share_with_interval(np.array([0.2, 0.8, 0.2, 0.8]), 4000)
    assert share == pytest.approx(0.5)
    assert above - below > 0.3
