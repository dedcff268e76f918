"""Running a request here or on a server, with the same progress bar and the same errors."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bitwright.cli.progress import Progress, progress_bar

if TYPE_CHECKING:
    from bitwright.client import Client

T = TypeVar("T")


def client(args: Namespace) -> Client:
    """The client of `--server`; its key comes from BITWRIGHT_API_KEY, never from the command line that `ps` shows."""
    from bitwright.client import Client

    return Client(args.server, key=os.environ.get("BITWRIGHT_API_KEY"))


def job(
    args: Namespace,
    kind: str,
    members: Mapping[str, Any],
    *,
    local: Callable[[Progress], T],
    remote: Callable[[Any, Client], T],
) -> T:
    """`local(progress)` in this process; with --server, the job of that kind there, its result given to `remote`."""
    with progress_bar(args) as progress:
        if not args.server:
            return local(progress)
        with client(args) as server:
            request = {"kind": kind, **upload_texts(server, members)}
            return remote(server.run(request, progress=progress, idempotency_key=args.idempotency_key), server)


def upload_texts(server: Client, members: Mapping[str, Any]) -> dict[str, Any]:
    """The members with local text files replaced by the digests that the server stores them under."""
    from bitwright.core.requests import MADE

    sent = dict(members)
    for name in ("calibration", "text"):
        value = sent.get(name)
        if value is not None and value not in MADE and not str(value).startswith("sha256:"):
            sent[name] = server.upload_text(Path(value))
    return sent


def fetch_table(result: Mapping[str, Any], server: Client) -> Any:
    """The sensitivity table that a job made."""
    return server.sensitivity(result["table_digest"])
