"""The worker's log names the job of every line: that is what one searches for."""

from __future__ import annotations

import logging

from tests.worker.conftest import request_for


def test_start_and_end_are_logged_with_the_jobs_id(make_runner, store, caplog):
    job = store.create(request_for("answer")).job
    with caplog.at_level(logging.INFO, "bitwright.worker"):
        assert make_runner().run_next()
    lines = [record.getMessage() for record in caplog.records]
    assert any(job.id in line and "started" in line for line in lines)
    assert any(job.id in line and "left" in line for line in lines)
