"""The main job: a model and a budget in; a certified, measured plan and a checkpoint out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.core.errors import InvalidPlan, NotFound, UnknownName, Unsupported
from bitwright.core.formats import parse_format
from bitwright.core.plan import plan_from_json
from bitwright.core.plan_check import verify_plan
from bitwright.core.table import load_table
from tests.steps.bench import TOKENS, Bench
from worker.steps.baselines import uniform_neighbours


def test_the_first_run_scores_and_measures(bench: Bench, planned: dict[str, Any]) -> None:
    """What `worked` looks for is really said, so that its absence later means something."""
    assert bench.worked() == {"score", "measure"}


def test_the_plan_keeps_its_budget_and_uses_it(planned: dict[str, Any]) -> None:
    totals = planned["plan"]["totals"]
    assert totals["bits_per_weight"] <= 3.5
    assert totals["bits_per_weight"] > 3.49


def test_bytes_are_the_exact_storage_of_each_format(planned: dict[str, Any]) -> None:
    for unit in planned["plan"]["units"]:
        assert unit["bytes"] == parse_format(unit["format"]).storage(tuple(unit["shape"])).bytes


def test_the_plan_is_verified_against_its_table_by_code_that_shares_nothing_with_solvers(
    planned: dict[str, Any], bench: Bench
) -> None:
    plan = plan_from_json(planned["plan"])
    table = load_table(bench.context().blobs.path("tables", planned["table_digest"]))
    verdict = verify_plan(plan, table.problem(plan.certificate["limits"]["bytes"]))
    assert verdict.ok, verdict.failures
    assert plan.certificate["status"] == "optimal"


def test_a_plan_with_a_changed_format_does_not_verify(planned: dict[str, Any]) -> None:
    plan = plan_from_json(planned["plan"])
    other = "int2-g64" if plan.units[0].format != "int2-g64" else "int3-g64"
    forged = plan.model_copy(update={"units": (plan.units[0].model_copy(update={"format": other}), *plan.units[1:])})
    assert not verify_plan(forged).ok


def test_the_measured_plan_beats_the_uniform_plan_that_fits(planned: dict[str, Any]) -> None:
    measured = planned["plan"]["measured"]
    assert measured["stderr"] > 0
    assert measured["tokens"] == 2048
    assert measured["kl"] < 0.7 * measured["extra"]["feasible_uniform"]["kl"]
    assert measured["uniform"]["bytes"] >= planned["plan"]["totals"]["bytes"]


def test_first_and_last_high_is_measured_within_the_same_limit(planned: dict[str, Any]) -> None:
    plan = planned["plan"]
    thumb = plan["measured"]["extra"]["positional"]
    assert thumb["bytes"] <= plan["certificate"]["limits"]["bytes"]
    assert thumb["stderr"] > 0
    assert plan["measured"]["kl"] < thumb["kl"]
    assert plan["totals"]["predicted_loss"] <= thumb["predicted_loss"]


def test_prediction_is_near_the_measurement(planned: dict[str, Any]) -> None:
    ratio = planned["plan"]["totals"]["predicted_loss"] / planned["plan"]["measured"]["kl"]
    assert 0.6 < ratio < 1.6


def test_another_budget_does_not_score_again(bench: Bench, planned: dict[str, Any], llama: str, text: str) -> None:
    bench.said.clear()
    again = bench.run("plan", model=llama, budget="3.0bpw", calibration=text, confirm=False, **TOKENS)
    assert again["table_digest"] == planned["table_digest"]
    assert bench.worked() == set()
    assert again["plan"]["totals"]["bits_per_weight"] <= 3.0


def test_a_job_that_runs_again_neither_scores_nor_measures_again(
    bench: Bench, planned: dict[str, Any], llama: str, text: str
) -> None:
    bench.said.clear()
    again = bench.run("plan", model=llama, budget="3.5bpw", calibration=text, **TOKENS)
    assert bench.worked() == set()
    assert again["plan"] == planned["plan"]


def test_same_inputs_and_seed_give_the_same_digest_in_another_state_folder(
    planned: dict[str, Any], llama: str, text: str, tmp_path: Path
) -> None:
    again = Bench(tmp_path).run("plan", model=llama, budget="3.5bpw", calibration=text, **TOKENS)
    assert again["plan_digest"] == planned["plan_digest"]
    assert plan_from_json(again["plan"]).digest == planned["plan_digest"]


def test_an_infeasible_budget_is_an_answer_with_the_smallest_budget(
    bench: Bench, llama: str, text: str, planned: dict[str, Any]
) -> None:
    result = bench.run("plan", model=llama, budget="2.0bpw", calibration=text, **TOKENS)
    assert not result["feasible"]
    smallest = result["infeasible"]["smallest_budget"]["bpw"]
    fits = bench.run("plan", model=llama, budget=f"{smallest}bpw", calibration=text, confirm=False, **TOKENS)
    assert fits["feasible"]
    assert {unit["format"] for unit in fits["plan"]["units"]} == {"int2-g64"}


def test_a_budget_below_every_plan_is_refused_before_anything_is_scored(bench: Bench, llama: str) -> None:
    bench.said.clear()
    result = bench.run("plan", model=llama, budget="2.0bpw", quantizer="gptq", seed=977)
    assert not result["feasible"]
    assert result["table_digest"] is None
    assert result["infeasible"]["smallest_budget"]["bpw"] > 2
    assert not {"calibrate", "score"} & {stage for stage, _ in bench.said}


def test_a_budget_in_bytes_bounds_the_whole_file(
    bench: Bench, llama: str, text: str, planned: dict[str, Any], tmp_path: Path
) -> None:
    limit = 2_100_000
    result = bench.run(
        "plan",
        model=llama,
        budget=f"{limit}B",
        calibration=text,
        confirm=False,
        to="packed",
        out=tmp_path / "out",
        **TOKENS,
    )
    checkpoint = result["checkpoint"]
    on_disk = sum((tmp_path / "out" / name).stat().st_size for name in checkpoint["files"])
    assert on_disk == checkpoint["file_bytes"] == result["plan"]["totals"]["file_bytes"]
    assert 0.98 * limit < on_disk <= limit


def test_an_engine_cuts_the_menu_and_applies_its_ties(bench: Bench, llama: str, text: str) -> None:
    result = bench.run(
        "plan", model=llama, budget="4.4bpw", engine="vllm", metric="weight-mse", calibration=text, confirm=False
    )
    units = {unit["name"]: unit["format"] for unit in result["plan"]["units"]}
    assert all("-sym-" in name or name in {"bf16", "fp16"} for name in units.values())
    for layer in range(6):
        stem = f"model.layers.{layer}.self_attn."
        assert len({units[f"{stem}{role}_proj.weight"] for role in "qkv"}) == 1


def test_the_worse_of_two_measured_plans_is_not_returned(
    bench: Bench, llama: str, text: str, planned: dict[str, Any]
) -> None:
    """Squared error knows nothing of the function: where its plan loses to uniform, uniform is returned."""
    result = bench.run(
        "plan", model=llama, budget="3.4bpw", metric="weight-mse", calibration=text,
        formats=["int2-g64", "int3-g64", "int8-g64"],
        confirm_tokens=1024,
    )  # fmt: skip
    measured = result["plan"]["measured"]
    formats = {unit["format"] for unit in result["plan"]["units"]}
    assert (measured.get("fallback") is not None) == (
        formats == {"int3-g64"} and "uniform" in result["plan"]["provenance"]["solver"]
    )
    assert measured["kl"] <= measured["extra"]["feasible_uniform"]["kl"]
    left = measured["extra"].get("mixed")
    assert (left is None) == (measured.get("fallback") is None)
    assert left is None or left["kl"] > measured["kl"]


def test_uniform_neighbours_bracket_the_choice(bench: Bench, planned: dict[str, Any]) -> None:
    table = load_table(bench.context().blobs.path("tables", planned["table_digest"]))
    problem = table.problem(planned["plan"]["certificate"]["limits"]["bytes"])
    choice = np.array([table.formats.index(unit["format"]) for unit in planned["plan"]["units"]])
    below, above = uniform_neighbours(problem, choice)
    assert below is not None
    assert above is not None
    assert table.formats[int(below[0])] == "int3-g64"
    assert table.formats[int(above[0])] == "int4-g64"


def test_a_container_that_one_engine_reads_is_planned_for_that_engine(
    bench: Bench, llama: str, text: str, tmp_path: Path
) -> None:
    """Regression: the default menu is asymmetric, which compressed-tensors cannot hold; the job failed at its end."""
    result = bench.run(
        "plan", model=llama, budget="4.5bpw", metric="weight-mse", calibration=text, confirm=False,
        to="compressed-tensors", out=tmp_path / "out",
    )  # fmt: skip
    assert result["plan"]["engine"] == "transformers"
    assert any("compressed-tensors" in warning for warning in result["plan"]["warnings"])
    assert (tmp_path / "out" / "config.json").is_file()


def test_unknown_names_and_impossible_wishes_are_typed(bench: Bench, llama: str) -> None:
    with pytest.raises(UnknownName, match="metric"):
        bench.run("plan", model=llama, budget="3bpw", metric="fischer")
    with pytest.raises(UnknownName, match="recipe"):
        bench.run("plan", model=llama, budget="3bpw", recipe="nothing")
    with pytest.raises(UnknownName, match="engine"):
        bench.run("plan", model=llama, budget="3bpw", engine="nothing")
    with pytest.raises(Unsupported, match="loads one format"):
        bench.run("plan", model=llama, budget="3bpw", granularity="column", engine="transformers")


def test_a_server_reads_no_bare_paths(bench: Bench, llama: str, text: str) -> None:
    with pytest.raises(Exception, match="bare paths"):
        bench.run("inspect", model=llama, allow_path=False)


def test_a_missing_stored_text_is_not_found(bench: Bench, llama: str) -> None:
    with pytest.raises(NotFound):
        bench.run("plan", model=llama, budget="3bpw", calibration="sha256:" + "0" * 64)


def test_execute_refuses_the_plan_of_another_model(
    bench: Bench, planned: dict[str, Any], models_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidPlan, match="another model"):
        bench.run("execute", model=str(models_dir / "vit-digits"), plan=planned["plan"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_execute_refuses_missing_units(bench: Bench, planned: dict[str, Any], llama: str, tmp_path: Path) -> None:
    short = {**planned["plan"], "units": planned["plan"]["units"][1:]}
    with pytest.raises(InvalidPlan, match="units"):
        bench.run("execute", model=llama, plan=short, out=tmp_path / "out")


def test_a_packed_checkpoint_measures_as_its_plan(
    bench: Bench, planned: dict[str, Any], llama: str, models_dir: Path, tmp_path: Path
) -> None:
    bench.run("execute", model=llama, plan=planned["plan"], to="packed", out=tmp_path / "out")
    heldout = {"text": str(models_dir / "text" / "test.txt"), "tokens": 2048}
    by_plan = bench.run("evaluate", model=llama, plan=planned["plan"], **heldout)["quality"]
    by_file = bench.run("evaluate", model=llama, checkpoint=str(tmp_path / "out"), **heldout)["quality"]
    assert by_file["kl"] == pytest.approx(by_plan["kl"], rel=1e-6)


def test_evaluate_without_a_plan_gives_the_original_model(bench: Bench, llama: str, models_dir: Path) -> None:
    quality = bench.run("evaluate", model=llama, text=str(models_dir / "text" / "test.txt"), tokens=1024)["quality"]
    assert quality["kl"] == 0.0
    assert quality["extra"]["perplexity"] == quality["extra"]["perplexity_original"] < 100
