"""Doorbell messages on their way out: written with the job, published after the commit, at least once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update

from bitwright.jobs.engine import Transaction
from bitwright.jobs.tables import outbox


@dataclass(frozen=True)
class Message:
    id: int
    topic: str
    payload: Mapping[str, Any]


def unsent(tx: Transaction, limit: int = 500) -> list[Message]:
    """Oldest first; rows that another relay holds are passed over."""
    statement = (
        select(outbox)
        .where(outbox.c.sent_at.is_(None))
        .order_by(outbox.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [Message(row["id"], row["topic"], row["payload"]) for row in tx.connection.execute(statement).mappings()]


def mark_sent(tx: Transaction, ids: Sequence[int]) -> None:
    tx.connection.execute(update(outbox).where(outbox.c.id.in_(ids)).values(sent_at=tx.now))


def forget_sent(tx: Transaction, before: float) -> None:
    tx.connection.execute(delete(outbox).where(outbox.c.sent_at < before))
