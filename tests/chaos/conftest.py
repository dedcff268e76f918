"""Both databases for every test that takes `database_url`: None is SQLite in the test's own folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jobs.conftest import PostgresqlOnDemand, empty


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlOnDemand]:
    server = PostgresqlOnDemand()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("postgresql").url()
    empty(url)
    return url
