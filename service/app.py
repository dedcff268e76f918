"""The application.

Routes, problems and the guard put together. Importing it loads no framework and no solver library.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import Depends, FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp

import bitwright
from bitwright.settings import Settings
from service import problems
from service.auth import READ, SOLVE, WRITE, require
from service.middleware import Guard
from service.openapi import install_openapi
from service.routes import batches, catalogs, health, jobs, pages, plans, problem_files, solve, system, texts, webhooks
from service.state import State

#: Spans and metrics are ours (`bitwright.jobs.spans`, `service.metrics`); FastAPI's would read the environment at every
#: request to see whether anybody wants them.
NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
#: Worker threads for database and file work; each SQLite connection of the pool has room for one.
THREADS = 24


class Service(FastAPI):
    """FastAPI with the guard outside of everything, error handlers included."""

    def build_middleware_stack(self) -> ASGIApp:
        settings: Settings = self.state.bitwright.settings
        uploads = {"/v1/texts": settings.max_text_bytes, "/v1/problems": settings.max_problem_bytes}
        state: State = self.state.bitwright
        return Guard(
            super().build_middleware_stack(),
            max_bytes=settings.max_request_bytes,
            uploads=uploads,
            spans=state.spans,
            counts=state.counts,
        )


def create_app(settings: Settings) -> FastAPI:
    """The whole HTTP face over the state of `settings`.

    Raises InvalidSetting or OutOfResources when it cannot be used.
    """
    app = Service(
        title="bitwright",
        version=bitwright.__version__,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    app.state.bitwright = State(settings)
    problems.install(app)
    for module, check in (
        (jobs, require(READ, writing=WRITE)),
        (batches, require(READ, writing=WRITE)),
        (webhooks, require(READ, writing=WRITE)),
        (texts, require(WRITE)),
        (problem_files, require(WRITE)),
        (solve, require(SOLVE)),
        (plans, require(READ, writing=SOLVE)),
        (catalogs, require(READ)),
    ):
        app.include_router(module.router, dependencies=[Depends(check)])
    app.include_router(system.router)
    for open_module in (health, pages):  # probes, the page itself and its files hold nothing of anyone's
        app.include_router(open_module.router)
    install_openapi(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: State = app.state.bitwright
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    await to_thread.run_sync(state.start)
    try:
        yield
    finally:
        state.stopping.set()
        await to_thread.run_sync(state.close)
