"""Connections, schema, and trouble of the database as typed errors."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import exc as sql
from sqlalchemy import inspect, text

from bitwright.core.errors import InvalidSetting, OutOfResources, Temporary
from bitwright.jobs import migrate
from bitwright.jobs.engine import Database, typed_errors
from bitwright.jobs.filesystem import filesystem_type, refuse_network_filesystem
from bitwright.jobs.store import JobStore, open_store
from bitwright.jobs.tables import metadata

REQUEST = {"kind": "inspect", "model": "m"}
#: Alembic cannot compare an index with a descending column.
DESCENDING = "jobs_turn"


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"


def test_sqlite_runs_in_wal_with_full_sync(sqlite_url):
    store = open_store(sqlite_url)
    with store.database.read() as tx:
        pragmas = {
            name: tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}
    store.close()


def test_write_transactions_hold_the_lock_from_their_start(sqlite_url):
    store = open_store(sqlite_url)
    with store.database.write():
        other = sqlite3.connect(store.database.url.database, timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
    store.close()


def test_a_locked_database_is_temporary_and_accepts_nothing(sqlite_url):
    open_store(sqlite_url).close()
    store = JobStore(Database(sqlite_url, busy_seconds=0.05))
    other = sqlite3.connect(store.database.url.database, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Temporary):
        store.create(REQUEST)
    patient = JobStore(Database(sqlite_url, busy_seconds=20))
    free = threading.Timer(0.3, other.execute, ["ROLLBACK"])
    free.start()
    assert store.page() == []
    assert patient.create(REQUEST).job.state == "queued", "a lock that is let go in time costs nothing"
    free.join()
    other.close()
    assert store.create(REQUEST).job.state == "queued"
    patient.close()
    store.close()


def test_a_full_disk_is_out_of_resources_and_loses_nothing(sqlite_url):
    store = open_store(sqlite_url)
    kept = store.create(REQUEST).job.id
    with store.database.read() as tx:
        pages = tx.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    # The limit holds for each connection alone, so it is set on the one that the pool will hand out again.
    with store.database.write() as tx:
        tx.connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(OutOfResources, match="disk"):
        store.create({**REQUEST, "model": "x" * 100_000})
    assert [job.id for job in store.page()] == [kept]
    store.close()


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("database or disk is full", OutOfResources),
        ('could not extend file "base/1": No space left on device', OutOfResources),
        ("attempt to write a readonly database", InvalidSetting),
        ("unable to open database file", InvalidSetting),
        ("database is locked", Temporary),
        ("server closed the connection unexpectedly", Temporary),
    ],
)
def test_trouble_of_the_database_is_typed(reason, expected):
    with pytest.raises(expected), typed_errors():
        raise sql.OperationalError("SELECT 1", {}, Exception(reason))


def test_an_unreachable_server_is_temporary():
    with pytest.raises(Temporary):
        open_store("postgresql+psycopg://nobody@127.0.0.1:1/none")


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://x/y", "sqlite://", "sqlite:///:memory:"])
def test_urls_that_cannot_serve_are_refused(url):
    with pytest.raises(InvalidSetting):
        Database(url)


def test_a_network_filesystem_is_refused(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"30 21 0:40 / {tmp_path}/my\\040share rw - nfs4 server:/x rw\n"
        f"31 30 0:41 / {tmp_path}/my\\040share/local rw - xfs /dev/sdb rw\n"
    )
    share = tmp_path / "my share"
    assert filesystem_type(tmp_path, mounts) == "ext4"
    assert filesystem_type(share / "deep", mounts) == "nfs4"
    with pytest.raises(InvalidSetting, match="network"):
        refuse_network_filesystem(share / "state", mounts)
    refuse_network_filesystem(share / "local", mounts)
    refuse_network_filesystem(share, tmp_path / "no such list")


def test_migrations_give_exactly_the_tables_of_the_program(database_url):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    store = open_store(database_url)
    with store.database.read() as tx:
        options = {"compare_type": True, "include_object": lambda item, name, *_: name != DESCENDING}
        context = MigrationContext.configure(tx.connection, opts=options)
        assert compare_metadata(context, metadata) == []
        assert DESCENDING in {index["name"] for index in inspect(tx.connection).get_indexes("jobs")}
    store.close()


def test_the_head_constant_is_the_newest_revision():
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    assert scripts.get_current_head() == migrate.HEAD


def test_a_current_schema_is_opened_without_alembic(sqlite_url):
    open_store(sqlite_url).close()
    code = "import sys; from bitwright.jobs.store import open_store; open_store(sys.argv[1]); "
    code += "print('alembic' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, sqlite_url],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "False"


def test_a_schema_from_the_future_is_refused(sqlite_url):
    store = open_store(sqlite_url)
    with store.database.write() as tx:
        tx.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        tx.connection.execute(text("UPDATE schema_floor SET oldest = '9998'"))
    assert not migrate.is_current(store.database)
    with pytest.raises(InvalidSetting, match="newer"):
        open_store(sqlite_url)
    store.close()


def test_a_newer_schema_that_still_serves_this_program_is_used(sqlite_url):
    """Old and new side by side: the newer program has migrated, the older one is started again."""
    store = open_store(sqlite_url)
    with store.database.write() as tx:
        tx.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        tx.connection.execute(text("UPDATE schema_floor SET oldest = :head"), {"head": migrate.HEAD})
    assert migrate.is_current(store.database)
    again = open_store(sqlite_url)
    assert again.create(REQUEST).job.state == "queued"
    again.close()
    store.close()


def test_a_state_folder_that_cannot_be_made_is_a_wrong_setting(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidSetting, match="state folder"):
        open_store(f"sqlite:///{tmp_path}/file/deeper/jobs.db")
