"""Model references: parsed once into a typed value; only the value is used afterwards. Opens nothing.

path        a local directory, CLI and library only:  ./model  /data/model
file:       under a configured root:                  file:ROOT/relative/dir
hf:         a hub repository:                         hf:org/name  hf:org/name@revision
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bitwright.core.errors import InvalidReference

#: Hub grammar (research/06 A3): at most 96 characters, one slash, [A-Za-z0-9._-], no '..' or '--', not '.git'.
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_ROOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ +=@-]{0,254}")
MAX_LENGTH = 4096
EXPECTED = "a directory, file:ROOT/path or hf:org/name[@revision]"


@dataclass(frozen=True)
class PathRef:
    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class FileRef:
    root: str
    relative: tuple[str, ...]

    def __str__(self) -> str:
        return f"file:{self.root}/{'/'.join(self.relative)}"


@dataclass(frozen=True)
class HubRef:
    repo: str
    revision: str | None

    def __str__(self) -> str:
        return f"hf:{self.repo}" + (f"@{self.revision}" if self.revision else "")


ModelRef = PathRef | FileRef | HubRef


def parse_ref(text: str, *, allow_path: bool = True) -> ModelRef:
    """Raises InvalidReference. `allow_path=False` (a server) refuses bare paths."""
    if (
        not isinstance(text, str)
        or not text
        or len(text) > MAX_LENGTH
        or any(ord(c) < 32 or ord(c) == 127 for c in text)
    ):
        raise InvalidReference("the model reference cannot be read", expected=EXPECTED, got=repr(text)[:80])
    if text.startswith("hf:"):
        return _hub(text)
    if text.startswith("file:"):
        return _file(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise InvalidReference("addresses are not model references", expected=EXPECTED, got=repr(text)[:80])
    if not allow_path:
        raise InvalidReference(
            "a server takes no bare paths",
            expected="file:ROOT/path or hf:org/name[@revision]",
            got=repr(text)[:80],
            hint="ask the operator to add the folder to BITWRIGHT_MODEL_ROOTS and name it as file:ROOT/path",
        )
    return PathRef(text)


def _hub(text: str) -> HubRef:
    repo, at, revision = text[3:].partition("@")
    bad = ".." in repo or "--" in repo or repo.endswith(".git") or len(repo) > 96
    if bad or not _REPO.fullmatch(repo):
        raise InvalidReference("the hub name cannot be read", expected="hf:org/name[@revision]", got=repr(text)[:120])
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise InvalidReference(
            "the revision cannot be read", expected="a commit, tag or branch", got=repr(revision)[:80]
        )
    return HubRef(repo, revision or None)


def _file(text: str) -> FileRef:
    root, _, rest = text[5:].partition("/")
    parts = tuple(rest.split("/")) if rest else ()
    fine = bool(parts) and all(_PART.fullmatch(p) and p not in {".", ".."} for p in parts)
    if not _ROOT.fullmatch(root) or not fine:
        raise InvalidReference(
            "the file reference cannot be read", expected="file:ROOT/path without . or .. parts", got=repr(text)[:120]
        )
    return FileRef(root, parts)
