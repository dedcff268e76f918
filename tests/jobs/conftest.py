"""One contract for every database: a test that takes `store` runs on SQLite and, where it starts, PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bitwright.jobs.store import JobStore, open_store
from bitwright.jobs.tables import metadata
from tests.servers import postgresql_server


class FakeClock:
    """Seconds since 1970 that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += seconds


class PostgresqlOnDemand:
    """Starts at the first test that needs it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._url: str | None = None

    def url(self) -> str:
        if self._url is None:
            server = self._stack.enter_context(postgresql_server())
            if server is None:
                pytest.skip("no PostgreSQL on this host (install Debian's `postgresql`)")
            self._url = server.url
        return self._url

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlOnDemand]:
    server = PostgresqlOnDemand()
    yield server
    server.close()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with the newest schema and no rows, to copy."""
    path = tmp_path_factory.mktemp("template") / "jobs.db"
    open_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path, migrated_file: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        shutil.copy(migrated_file, tmp_path / "jobs.db")
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    url: str = request.getfixturevalue("postgresql").url()
    empty(url)
    return url


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(database_url: str, clock: FakeClock) -> Iterator[JobStore]:
    """A store whose time passes only by `clock.tick`."""
    store = open_store(database_url, clock=clock)
    yield store
    store.close()


@pytest.fixture
def live_store(database_url: str) -> Iterator[JobStore]:
    """A store on real time."""
    store = open_store(database_url)
    yield store
    store.close()


def empty(url: str) -> None:
    """Remove every row."""
    store = open_store(url)
    with store.database.write() as tx:
        for table in metadata.sorted_tables:
            tx.connection.execute(table.delete())
    store.close()
