"""What the routes share.

Settings, job store, blobs, solver processes, secrets. Made by `create_app`, opened at start-up.
"""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import Annotated, cast

from anyio import CapacityLimiter
from fastapi import Depends, Request

from bitwright.core.errors import Temporary
from bitwright.jobs.blobs import BlobStore
from bitwright.jobs.spans import Exporter
from bitwright.jobs.store import JobStore, open_store
from bitwright.settings import Settings
from service.acceptor import Acceptor
from service.auth import Gate
from service.metrics import Counts
from service.quotas import Quotas
from service.sealing import Sealer, load_secret
from service.solve_pool import SolvePool
from service.uploads import Uploads

#: Requests that may wait for a solver process at once; each waits at most the pool's queue time.
SOLVE_WAITERS = 64


class State:
    """`start` opens what touches the disk: making an application (for its OpenAPI document, say) leaves no trace."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.blobs = BlobStore(settings.blob_dir)
        self.pool = SolvePool(settings)
        self.uploads = Uploads(settings, self.blobs)
        self.gate = Gate(settings)
        self.counts = Counts()
        self.spans = Exporter(settings.otlp_endpoint, "bitwright-api")
        self.quotas = Quotas(settings.tenant_streams, settings.tenant_waits)
        self.stopping = asyncio.Event()
        self.ready = False
        self._store: JobStore | None = None
        self._sealer: Sealer | None = None
        self._acceptor: Acceptor | None = None

    def start(self) -> None:
        """Raises InvalidSetting, OutOfResources or Temporary when the state folder or database cannot be used."""
        self.gate.require_keys()
        self._sealer = Sealer(load_secret(self.settings.state_dir / "page-token.key"))
        self._store = open_store(
            self.settings.resolved_database_url,
            busy_seconds=self.settings.busy_seconds,
            pool_size=self.settings.database_connections,
        )
        self._acceptor = Acceptor(self._store, self.settings.tenant_queued_jobs, self.settings.tenant_writing_jobs)
        self.pool.warm()
        self.ready = True

    def close(self) -> None:
        self.ready = False
        self.pool.close()
        self.spans.close()
        if self._store is not None:
            self._store.close()

    @property
    def store(self) -> JobStore:
        if self._store is None:
            raise Temporary("the server is still starting")
        return self._store

    @property
    def acceptor(self) -> Acceptor:
        if self._acceptor is None:
            raise Temporary("the server is still starting")
        return self._acceptor

    @property
    def sealer(self) -> Sealer:
        if self._sealer is None:
            raise Temporary("the server is still starting")
        return self._sealer

    @cached_property
    def solve_limiter(self) -> CapacityLimiter:
        """Made on first use, inside the running event loop, as anyio asks."""
        return CapacityLimiter(SOLVE_WAITERS)


async def state_of(request: Request) -> State:
    """(A plain function would be sent to a worker thread, at every request.)"""
    return cast(State, request.app.state.bitwright)


StateOf = Annotated[State, Depends(state_of)]
