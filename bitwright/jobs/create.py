"""Accepting jobs: idempotency keys, job rows, events and doorbells in one transaction, any number of jobs at a time.

Many callers share a transaction (`service.acceptor`): a commit costs one wait for the disk, however much it holds. Each
job has an answer of its own: one that is refused does not disturb the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sqlalchemy import delete, select, tuple_

from bitwright.core.canonical import digest_json
from bitwright.core.errors import BitwrightError, Conflict, IdempotencyMismatch, InvalidInput, TooManyRequests
from bitwright.jobs import states
from bitwright.jobs.bulk import insert_rows
from bitwright.jobs.deliveries import announce
from bitwright.jobs.engine import Transaction
from bitwright.jobs.ids import new_id
from bitwright.jobs.rooms import Rooms, writing
from bitwright.jobs.tables import events, idempotency, jobs, outbox
from bitwright.jobs.values import Created, Job, job_of

#: How long a key is remembered, in seconds: 24 h, the long end of what services do (research/06 A2).
KEY_SECONDS = 24 * 3600.0
Answer = Created | BitwrightError


@dataclass(frozen=True)
class NewJob:
    """What a caller asks for. `request`: plain JSON with a `kind`; `deadline`: seconds since 1970;
    `work_digest`: names the work by its content, so that equal finished work answers at once."""

    request: Mapping[str, Any]
    tenant: str = "default"
    key: str | None = None
    queue: str = states.QUEUES[0]
    priority: int = 0
    deadline: float | None = None
    run_after: float | None = None
    work_digest: str | None = None
    traceparent: str | None = None
    callback: str | None = None
    batch_id: str | None = None

    @property
    def writes(self) -> bool:
        """Whether it writes a checkpoint."""
        return self.request.get("to") is not None

    @property
    def fingerprint(self) -> str:
        members = {"request": self.request, "priority": self.priority, "deadline": self.deadline}
        if self.callback is not None:
            members["callback"] = self.callback
        if self.queue != states.QUEUES[0]:
            members["queue"] = self.queue
        return digest_json(members)


def create_many(
    tx: Transaction, news: Sequence[NewJob], queued_limit: int | None = None, rooms: Rooms | None = None,
    writing_limit: int | None = None,
) -> list[Answer]:  # fmt: skip
    """The answer to each, in order: the job, or what refuses it.

    queued_limit: jobs of one tenant that may wait; rooms: what the process knows of how many do; writing_limit: jobs of
    one tenant that write checkpoints, waiting and running. Refused with
    IdempotencyMismatch (the key came with another request), InvalidInput (a key that is none), Conflict (its job was
    removed) or TooManyRequests.
    """
    ids = [new_id(tx.now) for _ in news]
    answers = _answers_by_key(tx, news, ids)
    rooms, tenants = rooms or Rooms(), {new.tenant for new in news}
    room = Counter[str]() if queued_limit is None else rooms.left(tx, tenants, queued_limit)
    busy = Counter({new.tenant: 0 for new in news if new.writes})
    if writing_limit is not None:
        busy = Counter({tenant: writing(tx, tenant) for tenant in busy})
    rows: list[dict[str, Any]] = []
    for number, new in enumerate(news):
        if number in answers:
            continue
        earlier = find_finished(tx, new.tenant, new.work_digest)
        if new.writes and writing_limit is not None:
            busy[new.tenant] += 1
            if busy[new.tenant] > writing_limit:
                answers[number] = _too_much_writing(writing_limit)
                _forget_key(tx, new, ids[number])
                continue
        if earlier is None and queued_limit is not None:
            room[new.tenant] -= 1
            rooms.took(new.tenant, 1)
            if room[new.tenant] < 0:
                answers[number] = _no_room(queued_limit)
                _forget_key(tx, new, ids[number])
                continue
        row = _row(tx, new, ids[number], earlier)
        rows.append(row)
        answers[number] = Created(Job(**row), cached=earlier is not None)
    _insert(tx, rows)
    return [_resolved(tx, answers, number) for number in range(len(news))]


def create(tx: Transaction, new: NewJob, queued_limit: int | None = None) -> Created:
    """One job. Raises what `create_many` answers."""
    answer = create_many(tx, [new], queued_limit)[0]
    if isinstance(answer, BitwrightError):
        raise answer
    return answer


def find_finished(tx: Transaction, tenant: str, work_digest: str | None) -> Job | None:
    """The latest succeeded job of this tenant with equal work."""
    if work_digest is None:
        return None
    statement = (
        select(jobs)
        .where(jobs.c.work_digest == work_digest, jobs.c.tenant == tenant, jobs.c.state == states.SUCCEEDED)
        .order_by(jobs.c.created_at.desc())
        .limit(1)
    )
    row = tx.connection.execute(statement).mappings().one_or_none()
    return job_of(row) if row is not None else None


def _answers_by_key(tx: Transaction, news: Sequence[NewJob], ids: Sequence[str]) -> dict[int, Any]:
    """Number -> answer, for the jobs whose keys are unusable or known; a number stands for the job of this very call
    that has the key. A twin in another transaction makes us wait here for its commit."""
    answers: dict[int, Any] = {}
    wanted: dict[tuple[str, str], list[int]] = {}
    for number, new in enumerate(news):
        if new.key is None:
            continue
        if not 1 <= len(new.key) <= 255 or not new.key.isascii() or not new.key.isprintable():
            answers[number] = _bad_key(new.key)
        else:
            wanted.setdefault((new.tenant, new.key), []).append(number)
    if not wanted:
        return answers
    rows = [
        {"tenant": t, "key": k, "fingerprint": news[n[0]].fingerprint, "job_id": ids[n[0]], "created_at": tx.now}
        for (t, k), n in sorted(wanted.items())  # in one order everywhere: two calls never wait for each other
    ]
    taken = _take_keys(tx, rows)
    for pair, numbers in wanted.items():
        fingerprint, job_id, job = taken[pair]
        for number in numbers:
            if fingerprint != news[number].fingerprint:
                answers[number] = _mismatch(pair[1])
            elif job_id in ids:
                if number != numbers[0]:
                    answers[number] = numbers[0]
            else:
                answers[number] = Created(job, replayed=True) if job is not None else _removed(pair[1])
    return answers


def _take_keys(tx: Transaction, rows: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[str, str, Job | None]]:
    """(tenant, key) -> (fingerprint, job id, that job if it is there): ours, or those of the one who has the key."""
    pairs = [(row["tenant"], row["key"]) for row in rows]
    mine = tuple_(idempotency.c.tenant, idempotency.c.key).in_(pairs)
    tx.connection.execute(delete(idempotency).where(mine, idempotency.c.created_at < tx.now - KEY_SECONDS))
    insert = import_module(f"sqlalchemy.dialects.{tx.connection.dialect.name}").insert  # the other one is not loaded
    tx.connection.execute(insert(idempotency).on_conflict_do_nothing(), rows)
    found = tx.connection.execute(select(idempotency).where(mine)).mappings().all()
    ours = {row["job_id"] for row in rows}
    others = [row["job_id"] for row in found if row["job_id"] not in ours]
    known: dict[str, Job] = {}
    if others:
        known = {
            row["id"]: job_of(row)
            for row in tx.connection.execute(select(jobs).where(jobs.c.id.in_(others))).mappings()
        }
    return {(r["tenant"], r["key"]): (r["fingerprint"], r["job_id"], known.get(r["job_id"])) for r in found}


def _forget_key(tx: Transaction, new: NewJob, job_id: str) -> None:
    """A job that was refused for want of room keeps no key: the same request may come again."""
    if new.key is not None:
        tx.connection.execute(delete(idempotency).where(idempotency.c.job_id == job_id))


def _row(tx: Transaction, new: NewJob, job_id: str, earlier: Job | None) -> dict[str, Any]:
    done = (
        {"state": states.SUCCEEDED, "result": earlier.result, "finished_at": tx.now, "fraction": 1.0} if earlier else {}
    )
    row: dict[str, Any] = dict.fromkeys(jobs.c.keys())
    return row | {
        "id": job_id,
        "tenant": new.tenant,
        "kind": str(new.request["kind"]),
        "request": dict(new.request),
        "state": states.QUEUED,
        "version": 1,
        "attempt": 0,
        "tries": 0,
        "queue": new.queue,
        "priority": new.priority,
        "run_after": tx.now if new.run_after is None else new.run_after,
        "created_at": tx.now,
        "deadline": new.deadline,
        "stage": "",
        "fraction": 0.0,
        "message": "",
        "work_digest": new.work_digest,
        "traceparent": new.traceparent,
        "callback": new.callback,
        "batch_id": new.batch_id,
        "measures": {"same_work_as": earlier.id} if earlier else None,
        **done,
    }


def _insert(tx: Transaction, rows: list[dict[str, Any]]) -> None:
    """Job rows, then their events, then a ring for each that has to run."""
    if not rows:
        return
    insert_rows(tx, jobs, rows)
    told = [_event(tx, row, "queued", {"kind": row["kind"], "queue": row["queue"]}) for row in rows]
    cached = [row for row in rows if row["state"] == states.SUCCEEDED]
    told += [_event(tx, row, states.SUCCEEDED, row["measures"]) for row in cached]
    insert_rows(tx, events, told)
    rings = [
        {"topic": row["queue"], "payload": {"job_id": row["id"]}, "created_at": tx.now, "due": row["run_after"]}
        for row in rows
        if row["state"] == states.QUEUED
    ]
    if rings:
        insert_rows(tx, outbox, rings)
    for row in cached:
        if row["callback"] is not None:
            announce(tx, Job(**row))


def _event(tx: Transaction, row: Mapping[str, Any], kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    return {"job_id": row["id"], "at": tx.now, "type": kind, "data": dict(data)}


def _resolved(tx: Transaction, answers: Mapping[int, Any], number: int) -> Answer:
    answer = answers[number]
    if isinstance(answer, int):
        first: Answer = answers[answer]
        return Created(first.job, replayed=True) if isinstance(first, Created) else first
    return answer  # type: ignore[no-any-return]


def _bad_key(key: str) -> InvalidInput:
    return InvalidInput(
        "the idempotency key is not valid", expected="1 to 255 printable ASCII characters", got=ascii(key)[:80]
    )


def _mismatch(key: str) -> IdempotencyMismatch:
    return IdempotencyMismatch(
        f"the idempotency key {key!r} was used with another request", hint="use a new key for a new request"
    )


def _removed(key: str) -> Conflict:
    return Conflict(f"the job of idempotency key {key!r} has been removed", hint="use a new key")


def _too_much_writing(limit: int) -> TooManyRequests:
    return _too_many("jobs of this tenant that write checkpoints have not ended", limit, "WRITING", 60)


def _no_room(limit: int) -> TooManyRequests:
    return _too_many("jobs of this tenant are waiting", limit, "QUEUED", 10)


def _too_many(words: str, limit: int, setting: str, seconds: int) -> TooManyRequests:
    return TooManyRequests(
        f"too many {words}",
        expected=f"at most {limit} of them",
        hint=f"wait until some have ended, cancel some, or ask the operator to raise BITWRIGHT_TENANT_{setting}_JOBS",
        retry_after=seconds,
    )
