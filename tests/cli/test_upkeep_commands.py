"""`bitwright db` and `bitwright gc`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from bitwright.cli import main
from bitwright.jobs.migrate import HEAD
from bitwright.jobs.store import open_store


def test_a_database_is_brought_to_the_newest_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ["--state-dir", str(tmp_path), "--json"]
    assert main(["db", "status", *state]) == 1
    assert json.loads(capsys.readouterr().out) == {"schema": None, "newest": HEAD, "current": False}
    for _ in range(2):
        assert main(["db", "upgrade", *state]) == 0
        assert json.loads(capsys.readouterr().out) == {"schema": HEAD, "newest": HEAD, "current": True}
    assert main(["db", "status", *state]) == 0


def test_garbage_is_what_ended_long_ago(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'bitwright.db'}", clock=lambda: time.time() - 40 * 86_400)
    store.create({"kind": "inspect", "model": "old"})
    old = store.claim("w")
    store.succeed(old.id, old.attempt, {})
    store.close()
    new = open_store(f"sqlite:///{tmp_path / 'bitwright.db'}")
    waiting = new.create({"kind": "inspect", "model": "new"}).job.id
    assert main(["gc", "--state-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"jobs": 1, "files": 0}
    assert [job.id for job in new.page()] == [waiting]
    new.close()
    assert main(["gc", "--state-dir", str(tmp_path), "--days", "-1"]) == 2
