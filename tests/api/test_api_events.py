"""Server-sent events: complete, resumable, kept alive, ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service import streams
from tests.api.running import Running, assert_problem


def frames(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """Parsed frames; a comment gives {"comment": text}."""
    found: dict[str, Any] = {}
    for line in answer.iter_lines():
        if line == "":
            if found:
                yield found
            found = {}
        elif line.startswith(":"):
            found["comment"] = line[1:].strip()
        else:
            name, _, value = line.partition(": ")
            found[name] = value


def finished(api: Running, stages: int = 5) -> str:
    job = api.submit()
    claim = api.claim(job["id"])
    for stage in range(stages):
        api.store.progress(job["id"], claim.attempt, "score", stage / stages, f"step {stage}")
    api.store.succeed(job["id"], claim.attempt, {"ok": True})
    return str(job["id"])


def events_of(api: Running, job_id: str, last: str | None = None) -> list[dict[str, Any]]:
    headers = {} if last is None else {"Last-Event-ID": last}
    with api.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["cache-control"] == "no-cache"
        return [frame for frame in frames(answer) if "data" in frame]


def test_stream_tells_the_whole_story_and_ends(api: Running) -> None:
    found = events_of(api, finished(api))
    assert [frame["event"] for frame in found] == ["queued", "started", *["progress"] * 5, "succeeded"]
    ids = [int(frame["id"]) for frame in found]
    assert ids == sorted(set(ids))
    for frame in found:
        event = json.loads(frame["data"])
        assert event["id"] == int(frame["id"])
        assert event["type"] == frame["event"]


def test_every_cut_resumes_without_gap_or_double(api: Running) -> None:
    job_id = finished(api)
    whole = events_of(api, job_id)
    for cut in range(len(whole) - 1):
        assert events_of(api, job_id, whole[cut]["id"]) == whole[cut + 1 :]


def test_nothing_left_is_204_so_that_browsers_stop(api: Running) -> None:
    job_id = finished(api)
    last = events_of(api, job_id)[-1]["id"]
    assert api.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": last}).status_code == 204


def test_foreign_last_event_id_is_refused(api: Running) -> None:
    answer = api.http.get(f"/v1/jobs/{finished(api)}/events", headers={"Last-Event-ID": "abc"})
    assert_problem(answer, 422, "invalid-input")


def test_live_stream_pings_then_tells_and_ends(api: Running) -> None:
    job = api.submit()
    claim = api.claim(job["id"])
    found: list[dict[str, Any]] = []
    with api.http.stream("GET", f"/v1/jobs/{job['id']}/events") as answer:
        for frame in frames(answer):
            if frame == {"comment": "ping"} and frame not in found:
                api.store.progress(job["id"], claim.attempt, "score", 0.5, "half")
                api.store.succeed(job["id"], claim.attempt, None)
            found.append(frame)
    assert found[0] == {"retry": "2000"}
    assert {"comment": "ping"} in found
    assert [frame["event"] for frame in found if "event" in frame] == ["queued", "started", "progress", "succeeded"]


def test_more_events_than_one_look_takes(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BATCH", 20)
    assert len(events_of(api, finished(api, stages=57))) == 60
