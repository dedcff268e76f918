"""What killed processes leave behind is removed, and nothing that anyone still uses."""

from __future__ import annotations

import os
import time

from tests.worker.conftest import request_for
from worker.leftovers import DAY, remove_leftovers


def old(path, days):
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))


def test_scratch_of_attempts_that_no_longer_run_is_removed(store, settings):
    job = store.create(request_for("nothing")).job
    running = store.claim("someone")
    assert running.id == job.id
    folders = {name: settings.state_dir / "tmp" / name for name in (f"a/{job.id}-{running.attempt}", f"b/{job.id}-0")}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    assert remove_leftovers(store, settings) == 1
    assert [folder.exists() for folder in folders.values()] == [True, False]


def test_unfinished_files_go_when_nobody_can_be_writing_them(store, settings):
    scores, checkpoints = settings.blob_dir / "scores", settings.checkpoint_dir
    for folder in (
        scores / ".build.new",
        scores / ".build.old",
        checkpoints / ".a.partial",
        checkpoints / ".b.partial",
    ):
        folder.mkdir(parents=True)
    for name in (".x.new.tmp", ".x.old.tmp", "finished"):
        (scores / name).write_text("x")
    (checkpoints / "done").mkdir()
    for path in (scores / ".build.old", scores / ".x.old.tmp", scores / "finished", checkpoints / ".a.partial"):
        old(path, 2)
    for path in (checkpoints / ".b.partial", checkpoints / "done"):
        old(path, settings.retention_days + 1)
    sums = settings.blob_dir / "partial"
    sums.mkdir()
    for name, days in (("resumable", 2), ("forgotten", settings.retention_days + 1)):
        (sums / name).write_text("x")
        old(sums / name, days)
    assert remove_leftovers(store, settings) == 4
    assert [path.name for path in sums.iterdir()] == ["resumable"]
    assert sorted(path.name for path in scores.iterdir()) == [".build.new", ".x.new.tmp", "finished"]
    assert sorted(path.name for path in checkpoints.iterdir()) == [".a.partial", "done"]


def test_nothing_there_is_nothing_to_remove(store, settings):
    assert remove_leftovers(store, settings) == 0
