"""The quantizer of the request: seen by the scores, confirmed by measuring, carried out into a checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.core.errors import InvalidCalibration, InvalidInput, InvalidPlan, UnknownName
from bitwright.core.plan import plan_from_json
from quantizers.catalog import QUANTIZERS
from quantizers.containers.catalog import CONTAINERS
from sensitivity.base import NUMERICS, numerics
from tests.steps.bench import TOKENS, Bench
from worker.steps.quantizing import Maker

MENU = ["int2-g64", "int3-g64", "int4-g64"]


@pytest.fixture(scope="module")
def gptq(bench: Bench, llama: str, text: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A plan of gptq at 3 bits, with its checkpoint at `out`."""
    out = tmp_path_factory.mktemp("gptq") / "packed"
    result = bench.run(
        "plan", out=out, model=llama, budget="3bpw", formats=MENU, quantizer="gptq", calibration=text, to="packed",
        **TOKENS,
    )  # fmt: skip
    return {**result, "out": out}


def test_gptq_is_scored_measured_and_written_as_itself(gptq: dict[str, Any], bench: Bench, llama: str) -> None:
    plan, measured = gptq["plan"], gptq["plan"]["measured"]
    assert plan["provenance"]["quantizer"] == "gptq"
    assert measured["kl"] < measured["extra"]["feasible_uniform"]["kl"]
    tokens = {"tokens": 2048, "text": None}
    written = bench.run("evaluate", model=llama, checkpoint=str(gptq["out"]), **tokens)["quality"]["kl"]
    stated = bench.run("evaluate", model=llama, plan=plan, calibration=str(bench.text), **tokens)["quality"]["kl"]
    assert written == pytest.approx(stated, rel=1e-6)


def test_gptq_beats_rounding_of_the_same_plan(gptq: dict[str, Any], bench: Bench, llama: str) -> None:
    rounded = {**gptq["plan"], "provenance": {**gptq["plan"]["provenance"], "quantizer": "rtn"}}
    kl = [
        bench.run("evaluate", model=llama, plan=plan, calibration=str(bench.text), tokens=2048)["quality"]["kl"]
        for plan in (gptq["plan"], rounded)
    ]
    assert kl[0] < 0.5 * kl[1]


