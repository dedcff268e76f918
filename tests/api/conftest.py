from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.running import Running, running_server


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the tests that do not mind each other's jobs."""
    folder = tmp_path_factory.mktemp("api-state")
    with running_server(
        folder, max_request_bytes=2**20, max_text_bytes=2**20, ping_seconds=0.2, wait_seconds=30, max_solve_units=500
    ) as server:
        yield server
