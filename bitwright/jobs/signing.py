"""Signatures of webhooks (Standard Webhooks, symmetric `v1`): each tenant has secrets of its own.

They are made from the installation's: `state_dir/webhooks.key` holds one a line, the newest first. While there are two,
every webhook carries both signatures, so that receivers change over without a gap: add a line at the top, hand out the
new secrets, drop the old line.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from bitwright.core.errors import InvalidSetting, OutOfResources

FILE = "webhooks.key"
PREFIX = "whsec_"


class Signer:
    """Secrets of an installation; the file is made when there is none."""

    def __init__(self, state_dir: Path) -> None:
        self._keys = _load(state_dir / FILE)

    def secrets_of(self, tenant: str) -> list[str]:
        """`whsec_...` texts to give to a tenant's receivers, newest first; 32 bytes each."""
        return [PREFIX + base64.b64encode(key).decode() for key in self._derived(tenant)]

    def headers(self, message_id: str, timestamp: int, body: bytes, tenant: str) -> dict[str, str]:
        """webhook-id, webhook-timestamp, webhook-signature."""
        signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
        signatures = [base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in self._derived(tenant)]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
        }

    def _derived(self, tenant: str) -> list[bytes]:
        return [hmac.digest(key, b"bitwright webhooks: " + tenant.encode(), "sha256") for key in self._keys]


def _load(path: Path) -> list[bytes]:
    try:
        if not path.exists():
            _make(path)
        keys = [line.strip() for line in path.read_text("ascii").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise OutOfResources(
            f"the webhook secrets cannot be kept: {error}", hint="check BITWRIGHT_STATE_DIR"
        ) from error
    if not keys or any(len(key) < 32 for key in keys):
        raise InvalidSetting(
            "the webhook secrets cannot be used", expected="one text of at least 32 characters a line", got=str(path)
        )
    return [key.encode() for key in keys]


def _make(path: Path) -> None:
    """Whoever comes second uses what the first one made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    beside.write_text(secrets.token_hex(32) + "\n")
    beside.chmod(0o600)
    with suppress(FileExistsError):
        os.link(beside, path)
    beside.unlink()
