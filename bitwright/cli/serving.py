"""Commands that keep running: serve (embedded mode) and worker (distributed mode)."""

from __future__ import annotations

import json
import logging
import signal
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.cli.output import note
from bitwright.cli.parser import command
from bitwright.core.errors import Cancelled, InvalidInput
from bitwright.jobs.states import QUEUES

if TYPE_CHECKING:
    from bitwright.settings import Settings


#: As of the embedded worker (Settings.workers).
MAX_SLOTS = 64


def add(commands: Any) -> None:
    serve = command(
        commands, "serve", run_serve,
        summary="API, dashboard and worker on this machine, one process tree, no broker",
        about="State lies under --state-dir: SQLite database, blobs, checkpoints. Kill it at any moment: no\n"
        "accepted job is lost or done twice. Every setting is also an environment variable, BITWRIGHT_<NAME>.",
        examples="  bitwright serve\n"
        "  bitwright serve --port 9000 --state-dir /var/lib/bitwright --root models=/srv/models\n"
        "  bitwright serve --workers 0      # API and dashboard only",
    )  # fmt: skip
    serve.add_argument("--host", metavar="ADDRESS", help="address to listen on (default 127.0.0.1)")
    serve.add_argument("--port", metavar="N", type=int, help="port (default 8321; 0 takes a free one)")
    serve.add_argument("--state-dir", metavar="DIR", type=Path, help="where the state lies (default ./.bitwright)")
    serve.add_argument(
        "--root",
        metavar="NAME=DIR",
        action="append",
        default=[],
        help="serve models below DIR as file:NAME/... (repeatable)",
    )
    serve.add_argument("--workers", metavar="N", type=int, help="jobs at once (default 1; 0 for the API alone)")
    worker = command(
        commands, "worker", run_worker,
        summary="a worker beside a server: takes jobs from the same database",
        about="Takes jobs from the database of BITWRIGHT_DATABASE_URL until it is told to stop; jobs that run\n"
        "then are given back. The table decides: whatever is killed, no job is lost or done twice.",
        examples="  export BITWRIGHT_DATABASE_URL=postgresql+psycopg://... BITWRIGHT_STATE_DIR=/shared/bitwright\n"
        "  bitwright worker --queue gpu --slots 2",
    )  # fmt: skip
    worker.add_argument(
        "--queue",
        metavar="NAME",
        action="append",
        default=[],
        help=f"serve this queue only (repeatable; default {', '.join(QUEUES)})",
    )
    worker.add_argument("--slots", metavar="N", type=int, default=1, help="jobs at once (default 1)")


def chosen_settings(args: Namespace) -> Settings:
    """The settings of the environment, with the options of the command line in their place."""
    from bitwright.settings import make_settings

    roots = {}
    for text in args.root:
        name, _, folder = text.partition("=")
        if not name or not folder:
            raise InvalidInput("a root cannot be read", expected="NAME=DIR", got=repr(text)[:80])
        roots[name] = Path(folder).absolute()
    given = {
        "host": args.host,
        "port": args.port,
        "state_dir": None if args.state_dir is None else args.state_dir.absolute(),
        "workers": args.workers,
        "model_roots": roots or None,
    }
    settings = make_settings(**{name: value for name, value in given.items() if value is not None})
    for name, path in settings.model_roots.items():
        if not path.is_dir():
            raise InvalidInput(
                f"the root {name} is not a folder", expected="NAME=DIR with a folder of models", got=str(path)[:200]
            )
    return settings


def run_serve(args: Namespace) -> int:
    from bitwright.jobs.logs import start_logging
    from service.server import serve
    from worker.embedded import embedded_worker

    settings = chosen_settings(args)
    start_logging(as_json=settings.json_logs)
    if not settings.json_logs:  # people watch this terminal: they want to see what goes wrong
        logging.getLogger().setLevel(logging.WARNING)
    # uvicorn ends gracefully on a signal and then raises it again: without a handler the worker would not be stopped.
    # SIGINT too: a shell starts background commands with it ignored, and the server would end as if nothing was.
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    announce = Announce(as_json=args.json)
    try:
        with embedded_worker(settings):
            serve(settings, host=settings.host, port=settings.port, ready=announce)
    except KeyboardInterrupt:
        # Ctrl-C is how a server ends. Once its one JSON document (the address) was printed, no second one may follow.
        if not announce.said:
            raise
        note("bitwright serve was stopped by the keyboard")
        return Cancelled.exit_code
    return 0


def _leave(number: int, frame: object) -> None:
    del number, frame
    raise SystemExit(0)


@dataclass
class Announce:
    """Says where the server is once it answers: text on stderr, or one JSON document on stdout."""

    as_json: bool
    said: bool = False

    def __call__(self, host: str, port: int) -> None:
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.said = True
        if self.as_json:
            print(json.dumps({"url": url, "dashboard": f"{url}/"}), flush=True)
        note(f"bitwright serves at {url} (dashboard: {url}/, API: {url}/openapi.json); Ctrl-C stops it")


def run_worker(args: Namespace) -> int:
    from bitwright.settings import load_settings
    from worker.main import work

    if not 1 <= args.slots <= MAX_SLOTS:
        raise InvalidInput(
            "a worker needs slots to run jobs in", expected=f"--slots from 1 to {MAX_SLOTS}", got=str(args.slots)
        )
    return work(load_settings(), queues=tuple(args.queue) or QUEUES, slots=args.slots)
