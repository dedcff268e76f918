"""API keys of an installation: create, list, revoke."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.cli import render
from bitwright.cli.output import emit, note
from bitwright.cli.parser import command, names

if TYPE_CHECKING:
    from service.keys import Key, KeyFile


def add(commands: Any) -> None:
    keys = command(
        commands, "keys", run,
        summary="API keys of a server: create, list, revoke",
        about="Keys are kept as hashes in keys.json under --state-dir; a running server reads it again at each\n"
        "change. A new key is shown once. A server that listens on more than this machine asks for one.",
        examples="  bitwright keys create pipeline --scopes jobs:read,jobs:write --days 90\n"
        "  bitwright keys list\n"
        "  bitwright keys revoke 4f1d2a9c03be",
    )  # fmt: skip
    keys.add_argument("action", choices=("create", "list", "revoke"), help="what to do")
    keys.add_argument("subject", metavar="NAME|ID", nargs="?", help="name of the new key, or id of the one to revoke")
    keys.add_argument("--scopes", metavar="LIST", type=names, help="comma-separated (default: every scope)")
    keys.add_argument("--tenant", metavar="NAME", help="whose jobs it sees (default: default)")
    keys.add_argument("--days", metavar="N", type=float, help="days until it expires (default: never)")
    keys.add_argument("--state-dir", metavar="DIR", type=Path, help="the server's state (default ./.bitwright)")


def run(args: Namespace) -> int:
    from bitwright.settings import make_settings
    from service.keys import KeyFile

    given = {} if args.state_dir is None else {"state_dir": args.state_dir.absolute()}
    file = KeyFile(make_settings(**given).state_dir / "keys.json")
    _check(args)
    {"create": _create, "list": _list, "revoke": _revoke}[args.action](args, file)
    return 0


def _check(args: Namespace) -> None:
    """Words that the action would leave unread are refused."""
    from bitwright.core.errors import InvalidInput

    wanted = {"create": "a NAME", "revoke": "an ID", "list": "nothing more"}[args.action]
    options = [f"--{o}" for o in ("scopes", "tenant", "days") if getattr(args, o) is not None]
    if (args.subject is None) != (args.action == "list"):
        got = args.subject or "nothing"
        raise InvalidInput(f"`keys {args.action}` takes {wanted}", got=repr(got)[:80], hint="bitwright keys --help")
    if options and args.action != "create":
        raise InvalidInput(f"`keys {args.action}` takes no {options[0]}", hint="bitwright keys --help")


def _create(args: Namespace, file: KeyFile) -> None:
    from service.keys import DEFAULT_TENANT, SCOPES

    scopes = SCOPES if args.scopes is None else args.scopes
    text, key = file.create(args.subject, scopes, tenant=args.tenant or DEFAULT_TENANT, days=args.days)
    emit(args, {"key": text, **_row(key)}, text)
    note("this key is shown once; send it as `Authorization: Bearer KEY`")


def _list(args: Namespace, file: KeyFile) -> None:
    rows = [_row(key) for key in file.all()]
    titles = ["id", "name", "tenant", "scopes", "created", "expires", "active"]
    cells = [[row[title] if title != "scopes" else ",".join(row[title]) for title in titles] for row in rows]
    emit(args, rows, render.table(titles, cells) if rows else "there is no key")


def _revoke(args: Namespace, file: KeyFile) -> None:
    key = file.revoke(args.subject)
    emit(args, _row(key), f"revoked: {key.name} ({key.id})")


def _row(key: Key) -> dict[str, Any]:
    import time

    from bitwright.jobs.values import timestamp

    return {
        "id": key.id, "name": key.name, "tenant": key.tenant, "scopes": list(key.scopes),
        "created": timestamp(key.created_at), "expires": timestamp(key.expires_at), "active": key.active(time.time()),
    }  # fmt: skip
