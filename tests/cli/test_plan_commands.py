"""The main job at the command line, here and on a server, on the small vision transformer and without data."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.cli import main
from bitwright.core.plan import load_plan

Capture = pytest.CaptureFixture[str]
#: Everything that makes a plan in seconds.
QUICK = ("--metric", "weight-mse", "--no-confirm", "--formats", "int2-g64,int4-g64,int8-g64")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State folder of the local commands: later commands take the scores of earlier ones."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(autouse=True)
def _local(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_STATE_DIR", str(state))


@pytest.fixture(scope="module")
def model() -> Path:
    return Path(__file__).resolve().parents[1] / "models" / "vit-digits"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[str]:
    """A real `bitwright serve`, worker and all."""
    folder = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-m", "bitwright", "serve", "--port", "0", "--state-dir", str(folder), "--json"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--root", f"tests={model.parent}"], stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def run(words: list[Any], capsys: Capture) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_inspect_accounts_for_every_byte(model: Path, capsys: Capture) -> None:
    code, text, _ = run(["inspect", model, "--json"], capsys)
    found = json.loads(text)
    coverage = found["coverage"]
    assert code == 0
    assert coverage["stored_bytes"] == coverage["planned_bytes"] + coverage["unquantized_bytes"]
    assert coverage["unquantized_bytes"] == sum(row["bytes"] for row in coverage["unquantized"])
    people = run(["inspect", model, "--units"], capsys)[1]
    assert all(unit["name"] in people for unit in found["units"])


def test_a_plan_is_written_verified_and_compared(model: Path, tmp_path: Path, capsys: Capture) -> None:
    small, large = tmp_path / "small.json", tmp_path / "large.json"
    code, text, _ = run(["plan", model, "--budget", "3bpw", *QUICK, "--out", small, "--json"], capsys)
    assert code == 0
    plan = load_plan(small)
    assert json.loads(text) == plan.to_json()
    assert plan.totals.bits_per_weight <= 3
    assert run(["verify", small], capsys)[0] == 0
    kept = tmp_path / "problem.npz"
    assert run(["plan", model, "--budget", "3bpw", *QUICK, "--problem-out", kept], capsys)[0] == 0
    code, text, _ = run(["verify", small, "--problem", kept], capsys)
    assert code == 0
    assert "the lower bound, which needs the problem" not in text
    shown = run(["plan", model, "--budget", "4.5bpw", *QUICK, "--out", large], capsys)[1]
    assert all(unit.name in shown for unit in plan.units)
    assert "certificate" in shown
    code, text, _ = run(["diff", small, large, "--json"], capsys)
    difference = json.loads(text)
    assert code == 0
    assert difference["bytes_delta"] == load_plan(large).totals.bytes - plan.totals.bytes > 0
    assert difference["loss_delta"] < 0
    assert difference["comparable"]
    assert "predicted loss" in run(["diff", small, large], capsys)[1]
    assert "same format" in run(["diff", small, small], capsys)[1]


def test_a_changed_plan_does_not_verify(model: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "plan.json"
    run(["plan", model, "--budget", "3bpw", *QUICK, "--out", path], capsys)
    document = json.loads(path.read_text())
    document["units"][0]["bytes"] -= 4
    path.write_text(json.dumps(document))
    code, text, _ = run(["verify", path, "--json"], capsys)
    assert code == 1
    assert json.loads(text)["ok"] is False


def test_an_infeasible_budget_exits_with_3_and_the_smallest_one(model: Path, capsys: Capture) -> None:
    code, text, err = run(["plan", model, "--budget", "1bpw", *QUICK, "--json"], capsys)
    problem = json.loads(text)
    assert code == 3
    smallest = problem["smallest_budget"]["bpw"]
    assert f"{smallest}bpw" in err
    assert run(["plan", model, "--budget", f"{smallest}bpw", *QUICK], capsys)[0] == 0


def test_score_writes_a_table_that_frontier_and_solve_read(model: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "table.npz"
    words = [
        "score",
        model,
        "--metric",
        "weight-mse",
        "--formats",
        "int2-g64,int4-g64,int8-g64",
        "--out",
        path,
        "--json",
    ]
    code, text, _ = run(words, capsys)
    table = json.loads(text)
    assert code == 0
    assert np.array(table["loss"]).shape == (len(table["units"]), 3)
    code, text, _ = run(["frontier", path, "--json"], capsys)
    assert code == 0
    assert {row["name"] for row in json.loads(text)["uniform"]} == set(table["formats"])


def test_execute_writes_a_checkpoint_of_the_predicted_size(model: Path, tmp_path: Path, capsys: Capture) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "checkpoint"
    run(["plan", model, "--budget", "3bpw", *QUICK, "--out", plan], capsys)
    code, text, _ = run(["execute", model, "--plan", plan, "--to", "packed", out, "--json"], capsys)
    assert code == 0
    assert json.loads(text)["container"] == "packed"
    assert any(out.iterdir())
    assert run(["execute", model, "--plan", plan], capsys)[0] == 2


def test_a_plan_with_a_checkpoint_says_where_it_is_and_still_reads_as_a_plan(
    model: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Regression: `plan --to ... --json` did not give the checkpoint."""
    out, saved = tmp_path / "checkpoint", tmp_path / "plan.json"
    words = ["plan", model, "--budget", "3bpw", *QUICK, "--to", "packed", "--checkpoint", out, "--json"]
    code, text, _ = run(words, capsys)
    assert code == 0
    assert json.loads(text)["checkpoint"]["path"] == str(out)
    assert json.loads(text)["checkpoint"]["file_bytes"] > 0
    saved.write_text(text)
    assert run(["verify", saved], capsys)[0] == 0