def test_what_another_device_made_is_kept_apart_and_told(
    gptq: dict[str, Any], bench: Bench, llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of what is kept, the checkpoint and the result; arithmetic itself stays on the CPU here."""
    asked = {"model": llama, "plan": gptq["plan"], "calibration": str(bench.text)}
    there, rounding = Maker(QUANTIZERS.load("gptq"), {}, "data"), Maker(QUANTIZERS.load("rtn"))
    before = [(maker.key, maker.context_key) for maker in (there, rounding)]
    for place in ("worker.steps.quantizing", "sensitivity.base"):
        monkeypatch.setattr(f"{place}.device_words", lambda: "cuda (some GPU)")
    assert (there.key, rounding.key) == ({**before[0][0], "device": "cuda (some GPU)"}, before[1][0])
    assert there.context_key != before[0][1]
    assert rounding.context_key == before[1][1]
    assert numerics() != NUMERICS
    out = tmp_path / "there"
    result = bench.run("execute", out=out, **asked)
    assert any("made on cuda (some GPU)" in word for word in result["checkpoint"]["warnings"])
    assert json.loads((out / "plan.json").read_bytes())["provenance"]["made_on"] == "cuda (some GPU)"
    assert plan_from_json(json.loads((out / "plan.json").read_bytes())).digest == plan_from_json(gptq["plan"]).digest
    with pytest.raises(InvalidInput, match="not empty"):
        bench.run("execute", out=gptq["out"], **asked)


def test_an_executed_gptq_plan_needs_the_data_of_the_plan(
    gptq: dict[str, Any], bench: Bench, llama: str, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    bench.run("execute", out=again, model=llama, plan=gptq["plan"], calibration=str(bench.text))
    first, second = (CONTAINERS.load("packed").read(path) for path in (gptq["out"], again))
    name = gptq["plan"]["units"][3]["name"]
    assert np.array_equal(first.quantized(name).codes, second.quantized(name).codes)
    with pytest.raises(InvalidCalibration, match="other calibration data"):
        bench.run("execute", out=tmp_path / "other", model=llama, plan=gptq["plan"])
    silent = {k: v for k, v in gptq["plan"]["provenance"].items() if k != "quantizer_calibration"}
    with pytest.raises(InvalidPlan, match="does not say"):
        bench.run("execute", out=tmp_path / "none", model=llama, plan={**gptq["plan"], "provenance": silent})
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", QUANTIZERS.names())
def test_every_quantizer_gives_a_plan_of_an_engine(bench: Bench, llama: str, text: str, quantizer: str) -> None:
    few = {"calibration_tokens": 512, "confirm_tokens": 512, "samples": 1}
    result = bench.run(
        "plan", model=llama, budget="3.2bpw", formats=["int2-sym-g64", "int4-sym-g64"], quantizer=quantizer,
        calibration=text, to="compressed-tensors", **few,
    )  # fmt: skip
    assert result["checkpoint"]["file_bytes"] == result["plan"]["totals"]["file_bytes"]
    assert plan_from_json(result["plan"]).provenance["quantizer"] == quantizer


def test_experts_without_tokens_are_said_to_be_quantized_without_data(bench: Bench, models_dir: Path) -> None:
    result = bench.run(
        "plan", model=str(models_dir / "mixtral-stdlib"), budget="3bpw", formats=["int2-g64", "int4-g64"],
        quantizer="gptq", metric="weight-mse", confirm=False, calibration_tokens=64,
    )  # fmt: skip
    said = [text for text in result["plan"]["warnings"] if "saw no calibration token" in text]
    assert len(said) == 1
    assert "experts" in said[0]


def test_an_unknown_quantizer_is_named(bench: Bench, llama: str) -> None:
    with pytest.raises(UnknownName, match="no quantizer"):
        bench.run("plan", model=llama, budget="3bpw", quantizer="gtpq")


def test_a_model_that_cannot_be_run_has_no_gptq(bench: Bench, llama: str, tmp_path: Path) -> None:
    config = json.loads((Path(llama) / "config.json").read_bytes())
    strange = {**config, "architectures": ["Strange"], "model_type": "strange"}
    (tmp_path / "config.json").write_text(json.dumps(strange))
    (tmp_path / "model.safetensors").write_bytes((Path(llama) / "model.safetensors").read_bytes())
    with pytest.raises(InvalidCalibration, match="needs calibration data"):
        bench.run("plan", model=str(tmp_path), budget="3bpw", quantizer="gptq")


def test_corrected_biases_are_measured_written_and_read_back(bench: Bench, models_dir: Path, tmp_path: Path) -> None:
    """On the model of images, whose layers all have a bias: less KL than rounding, in not one byte more."""
    vit, few = str(models_dir / "vit-digits"), {"calibration_tokens": 64, "confirm_tokens": 200}
    asked = {"model": vit, "budget": "3.3bpw", "formats": ["int3-g64"], "metric": "weight-mse", **few}
    result = bench.run("plan", quantizer="rtn-bias", to="packed", out=tmp_path / "moved", **asked)
    plain = bench.run("plan", quantizer="rtn", to="packed", out=tmp_path / "plain", **asked)
    assert result["plan"]["measured"]["kl"] < plain["plan"]["measured"]["kl"]
    assert result["plan"]["warnings"] == plain["plan"]["warnings"]
    assert result["checkpoint"]["file_bytes"] == plain["checkpoint"]["file_bytes"]
    moved, kept = (CONTAINERS.load("packed").read(tmp_path / name) for name in ("moved", "plain"))
    unit = result["plan"]["units"][0]["name"]
    assert np.array_equal(moved.quantized(unit).codes, kept.quantized(unit).codes)
    bias = unit.removesuffix("weight") + "bias"
    assert not np.array_equal(moved.raw(bias), kept.raw(bias))
    kl = [
        bench.run("evaluate", model=vit, tokens=100, **of)["quality"]["kl"]
        for of in ({"checkpoint": str(tmp_path / "moved")}, {"plan": result["plan"]})
    ]
    assert kl[0] == pytest.approx(kl[1], rel=1e-6)


def test_layers_without_a_bias_are_named(bench: Bench, llama: str, text: str) -> None:
    result = bench.run(
        "plan", model=llama, budget="3bpw", formats=["int2-g64", "int4-g64"], quantizer="rtn-bias",
        metric="weight-mse", confirm=False, calibration=text, calibration_tokens=64,
    )  # fmt: skip
    said = [words for words in result["plan"]["warnings"] if "no bias" in words]
    assert len(said) == 1
    assert "rtn-bias" in said[0]


def test_a_model_that_does_not_fit_is_calibrated_block_by_block(
    bench: Bench, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One walk for all passes, never the whole model; what a quantizer gets is what it gets of a model in memory."""
    from sensitivity import calibration as calibrations
    from worker.steps import quantizing

    model, context = str(models_dir / "vit-digits"), bench.context()
    source, inventory = context.open(model)
    data = calibrations.load(None, source, inventory, scoring_tokens=64, confirming_tokens=64)
    whole = quantizing.make_quantizer("gptq-bias", source, inventory, data, context)
    monkeypatch.setattr("sensitivity.memory.too_large", lambda inventory: True)
    monkeypatch.setattr("sensitivity.runner.load_runner", lambda *_: pytest.fail("the whole model was loaded"))
    walks: list[str] = []
    monkeypatch.setattr("sensitivity.input_walk.open_blocks", _counted(walks))
    apart = Bench(tmp_path).context()
    parts = quantizing.make_quantizer("gptq-bias", source, inventory, data, apart)
    assert len(walks) == 2  # the moments to fit, and those to judge by
    moments = sorted((tmp_path / "blobs").rglob("index.json"))
    assert len(moments) > 4
    for lost in (moments[0].parent, moments[-1].parent):  # a run that was stopped: the folders that it left are kept
        shutil.rmtree(lost)
    parts = quantizing.make_quantizer("gptq-bias", source, inventory, data, apart)
    for unit in inventory.units:
        first, second = (one.context(unit.name, unit.shape[1]) for one in (whole, parts))
        assert first.keys() == second.keys() == {"hessian", "held_out", "mean", "held_out_mean"}
        for key in first:
            assert np.allclose(first[key], second[key], rtol=1e-4, atol=1e-4 * np.abs(first[key]).max())


def _counted(walks: list[str]) -> Any:
    from sensitivity.blocks import open_blocks

    def opened(*args: Any) -> Any:
        walks.append("walk")
        return open_blocks(*args)

    return opened
