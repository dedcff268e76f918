"""solve, verify, frontier on real files: outputs, exit codes, and one JSON document on stdout."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.cli import main
from bitwright.core.problem_file import load_problem
from bitwright.core.solution import load_solution

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def problem(tmp_path: Path) -> Path:
    """A 224 x 8 problem of the kind that a 7B model gives."""
    rng = np.random.default_rng(0)
    loss = np.sort(rng.gamma(1, 1, (224, 8)), axis=1)[:, ::-1]
    size = rng.integers(10**3, 10**5, 224)
    path = tmp_path / "problem.npz"
    np.savez(path, loss=loss, size=size, rate=np.arange(1, 9), limit_bits=int(size.sum() * 7 // 2))
    return path


@pytest.fixture
def infeasible(tmp_path: Path) -> Path:
    path = tmp_path / "infeasible.json"
    path.write_text(json.dumps({"loss": [[1, 0], [2, 0]], "size": [10, 10], "rate": [2, 4], "limit_bits": 39}))
    return path


def run(words: list[Any], capsys: Capture) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_solve_writes_what_it_prints_and_verify_agrees(problem: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "solution.json"
    code, text, err = run(["solve", problem, "--json", "--out", out], capsys)
    assert code == 0
    assert json.loads(text) == json.loads(out.read_text())
    assert "written" in err
    solution = load_solution(out)
    assert solution.certificate.status in {"optimal", "bounded"}
    assert run(["verify", out, "--problem", problem], capsys)[0] == 0


def test_solve_for_people_shows_certificate_and_limits(problem: Path, capsys: Capture) -> None:
    code, text, err = run(["solve", problem], capsys)
    assert code == 0
    assert err == ""
    for word in ("certificate", "lower bound", "limit bits", "224 in 224 groups"):
        assert word in text


def test_an_infeasible_problem_exits_with_3_and_the_smallest_limit(
    infeasible: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "s.json"
    code, text, err = run(["solve", infeasible, "--json", "--out", out], capsys)
    document = json.loads(text)
    assert code == 3
    assert document["type"].endswith("/infeasible")
    assert document["smallest_limit"] == {"bits": 40}
    assert document["certificate"]["status"] == "infeasible"
    assert "40" in err
    assert run(["verify", out, "--problem", infeasible], capsys)[0] == 0


def test_limit_changes_a_limit_in_solve_and_in_verify(infeasible: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "s.json"
    assert run(["solve", infeasible, "--limit", "bits=40", "--out", out], capsys)[0] == 0
    assert run(["verify", out, "--problem", infeasible, "--limit", "bits=40"], capsys)[0] == 0
    assert run(["verify", out, "--problem", infeasible], capsys)[0] == 1
    code, _, err = run(["verify", out, "--limit", "bits=40"], capsys)
    assert code == 2
    assert "--problem" in err


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_out_of_range_is_invalid_input(problem: Path, seed: int, capsys: Capture) -> None:
    code, _, err = run(["solve", problem, "--seed", seed], capsys)
    assert code == 2
    assert "seed" in err
    for bad in ("bits", "bits=", "bits=many", "nothing=3"):
        assert run(["solve", infeasible, "--limit", bad], capsys)[0] == 2


def test_verify_finds_a_changed_choice(problem: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "s.json"
    run(["solve", problem, "--out", out], capsys)
    document = json.loads(out.read_text())
    document["choice"][0] = (document["choice"][0] + 1) % 8
    out.write_text(json.dumps(document))
    code, text, err = run(["verify", out, "--problem", problem, "--json"], capsys)
    assert code == 1
    assert json.loads(text)["ok"] is False
    assert "not what it claims" in err


def test_verify_of_a_solution_needs_its_problem(problem: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "s.json"
    run(["solve", problem, "--out", out], capsys)
    code, _, err = run(["verify", out], capsys)
    assert code == 2
    assert "--problem" in err


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"PK\x03\x04 broken", b"{}", b"\xff\xfe"])
@pytest.mark.parametrize("command", ["solve", "verify", "frontier"])
def test_damaged_files_are_invalid_input(command: str, content: bytes, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "broken"
    path.write_bytes(content)
    code, text, err = run([command, path, "--json"], capsys)
    assert code == 2
    assert json.loads(text)["status"] == 422
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["solve", "verify", "frontier"])
def test_a_missing_file_is_invalid_input(command: str, tmp_path: Path, capsys: Capture) -> None:
    assert run([command, tmp_path / "none.npz"], capsys)[0] == 2


def test_an_unknown_solver_is_answered_with_the_known_ones(problem: Path, capsys: Capture) -> None:
    code, _, err = run(["solve", problem, "--solver", "hul"], capsys)
    assert code == 2
    assert "hull" in err


def test_an_unwritable_output_is_said_and_leaves_nothing(problem: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run(["solve", problem, "--out", tmp_path / "file" / "s.json"], capsys)
    assert code == 2  # the place cannot be written to: the request is wrong; a full disk would be 1
    assert "cannot write s.json" in err
    assert "Traceback" not in err
    assert list(tmp_path.glob("**/*s.json*")) == []


def test_frontier_prints_rising_costs_and_falling_losses(problem: Path, tmp_path: Path, capsys: Capture) -> None:
    code, text, _ = run(["frontier", problem, "--json", "--points", 50], capsys)
    points = json.loads(text)["points"]
    assert code == 0
    costs, losses = [p["cost"] for p in points], [p["loss"] for p in points]
    assert costs == sorted(costs)
    assert losses == sorted(losses, reverse=True)
    run(["frontier", problem, "--out", tmp_path / "f.csv"], capsys)
    rows = list(csv.DictReader((tmp_path / "f.csv").read_text().splitlines()))
    assert {row["kind"] for row in rows} >= {"frontier", "uniform:0"}
    run(["frontier", problem, "--out", tmp_path / "f.json"], capsys)
    assert json.loads((tmp_path / "f.json").read_text())["limit"] == "bits"


def test_the_frontier_bounds_every_solution(problem: Path, capsys: Capture) -> None:
    found = json.loads(run(["frontier", problem, "--json", "--points", 10000], capsys)[1])
    solved = json.loads(run(["solve", problem, "--json"], capsys)[1])
    limit = load_problem(problem).limits[0].value
    bound = np.interp(limit, [p["cost"] for p in found["points"]], [p["loss"] for p in found["points"]])
    assert solved["loss"] >= bound * (1 - 1e-9)


def test_solve_as_a_process_loads_no_framework(problem: Path) -> None:
    code = (
        "import sys\nfrom bitwright.cli import main\n"
        f"code = main(['solve', {str(problem)!r}])\n"
        "heavy = ('torch', 'pydantic', 'scipy', 'fastapi', 'sqlalchemy')\n"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "[]"
