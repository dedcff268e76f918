"""Sealed page tokens: opaque, unforgeable, bound to the filters of the walk (research/06 A1, A3).

Synthetic-IV construction: tag = HMAC(mac key, text), keystream = HMAC(stream key, tag, counter). Equal texts give equal
tokens, which is harmless here: a token names a row that its holder has already seen.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any

from bitwright.core.errors import InvalidInput, OutOfResources

KEY_BYTES = 32
TAG_BYTES = 16
MAX_TOKEN = 1024


class Sealer:
    """Seals small JSON values under a secret of this installation."""

    def __init__(self, secret: bytes) -> None:
        self._mac = hmac.digest(secret, b"bitwright page token: tag", "sha256")
        self._stream = hmac.digest(secret, b"bitwright page token: stream", "sha256")

    def seal(self, value: Any) -> str:
        text = json.dumps(value, separators=(",", ":")).encode()
        tag = self._tag(text)
        return base64.urlsafe_b64encode(tag + self._crypt(tag, text)).decode().rstrip("=")

    def open(self, token: str) -> Any:
        """Raises InvalidInput for a token that this installation did not make."""
        try:
            if len(token) > MAX_TOKEN:
                raise ValueError("too long")
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise _bad_token() from error
        tag, text = raw[:TAG_BYTES], self._crypt(raw[:TAG_BYTES], raw[TAG_BYTES:])
        if not hmac.compare_digest(tag, self._tag(text)):
            raise _bad_token()
        return json.loads(text)

    def _tag(self, text: bytes) -> bytes:
        return hmac.digest(self._mac, text, "sha256")[:TAG_BYTES]

    def _crypt(self, tag: bytes, text: bytes) -> bytes:
        blocks = range(-(-len(text) // 32))
        stream = b"".join(hmac.digest(self._stream, tag + n.to_bytes(4, "big"), hashlib.sha256) for n in blocks)
        return bytes(a ^ b for a, b in zip(text, stream, strict=False))


def _bad_token() -> InvalidInput:
    return InvalidInput(
        "the page token is not one of this server's",
        expected="the next_page_token of the page before",
        hint="start again without page_token",
        errors=[{"parameter": "page_token", "in": "query", "message": "not valid"}],
    )


def load_secret(path: Path) -> bytes:
    """The installation's secret; made on first use, readable by its owner only. Two starting servers agree on one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
            try:
                os.link(fresh, path)
            except FileExistsError:
                pass  # another process was first; its secret is ours
            finally:
                fresh.unlink()
        return path.read_bytes()
    except OSError as error:
        raise OutOfResources(
            f"the state folder cannot be used: {error.strerror}", hint="check BITWRIGHT_STATE_DIR"
        ) from error