def test_export_takes_the_nearest_type_only_when_asked(model: Path, tmp_path: Path, capsys: Capture) -> None:
    plan = tmp_path / "plan.json"
    run(["plan", model.parent / "llama-stdlib", "--budget", "3bpw", *QUICK, "--out", plan], capsys)
    assert run(["export", plan, "--to", "llama.cpp"], capsys)[0] == 2
    code, text, err = run(["export", plan, "--to", "llama.cpp", "--nearest"], capsys)
    assert code == 0
    assert "blk" in text
    assert "int" in err  # each substitution is said
    assert run(["export", plan, "--to", "gptqmodel", "--nearest"], capsys)[0] == 2


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "nowhere"],
        ["plan", "{model}", "--budget", "fast"],
        ["plan", "{model}", "--budget", "0bpw"],
        ["plan", "{model}", "--budget", "3bpw", "--formats", "int99"],
        ["plan", "{model}", "--budget", "3bpw", "--metric", "guess"],
        ["plan", "{model}", "--budget", "3bpw", "--engine", "steam"],
        ["plan", "{model}", "--budget", "3bpw", "--recipe", "cake"],
        ["plan", "{model}", "--budget", "3bpw", "--calibration", "nowhere.txt"],
        ["plan", "hf:no-slash", "--budget", "3bpw"],
        ["execute", "{model}", "--plan", "nowhere.json", "out"],
        ["evaluate", "{model}", "--plan", "nowhere.json"],
        ["export", "nowhere.json", "--to", "llama.cpp"],
        ["diff", "nowhere.json", "nowhere.json"],
    ],
    ids=" ".join,
)
def test_invalid_input_exits_with_2_and_says_what_to_do(
    words: list[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text, err = run([word.format(model=model) for word in [*words, "--json"]], capsys)
    assert code == 2, err
    problem = json.loads(text)
    assert problem["status"] in {404, 422}
    assert problem.keys() & {"expected", "hint", "got"}
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


# --- the same commands on a server ----------------------------------------------------------------------------------


def test_a_server_gives_the_same_plan_as_this_process(
    server: str, model: Path, tmp_path: Path, capsys: Capture
) -> None:
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    assert run(["plan", model, "--budget", "3bpw", *QUICK, "--out", here], capsys)[0] == 0
    words = ["plan", "file:tests/vit-digits", "--budget", "3bpw", *QUICK, "--out", there, "--server", server]
    code, text, err = run([*words, "--progress"], capsys)
    assert code == 0, err
    assert load_plan(there).digest == load_plan(here).digest
    assert "certificate" in text
    assert run(["verify", there, "--server", server], capsys)[0] == 0


def test_an_infeasible_budget_on_a_server_exits_with_3(server: str, capsys: Capture) -> None:
    words = ["plan", "file:tests/vit-digits", "--budget", "1bpw", *QUICK, "--server", server, "--json"]
    code, text, _ = run(words, capsys)
    assert code == 3
    assert json.loads(text)["smallest_budget"]["bpw"] > 1


def test_a_server_takes_no_bare_path(server: str, model: Path, capsys: Capture) -> None:
    code, _, err = run(["inspect", model, "--server", server], capsys)
    assert code == 2
    assert "file:ROOT" in err


def test_inspect_on_a_server_equals_inspect_here(server: str, model: Path, capsys: Capture) -> None:
    here = json.loads(run(["inspect", model, "--json"], capsys)[1])
    there = json.loads(run(["inspect", "file:tests/vit-digits", "--json", "--server", server], capsys)[1])
    assert {**here, "ref": None} == {**there, "ref": None}


def test_problems_are_solved_on_a_server(server: str, tmp_path: Path, capsys: Capture) -> None:
    problem = tmp_path / "p.json"
    problem.write_text(json.dumps({"loss": [[4, 1], [2, 0]], "size": [10, 10], "rate": [2, 4], "limit_bits": 60}))
    out = tmp_path / "s.json"
    assert run(["solve", problem, "--server", server, "--out", out], capsys)[0] == 0
    assert json.loads(out.read_text())["choice"] == [1, 0]
    assert run(["verify", out, "--problem", problem, "--server", server], capsys)[0] == 0
    assert run(["solve", problem, "--limit", "bits=39", "--server", server], capsys)[0] == 3
    points = json.loads(run(["frontier", problem, "--json", "--server", server], capsys)[1])["points"]
    assert [p["cost"] for p in points] == [40, 60, 80]
    assert run(["frontier", problem, "--out", tmp_path / "f.svg", "--server", server], capsys)[0] == 2


@pytest.mark.parametrize("name", ["formats", "metrics", "solvers", "engines", "recipes"])
def test_catalogs_are_the_same_on_a_server(name: str, server: str, capsys: Capture) -> None:
    here = json.loads(run([name, "--json"], capsys)[1])
    there = json.loads(run([name, "--json", "--server", server], capsys)[1])
    assert [row["name"] for row in here] == [row["name"] for row in there]


def test_a_server_that_is_not_there_is_temporary(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("bitwright.client_calls.RETRY_SECONDS", (0.01,))
    code, _, err = run(["formats", "--server", "http://127.0.0.1:9"], capsys)
    assert code == 75
    assert "bitwright serve" in err


def test_an_address_that_is_none_is_invalid_input(capsys: Capture) -> None:
    assert run(["formats", "--server", "localhost"], capsys)[0] == 2
