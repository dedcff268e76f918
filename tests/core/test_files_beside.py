"""Files that lie beside each other: the sidecar of a large document never harms another file or another run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bitwright.core.canonical import atomic_write
from bitwright.core.claim import Certificate
from bitwright.core.errors import BitwrightError, InvalidInput, InvalidPlan
from bitwright.core.solution import SIDECAR_UNITS, Solution, load_solution


def _solution(value: int, count: int = SIDECAR_UNITS + 1) -> Solution:
    return Solution(np.full(count, value), 0.0, Certificate("bounded"), "hull")


def test_a_large_solution_leaves_the_problem_beside_it_alone(tmp_path: Path) -> None:
    (tmp_path / "problem.npz").write_bytes(b"the user's own file")
    _solution(1).save(tmp_path / "problem.json")
    assert (tmp_path / "problem.npz").read_bytes() == b"the user's own file"


def test_a_large_solution_may_be_called_npz(tmp_path: Path) -> None:
    _solution(1).save(tmp_path / "s.npz")
    assert (load_solution(tmp_path / "s.npz").choice == 1).all()


def test_a_choice_of_another_run_is_refused(tmp_path: Path) -> None:
    _solution(1).save(tmp_path / "s.json")
    old = (tmp_path / "s.json").read_bytes()
    _solution(2).save(tmp_path / "s.json")
    (tmp_path / "s.json").write_bytes(old)
    with pytest.raises(InvalidPlan, match="not the file that this document was saved with"):
        load_solution(tmp_path / "s.json")


def test_a_million_equal_choices_are_read_back(tmp_path: Path) -> None:
    """Compressed, they would look like an archive bomb."""
    _solution(0, 2_000_000).save(tmp_path / "s.json")
    assert len(load_solution(tmp_path / "s.json").choice) == 2_000_000


@pytest.mark.parametrize(
    "change", [{"count": 3}, {"npz": ""}, {"npz": "."}, {"npz": "a/b.npz"}, {"npz": 3}, {"npz": "other.npz"}]
)
def test_a_pointer_that_leads_astray_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    _solution(1).save(tmp_path / "s.json")
    np.savez(tmp_path / "other.npz", loss=np.zeros(3))
    document = json.loads((tmp_path / "s.json").read_bytes())
    pointer = {k: v for k, v in document["choice"].items() if k != "digest"}
    (tmp_path / "s.json").write_text(json.dumps({**document, "choice": {**pointer, **change}}))
    with pytest.raises(InvalidPlan):
        load_solution(tmp_path / "s.json")


@pytest.mark.parametrize("choice", [[0.5], [True], ["1"], [None], 7])
def test_choices_that_are_no_integers_are_refused_not_rounded(choice: object, tmp_path: Path) -> None:
    document = {"choice": choice, "certificate": {"status": "bounded"}, "loss": 0.0, "solver": "hull"}
    (tmp_path / "s.json").write_text(json.dumps(document))
    with pytest.raises(InvalidPlan, match="list of integers"):
        load_solution(tmp_path / "s.json")


def test_a_place_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "x.json", tmp_path / "folder", tmp_path / ("x" * 300), Path("/proc/x.json")):
        with pytest.raises(InvalidInput, match="cannot write"), atomic_write(path) as file:
            file.write(b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def write_until_full(path: Path) -> None:
    """Writes to a device that is always full, inside the atomic writing of `path`."""
    with atomic_write(path), Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BitwrightError, match="No space left"):
        write_until_full(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
