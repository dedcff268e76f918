"""The cache of sensitivities: a new format computes its own column, and a miss says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitwright.core.table import SensitivityTable, load_table
from tests.sensitivity.tiny_models import save_model
from tests.steps.bench import Bench

THREE = ["int2-g32", "int3-g32", "int4-g32"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).integers(0, 50, (40, 16)))
    save_model("mixtral", tmp_path / "model")
    return Bench(tmp_path / "state")


def scored(bench: Bench, formats: list[str], **members: object) -> SensitivityTable:
    bench.said.clear()
    folder = bench.settings.state_dir.parent
    request = {"model": str(folder / "model"), "calibration": str(folder / "ids.npy"), "calibration_tokens": 128}
    result = bench.run("sensitivity", formats=formats, **{"samples": 2, **request, **members})
    return load_table(bench.context().blobs.path("tables", result["table_digest"]))


def told(bench: Bench) -> str:
    return "\n".join(message for stage, message in bench.said if stage == "score")


def test_a_new_format_computes_its_own_column(bench: Bench, tmp_path: Path) -> None:
    first = scored(bench, THREE[:2])
    assert "not scored here before" in told(bench)
    found = scored(bench, THREE)
    assert "2 of 3 formats were scored before; new: int4-g32" in told(bench)
    quantized = [message for stage, message in bench.said if stage == "quantize"]
    assert len(quantized) == len(found.inventory.units), "one pass, for one column"
    assert np.array_equal(found.extras["as_measured"][:, :, :2], first.extras["as_measured"])
    assert np.array_equal(found.extras["signed"][:, :, :2], first.extras["signed"])
    whole = scored(Bench(tmp_path / "other"), THREE)
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-4)
    np.testing.assert_allclose(found.extras["resampled"], whole.extras["resampled"], rtol=1e-4)
    runs = [scored(Bench(tmp_path / str(number)), some) for number, some in enumerate((THREE[:2], THREE[2:]))]
    anchors = [(total, kl) for run in runs for _, total, kl, _ in run.provenance["response"]["points"]]
    points = [(total, kl) for _, total, kl, _ in found.provenance["response"]["points"]]
    np.testing.assert_allclose(points, anchors, rtol=1e-3)
    scored(bench, [THREE[2], THREE[0]])
    assert "scored" not in told(bench), "columns in another order need no model"
    assert not bench.worked()


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"seed": 1}, "the seed: 0 -> 1"),
        ({"samples": 3}, "label samples: 2 -> 3"),
        ({"metric": "hessian"}, "the metric: fisher -> hessian"),
        ({"calibration_tokens": 256}, "calibration tokens: 128 -> 256"),
        ({"quantizer": "clip"}, "the quantizer changed"),
    ],
)
def test_a_miss_says_what_is_different(bench: Bench, members: dict[str, object], why: str) -> None:
    scored(bench, THREE[:1])
    scored(bench, THREE[:1], **members)
    assert "differs from the nearest table kept" in told(bench)
    assert why in told(bench)


def test_changed_files_are_told(bench: Bench) -> None:
    scored(bench, THREE[:1], metric="weight-mse")
    save_model("llama", bench.settings.state_dir.parent / "model")
    scored(bench, THREE[:1], metric="weight-mse")
    assert "the model's files changed" in told(bench)


def test_pooled_metrics_compute_all_columns_together(bench: Bench) -> None:
    scored(bench, THREE[:2], metric="fisher-pooled")
    scored(bench, THREE, metric="fisher-pooled")
    assert "the formats, scored together here changed" in told(bench)
