"""The long reliability runs are what docs/reliability.md says they are, and each names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.chaos import runs

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `make chaos RUN=([a-z0-9-]+)` \| .* \| (\d+) min \| (\d+) min \|$", re.MULTILINE)


def test_the_documented_runs_are_those_that_there_are() -> None:
    told = ROW.findall((ROOT / "docs" / "reliability.md").read_text())
    assert told == [(name, f"{run.minutes:g}", f"{run.bound:g}") for name, run in runs.RUNS.items()]


@pytest.mark.parametrize("name", runs.RUNS)
def test_every_run_names_what_exists(name: str) -> None:
    for short in (True, False):
        words = runs.RUNS[name].command(7, short=short)
        assert not [word for word in words if "{" in word]
        files = [ROOT / word for word in words if word.startswith("tests/")]
        modules = [ROOT / f"{word.replace('.', '/')}.py" for word in words if word.startswith("tests.")]
        assert files or modules
        assert all(path.is_file() for path in (*files, *modules))
        only = words[words.index("-k") + 1] if "-k" in words else ""
        assert only in "".join(path.read_text() for path in files)


def test_a_run_over_its_bound_has_failed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    endless = runs.Run("waits", 0, 0.005, ("-c", "import time; time.sleep(600)"))
    broken = runs.Run("fails", 0, 1, ("-c", "raise SystemExit(1)"))
    monkeypatch.setattr(runs, "RUNS", {"endless": endless, "broken": broken})
    assert not runs.perform("endless", 7, short=True)
    assert not runs.perform("broken", 8, short=True)
    told = capsys.readouterr().out
    assert "endless: OVER TIME after" in told
    assert "broken: FAILED after" in told
    assert "make chaos RUN=broken SEED=8" in told
