"""Plans of rows, columns and groups: from the request to a checkpoint that reads back as planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.core.errors import Unsupported
from bitwright.core.formats import MixedFormat, parse_format
from bitwright.core.plan import load_plan, plan_from_json
from bitwright.core.plan_check import verify_plan
from bitwright.core.table import load_table
from quantizers.containers.catalog import CONTAINERS
from tests.steps.bench import TOKENS, Bench

MENU = ["int2-g64", "int3-g64", "int4-g64", "int6-g64"]
DATA_FREE = {"metric": "weight-mse", "confirm": False}


@pytest.fixture(scope="module")
def rows(bench: Bench, llama: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A plan by rows at 3 bits a weight, with its checkpoint at `out`."""
    out = tmp_path_factory.mktemp("rows") / "packed"
    result = bench.run(
        "plan", out=out, model=llama, budget="3bpw", formats=MENU, granularity="row", calibration=str(bench.text),
        to="packed", **TOKENS,
    )  # fmt: skip
    return {**result, "out": out}


def test_a_row_plan_keeps_its_budget_in_true_bytes(rows: dict[str, Any]) -> None:
    totals = rows["plan"]["totals"]
    assert 2.999 < totals["bits_per_weight"] <= 3.0
    assert totals["file_bytes"] == rows["checkpoint"]["file_bytes"]
    for unit in rows["plan"]["units"]:
        format = parse_format(unit["format"])
        assert isinstance(format, MixedFormat)
        assert unit["bytes"] == format.storage(tuple(unit["shape"])).bytes
    assert any(len(parse_format(unit["format"]).members) > 2 for unit in rows["plan"]["units"])  # type: ignore[attr-defined]


def test_few_calibration_tokens_are_warned_of(rows: dict[str, Any]) -> None:
    assert any("few for granularity row" in text for text in rows["plan"]["warnings"])


def test_a_row_plan_is_verified_with_its_table(rows: dict[str, Any], bench: Bench) -> None:
    plan = plan_from_json(rows["plan"])
    table = load_table(bench.context().blobs.path("tables", rows["table_digest"]))
    verdict = verify_plan(plan, table.problem(plan.certificate["limits"]["bytes"]))
    assert verdict.ok, verdict.failures
    text = plan.units[0].format
    forged = text[:-1] + ("1" if text[-1] == "0" else "0")
    units = (plan.units[0].model_copy(update={"format": forged}), *plan.units[1:])
    assert not verify_plan(plan.model_copy(update={"units": units}), table.problem(None)).ok


def test_the_checkpoint_is_the_plan_row_by_row(rows: dict[str, Any], bench: Bench, llama: str) -> None:
    stored = CONTAINERS.load("packed").read(rows["out"]).formats()
    assert {unit["name"]: unit["format"] for unit in rows["plan"]["units"]} == {n: f.name for n, f in stored.items()}
    kl = [
        bench.run("evaluate", model=llama, tokens=1024, **what)["quality"]["kl"]
        for what in ({"plan": rows["plan"]}, {"checkpoint": str(rows["out"])})
    ]
    assert kl[0] == pytest.approx(kl[1], rel=1e-6)


def test_another_choice_of_the_same_counts_is_not_already_there(
    rows: dict[str, Any], bench: Bench, llama: str, tmp_path: Path
) -> None:
    from bitwright.core.errors import InvalidInput

    plan = rows["plan"]
    text = plan["units"][0]["format"]
    swapped = text.partition("@")[0] + "@" + text.partition("@")[2][::-1]
    other = {**plan, "units": [{**plan["units"][0], "format": swapped}, *plan["units"][1:]]}
    assert bench.run("execute", out=rows["out"], model=llama, plan=plan)["checkpoint"]["file_bytes"]
    with pytest.raises(InvalidInput, match="not empty"):
        bench.run("execute", out=rows["out"], model=llama, plan=other)


def test_many_parts_lie_beside_the_plan(rows: dict[str, Any], tmp_path: Path) -> None:
    plan = plan_from_json(rows["plan"])
    many = plan.units[0].model_copy(update={"format": "row(int2-g64,int3-g64)@" + "01" * 10_001})
    plan = plan.model_copy(update={"units": (many, *plan.units[1:])})
    plan.save(tmp_path / "plan.json")
    assert (tmp_path / "plan.units.npz").is_file()
    assert load_plan(tmp_path / "plan.json").digest == plan.digest


@pytest.mark.parametrize("granularity", ["row:8", "column", "column:64", "group"])
@pytest.mark.parametrize("quantizer", ["rtn", "gptq"])
def test_every_granularity_is_planned_and_executed(
    bench: Bench, models_dir: Path, granularity: str, quantizer: str, tmp_path: Path
) -> None:
    result = bench.run(
        "plan", out=tmp_path / "out", model=str(models_dir / "mixtral-stdlib"), budget="3.2bpw",
        formats=["int2-g64", "int4-g64"], granularity=granularity, quantizer=quantizer, calibration_tokens=256,
        to="packed", **DATA_FREE,
    )  # fmt: skip
    assert result["checkpoint"]["file_bytes"] == result["plan"]["totals"]["file_bytes"]
    assert verify_plan(plan_from_json(result["plan"])).ok
    widths = {float(parse_format(unit["format"]).bits) for unit in result["plan"]["units"]}
    assert len(widths) > 3


def test_a_whole_file_budget_holds_with_rows(bench: Bench, llama: str, tmp_path: Path) -> None:
    result = bench.run(
        "plan", out=tmp_path / "out", model=llama, budget="1.9MB", formats=MENU, granularity="row", to="packed",
        **DATA_FREE,
    )  # fmt: skip
    assert 1_850_000 < result["checkpoint"]["file_bytes"] <= 1_900_000


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"engine": "vllm"}, "one format a tensor"),
        ({"to": "compressed-tensors"}, "one format a tensor"),
        ({"formats": [f"int{b}-g{g}" for b in (2, 3, 4) for g in (32, 64, 128)]}, "fewer formats"),
        ({"formats": ["int2-g60"], "granularity": "group"}, "does not fit"),
        ({"formats": ["q4_0"]}, "cannot be stored"),
    ],
)
def test_what_cannot_hold_rows_says_so(bench: Bench, llama: str, more: dict[str, Any], why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        bench.run("plan", **{"model": llama, "budget": "3bpw", "granularity": "row", **DATA_FREE, **more})


def test_the_same_request_gives_the_same_plan(bench: Bench, llama: str, tmp_path: Path) -> None:
    plans = [
        Bench(tmp_path / name).run("plan", model=llama, budget="3bpw", formats=MENU, granularity="row", **DATA_FREE)
        for name in ("a", "b")
    ]
    assert plans[0]["plan_digest"] == plans[1]["plan_digest"]
    assert np.array_equal(*[[u["format"] for u in plan["plan"]["units"]] for plan in plans])
