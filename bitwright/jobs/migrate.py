"""Bringing the schema to its newest form. Alembic is imported only when there is something to do."""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import inspect, select, text

from bitwright.core.errors import InvalidSetting, Temporary
from bitwright.jobs.engine import Database, Transaction
from bitwright.jobs.tables import schema_floor

#: The newest revision under migrations/versions (a test holds the two together).
HEAD = "0003"
#: Any fixed number: names the PostgreSQL advisory lock that lets one process migrate at a time.
_LOCK = 0x62697477
#: Seconds. SQLite says "locked" at once, without its busy wait, when several processes switch a new file to WAL.
PATIENCE = 2.0


def upgrade(database: Database) -> None:
    """Safe to call from many processes at once: all but one wait, then find nothing to do.

    A newer schema that still serves this program is left as it is: old and new run side by side while a fleet is
    upgraded. Raises InvalidSetting when it no longer does.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _upgrade(database)
        except Temporary:
            if not database.is_sqlite or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _upgrade(database: Database) -> None:
    if is_current(database):
        return
    with database.write() as tx:
        if not database.is_sqlite:
            tx.connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        found = _revision(tx)
        if _serves(tx, found):
            return
        if found is not None and found > HEAD:
            raise InvalidSetting(
                "the job database was made by a newer version of bitwright",
                expected=f"schema {HEAD}",
                got=f"schema {found}",
                hint="upgrade bitwright on this host",
            )
        _run(tx)


def is_current(database: Database) -> bool:
    """Whether the schema serves this program (the readiness probe asks this)."""
    with database.read() as tx:
        return _serves(tx, _revision(tx))


def revision(database: Database) -> str | None:
    """The schema that the database has; None when it has none."""
    with database.read() as tx:
        return _revision(tx)


def _serves(tx: Transaction, found: str | None) -> bool:
    """Each migration states the oldest program that its schema still serves."""
    if found is None or found < HEAD:
        return False
    return found == HEAD or tx.connection.execute(select(schema_floor.c.oldest)).scalar_one() <= HEAD


def _revision(tx: Transaction) -> str | None:
    if not inspect(tx.connection).has_table("alembic_version"):
        return None
    found = tx.connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return str(found) if found is not None else None


def _run(tx: Transaction) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = tx.connection
    command.upgrade(config, "head")
