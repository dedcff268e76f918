"""Running the application in this process, as `bitwright serve` does."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from bitwright.core.errors import InvalidSetting
from bitwright.settings import Settings
from service.app import create_app
from service.wire import Protocol

#: Seconds for open requests to end after a signal; the hand-over goal is 2 s (research/06 B7).
GRACE_SECONDS = 2
Ready = Callable[[str, int], None]


class Server(uvicorn.Server):
    """uvicorn with a callback once it listens, and `stop()` for other threads."""

    def __init__(self, settings: Settings, *, host: str, port: int, ready: Ready | None = None) -> None:
        self._ready = ready
        app = create_app(settings.model_copy(update={"host": host}))
        app.state.bitwright.gate.require_keys()
        self._listener = listen(host, port)
        self._bitwright = app.state.bitwright
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="on",
                http=Protocol,
                ws="none",
                timeout_graceful_shutdown=GRACE_SECONDS,
                timeout_keep_alive=30,
                proxy_headers=False,
            )
        )

    @property
    def address(self) -> tuple[str, int]:
        name = self._listener.getsockname()
        return str(name[0]), int(name[1])

    def stop(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and self._ready is not None:
            self._ready(*self.address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._bitwright.stopping.set()  # open event streams end now instead of holding the grace time
        await super().shutdown(sockets=sockets)

    def run_here(self) -> None:
        """Serve until a signal or `stop()`."""
        try:
            self.run(sockets=[self._listener])
        finally:
            self._listener.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises InvalidSetting when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named: asyncio turns Nagle's algorithm off only for sockets that say they are TCP, and with it on
    # every answer waits 40 ms for an acknowledgement. (`socket.create_server` leaves it out.)
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(2048)
        return listener
    except OSError as error:
        listener.close()
        raise InvalidSetting(
            f"cannot listen on {host} port {port}: {error.strerror}",
            hint="choose another --port, or 0 for any free one",
        ) from error


def serve(settings: Settings, *, host: str, port: int, ready: Ready | None = None) -> None:
    """Serve until SIGINT or SIGTERM. `ready(host, port)` is called once requests are answered."""
    Server(settings, host=host, port=port, ready=ready).run_here()
