"""Many rows in one statement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import JSON, Table, insert

from bitwright.jobs.engine import Transaction


def insert_rows(tx: Transaction, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that name every column without a default.

    PostgreSQL gets them all as one JSON text: half the processor time of the driver's `executemany`, which sends and
    answers each row by itself, and one statement to prepare whatever their number.
    """
    if tx.connection.dialect.name != "postgresql":
        tx.connection.execute(insert(table), [dict(row) for row in rows])
        return
    statement, nested = _from_json(table)
    plain = [{**row, **{name: _text(row.get(name)) for name in nested}} for row in rows]
    tx.connection.exec_driver_sql(statement, (json.dumps(plain, separators=(",", ":"), allow_nan=False),))


def _text(value: Any) -> str | None:
    """A JSON column travels as a text: PostgreSQL reads `json` values inside a record more strictly than by themselves
    (no NUL, no half surrogate pairs)."""
    return None if value is None else json.dumps(value, separators=(",", ":"), allow_nan=False)


@cache
def _from_json(table: Table) -> tuple[str, tuple[str, ...]]:
    """(the statement, its JSON columns)."""
    from sqlalchemy.dialects import postgresql  # not loaded where SQLite is all

    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    columns = [column for column in table.columns if column.autoincrement is not True]
    nested = tuple(column.name for column in columns if isinstance(column.type, JSON))
    names = ", ".join(column.name for column in columns)
    values = ", ".join(f"{c.name}::json" if c.name in nested else c.name for c in columns)
    typed = ", ".join(f"{c.name} {'text' if c.name in nested else c.type.compile(dialect)}" for c in columns)
    return f"INSERT INTO {table.name} ({names}) SELECT {values} FROM json_to_recordset(%s) AS t({typed})", nested
