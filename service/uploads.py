"""What tenants have uploaded: a record for each tenant and file beside the blobs, which are shared by content.

A digest is what requests name. A record says who keeps the file, under which name, and since when; a file goes when
nobody keeps it any more. Records are files of the state folder, which all API processes of an installation share.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bitwright.core.canonical import digest_bytes, write_json
from bitwright.core.errors import Conflict, InvalidInput, NotFound, OutOfResources
from bitwright.jobs.blobs import BlobStore
from bitwright.jobs.values import timestamp
from bitwright.settings import Settings
from service.keys import DEFAULT_TENANT

#: Characters of a name.
NAME_CHARS = 256


class Uploads:
    """kind: `texts` or `problems`. The limit on files is exact within one process."""

    def __init__(self, settings: Settings, blobs: BlobStore) -> None:
        self._root = settings.state_dir / "uploads"
        self._limit = settings.tenant_uploads
        self._blobs = blobs
        self._lock = threading.Lock()

    def keep(self, tenant: str, kind: str, body: bytes, name: str, told: Mapping[str, Any]) -> dict[str, Any]:
        """Store the file and its record, which `told` goes into; the same file again takes the new name.

        Raises Conflict when the tenant keeps as many files as it may, and InvalidInput for a name.
        """
        check_name(name)
        digest = digest_bytes(body)
        path = self._record(tenant, kind, digest)
        with self._lock:
            if not path.exists() and sum(1 for _ in path.parent.glob("*.json")) >= self._limit:
                raise Conflict(
                    "too many uploaded files of this tenant are kept", expected=f"at most {self._limit}",
                    hint="delete some, or ask the operator to raise BITWRIGHT_TENANT_UPLOADS",
                )  # fmt: skip
            record = {"digest": digest, "name": name, "bytes": len(body), "created_at": timestamp(time.time()), **told}
            with _our_place():
                self._blobs.put(kind, body)
                write_json(path, record)
        return record

    def kept(self, tenant: str, kind: str, digest: str) -> bool:
        """Whether this tenant keeps that file. The operator's own tenant may use every file that is there."""
        try:
            path = self._record(tenant, kind, digest)
            return self._blobs.path(kind, digest).is_file() and (tenant == DEFAULT_TENANT or path.is_file())
        except NotFound:  # no digest
            return False

    def all(self, tenant: str, kind: str) -> list[dict[str, Any]]:
        """Newest first."""
        found = [_read(path) for path in self._folder(tenant).glob(f"{kind}-*.json")]
        kept = [record for record in found if record is not None]
        return sorted(kept, key=lambda record: (record["created_at"], record["digest"]), reverse=True)

    def drop(self, tenant: str, kind: str, digest: str) -> None:
        """Forget the file; it is removed when nobody else keeps it. Raises NotFound, also for another tenant's."""
        path = self._record(tenant, kind, digest)
        with self._lock:
            try:
                path.unlink()
            except FileNotFoundError:
                raise NotFound(f"there is no uploaded file of that digest among your {kind}", got=digest) from None
            if not any(self._root.glob(f"*/{path.name}")):
                self._blobs.path(kind, digest).unlink(missing_ok=True)

    def _folder(self, tenant: str) -> Path:
        return self._root / digest_bytes(tenant.encode()).removeprefix("sha256:")[:32]

    def _record(self, tenant: str, kind: str, digest: str) -> Path:
        """Raises NotFound for a text that is no digest."""
        return self._folder(tenant) / f"{kind}-{self._blobs.path(kind, digest).name}.json"


@contextmanager
def _our_place() -> Iterator[None]:
    """Where the state folder cannot be written to, that is no mistake of whoever asked, nor theirs to know where it is.

    Raises OutOfResources for what says otherwise."""
    try:
        yield
    except InvalidInput as error:
        raise OutOfResources("the server cannot store files", hint="its operator checks BITWRIGHT_STATE_DIR") from error


def check_name(name: str) -> None:
    """Raises InvalidInput."""
    if len(name) > NAME_CHARS or not name.isprintable():
        raise InvalidInput(
            "the name cannot be used", expected=f"at most {NAME_CHARS} printable characters", got=ascii(name)[:80],
            errors=[{"parameter": "name", "in": "query", "message": "not valid"}],
        )  # fmt: skip


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:  # deleted meanwhile
        return None
    return record
