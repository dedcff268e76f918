"""Connections to the job database: SQLite in one file of this host, or PostgreSQL.

SQLite (research/06 B3): `busy_timeout` before `journal_mode`, WAL, `synchronous=FULL`, and every write transaction
opens with BEGIN IMMEDIATE, because a read that turns into a write fails at once where the timeout does not apply.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy import exc as sql
from sqlalchemy.engine import URL, make_url

from bitwright.core.errors import BitwrightError, DiskFull, InvalidSetting, Temporary
from bitwright.jobs.filesystem import refuse_network_filesystem

#: Seconds that a writer waits for the SQLite write lock before the request is answered 503.
BUSY_SECONDS = 10.0
#: PostgreSQL ends a transaction in which nothing has happened for so long; only a relay waits in one, for its broker.
IDLE_SECONDS = 20
_WRITE = "bitwright_write"

Clock = Callable[[], float]


@dataclass(frozen=True)
class Transaction:
    """An open transaction and the one time that everything in it happens at."""

    connection: Connection
    now: float


class Database:
    """An engine and its clock. Times come from the database's host: `clock` if given, PostgreSQL's, or this host's."""

    def __init__(
        self, url: str, *, clock: Clock | None = None, busy_seconds: float = BUSY_SECONDS, pool_size: int = 5
    ) -> None:
        self.url = _parse(url)
        self.engine = _sqlite(self.url, busy_seconds) if self.is_sqlite else _postgresql(self.url, pool_size)
        self._clock = clock
        self._busy_seconds = busy_seconds
        # Threads of one process queue here, in order, instead of polling SQLite's lock against each other.
        self._turn = threading.Lock() if self.is_sqlite else None

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        with typed_errors(), self.engine.connect() as connection, connection.begin():
            yield Transaction(connection, self._now(connection))

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """One transaction that holds the write lock from its start; committed (and on disk) when the block ends."""
        with typed_errors(), self._taking_turns(), self.engine.connect() as plain:
            connection = plain.execution_options(**{_WRITE: True})
            with connection.begin():
                yield Transaction(connection, self._now(connection))

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _taking_turns(self) -> Iterator[None]:
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=self._busy_seconds):
            raise Temporary("the job database is busy", hint="try again in a few seconds")
        try:
            yield
        finally:
            self._turn.release()

    def _now(self, connection: Connection) -> float:
        if self._clock is not None:
            return self._clock()
        if self.is_sqlite:
            return time.time()
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except sql.ArgumentError as error:
        raise InvalidSetting(
            "the database URL cannot be read", expected="sqlite:///path or postgresql+psycopg://..."
        ) from error
    if backend not in ("sqlite", "postgresql"):
        raise InvalidSetting("this database is not supported", expected="sqlite or postgresql+psycopg", got=backend)
    return parsed


def _sqlite(url: URL, busy_seconds: float) -> Engine:
    if not url.database or url.database == ":memory:":
        raise InvalidSetting(
            "the job database must be a file: several processes share it", expected="sqlite:///path", got=str(url)
        )
    path = Path(url.database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSetting(
            f"the state folder cannot be made: {error.strerror}", got=str(path.parent), hint="check BITWRIGHT_STATE_DIR"
        ) from error
    refuse_network_filesystem(path.parent)
    engine = create_engine(
        url,
        json_serializer=_dump_json,
        pool_size=8,
        max_overflow=24,
        connect_args={"check_same_thread": False, "timeout": busy_seconds},
    )
    event.listen(engine, "connect", partial(_prepare_sqlite, busy_seconds))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgresql(url: URL, pool_size: int) -> Engine:
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        json_serializer=_dump_json,
        pool_size=pool_size,
        max_overflow=20,
        pool_pre_ping=True,
        # A process that is stopped in the middle of a transaction must not keep its rows locked from everyone else.
        connect_args={"connect_timeout": 5, "options": f"-c idle_in_transaction_session_timeout={IDLE_SECONDS * 1000}"},
    )


def _prepare_sqlite(busy_seconds: float, connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not open transactions of its own
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(busy_seconds * 1000)}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _dump_json(value: Any) -> str:
    """ASCII with escapes: lone surrogates and NUL survive in every database; NaN is refused."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


@contextmanager
def typed_errors() -> Iterator[None]:
    """Trouble of the database as typed errors: locked or unreachable is Temporary, a full disk is DiskFull."""
    try:
        yield
    except BitwrightError:
        raise
    except (sql.OperationalError, sql.InterfaceError, sql.InternalError, sql.TimeoutError) as error:
        raise _typed(error) from error


def _typed(error: Exception) -> BitwrightError:
    reason = str(getattr(error, "orig", None) or error).splitlines()[0]
    if "disk is full" in reason or "No space left" in reason or "could not extend" in reason:
        return DiskFull("the disk of the job database is full", got=reason, hint="free space; accepted jobs are safe")
    if "readonly" in reason or "unable to open" in reason:
        return InvalidSetting(
            "the job database cannot be written", got=reason, hint="check BITWRIGHT_STATE_DIR and its permissions"
        )
    return Temporary("the job database does not answer right now", got=reason, hint="try again in a few seconds")
