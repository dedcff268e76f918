"""API keys: made once, shown once, kept as hashes in `state_dir/keys.json`; scopes, tenant and expiry each.

Several keys of one name may be active, so that a key is rotated without a gap: make the new one, move over, revoke the
old one. `bitwright keys create|list|revoke` keeps them.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import hmac
import json
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bitwright.core.canonical import write_json
from bitwright.core.errors import BitwrightError, InvalidInput, InvalidSetting, NotFound
from bitwright.settings import load_settings

#: jobs:read also reads plans, tables and catalogs; execute, beside jobs:write, lets jobs write checkpoints; solve
#: covers what is answered at once and stores nothing.
SCOPES = ("jobs:read", "jobs:write", "execute", "solve", "metrics")
PREFIX = "bw"
SECRET_BYTES = 32
DEFAULT_TENANT = "default"
#: A century: beyond it a key may as well never expire.
LONGEST_DAYS = 36_500


@dataclass(frozen=True)
class Key:
    """hash: SHA-256 of the whole key (its secret has 256 bits: no slow hash is needed). Times: seconds since 1970."""

    id: str
    name: str
    hash: str
    scopes: tuple[str, ...]
    tenant: str
    created_at: float
    expires_at: float | None = None

    def active(self, now: float) -> bool:
        return self.expires_at is None or now < self.expires_at


class KeyFile:
    """The keys of an installation; read again when the file changes, so that a revoked key stops at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._keys: dict[str, Key] = {}

    def all(self) -> list[Key]:
        self._refresh()
        return list(self._keys.values())

    def find(self, text: str) -> Key | None:
        """The key that this text is, also one that has expired (`Key.active` tells), or None."""
        self._refresh()
        prefix, _, rest = text.partition("_")
        key = self._keys.get(rest.partition("_")[0]) if prefix == PREFIX else None
        if key is None or not hmac.compare_digest(key.hash, _hash(text)):
            return None
        return key

    def create(
        self, name: str, scopes: Iterable[str] = SCOPES, *, tenant: str = DEFAULT_TENANT, days: float | None = None
    ) -> tuple[str, Key]:
        """(text, key): the text is shown once and cannot be had again."""
        wanted = tuple(dict.fromkeys(scopes))
        unknown = [scope for scope in wanted if scope not in SCOPES]
        if unknown or not wanted:
            raise InvalidInput("a scope is unknown", expected=", ".join(SCOPES), got=", ".join(unknown) or "no scope")
        for what, value in (("name", name), ("tenant", tenant)):
            if not 1 <= len(value) <= 64 or not value.isprintable():
                raise InvalidInput(
                    f"the {what} cannot be used", expected="1 to 64 printable characters", got=ascii(value)[:80]
                )
        if days is not None and not 0 < days <= LONGEST_DAYS:
            raise InvalidInput(
                "the days cannot be used", expected=f"more than 0, at most {LONGEST_DAYS}", got=str(days)
            )
        identity, now = secrets.token_hex(6), time.time()
        text = f"{PREFIX}_{identity}_{secrets.token_hex(SECRET_BYTES)}"
        expires = None if days is None else now + 86_400 * days
        key = Key(identity, name, _hash(text), wanted, tenant, now, expires)
        with self._alone():
            self._write([*self.all(), key])
        return text, key

    def revoke(self, identity: str) -> Key:
        """Raises NotFound."""
        with self._alone():
            kept = [key for key in self.all() if key.id != identity]
            gone = next((key for key in self.all() if key.id == identity), None)
            if gone is None:
                raise NotFound(
                    "there is no key of that id", got=ascii(identity)[:40], hint="list the keys to see their ids"
                )
            self._write(kept)
        return replace(gone, expires_at=time.time())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two who change the keys at once come one after the other, and none undoes what the other did."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, keys: list[Key]) -> None:
        write_json(self.path, {"bitwright_keys": 1, "keys": [asdict(key) for key in keys]})
        self.path.chmod(0o600)
        self._stamp = None

    def _refresh(self) -> None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._stamp, self._keys = None, {}
            return
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return
        try:
            rows = json.loads(self.path.read_bytes())["keys"]
            keys = [Key(**{**row, "scopes": tuple(row["scopes"])}) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidSetting(
                "the file of API keys cannot be read", got=str(error)[:120], hint=str(self.path)
            ) from error
        self._keys, self._stamp = {key.id: key for key in keys}, stamp


def main(arguments: list[str] | None = None) -> int:
    """The keys of BITWRIGHT_STATE_DIR at the command line."""
    parser = argparse.ArgumentParser(prog="python -m service.keys", description="API keys of this installation")
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="make a key; it is shown once")
    create.add_argument("name")
    create.add_argument("--scopes", default=",".join(SCOPES), help=f"comma-separated; default: {','.join(SCOPES)}")
    create.add_argument("--tenant", default=DEFAULT_TENANT)
    create.add_argument("--days", type=float, help="days until it expires; default: never")
    commands.add_parser("list", help="every key, without its secret")
    commands.add_parser("revoke", help="end a key at once").add_argument("id")
    given = parser.parse_args(arguments)
    keys = KeyFile(load_settings().state_dir / "keys.json")
    try:
        for line in _run(given, keys):
            print(line)
    except BitwrightError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _run(given: argparse.Namespace, keys: KeyFile) -> list[str]:
    if given.command == "create":
        return [keys.create(given.name, given.scopes.split(","), tenant=given.tenant, days=given.days)[0]]
    if given.command == "revoke":
        return [f"revoked: {keys.revoke(given.id).name}"]
    now = time.time()
    return [
        "  ".join((key.id, key.name, key.tenant, ",".join(key.scopes), "active" if key.active(now) else "expired"))
        for key in keys.all()
    ]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
