"""Commands for those who look after an installation: the schema of its database, and what may be removed."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.cli.output import emit, note
from bitwright.cli.parser import command

if TYPE_CHECKING:
    from bitwright.settings import Settings

DAY = 24 * 3600.0


def add(commands: Any) -> None:
    database = command(
        commands, "db", run_db,
        summary="the job database: bring its schema to the newest form, or say which it has",
        about="Servers and workers do this by themselves when they start; here it is a step of its own, for\n"
        "deployments that want it before. Programs of the schema before go on working beside the new one.",
        examples="  bitwright db upgrade\n"
        "  BITWRIGHT_DATABASE_URL=postgresql+psycopg://... bitwright db status --json",
    )  # fmt: skip
    database.add_argument("action", choices=("upgrade", "status"), help="what to do")
    garbage = command(
        commands, "gc", run_gc,
        summary="remove what has served its time: old jobs, unfinished files, parts of finished work",
        about="Workers do this each hour. Plans, tables and checkpoints stay: they are the results.",
        examples="  bitwright gc\n  bitwright gc --days 7 --json",
    )  # fmt: skip
    garbage.add_argument("--days", metavar="N", type=float, help="jobs that ended longer ago go (default 30)")
    for parser in (database, garbage):
        parser.add_argument("--state-dir", metavar="DIR", type=Path, help="the state (default ./.bitwright)")


def _settings(args: Namespace) -> Settings:
    from bitwright.settings import make_settings

    return make_settings(**({} if args.state_dir is None else {"state_dir": args.state_dir.absolute()}))


def run_db(args: Namespace) -> int:
    from bitwright.jobs.migrate import HEAD, is_current, revision
    from bitwright.jobs.store import open_store

    store = open_store(_settings(args).resolved_database_url, migrate=args.action == "upgrade")
    found = {"schema": revision(store.database), "newest": HEAD, "current": is_current(store.database)}
    store.close()
    emit(args, found, f"schema {found['schema'] or 'none'} (newest {HEAD})")
    if not found["current"]:
        note("bring it to the newest form with: bitwright db upgrade")
    return 0 if found["current"] else 1


def run_gc(args: Namespace) -> int:
    from bitwright.core.errors import InvalidInput
    from bitwright.jobs.store import open_store
    from worker.leftovers import remove_leftovers

    settings = _settings(args)
    days = settings.retention_days if args.days is None else args.days
    if not 0 <= days <= 36_500:
        raise InvalidInput("the days cannot be used", expected="0 to 36500", got=str(days))
    store = open_store(settings.resolved_database_url)
    jobs = store.collect_garbage(days * DAY)
    store.forget_messages(DAY)
    files = remove_leftovers(store, settings)
    store.close()
    emit(args, {"jobs": jobs, "files": files}, f"removed {jobs} jobs and {files} unfinished files")
    return 0
