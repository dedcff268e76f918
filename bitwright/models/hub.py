"""Models of the Hugging Face hub: `hf:org/name[@revision]` to a folder of the local cache.

Honours HF_HOME, HF_HUB_CACHE, HF_TOKEN and HF_HUB_OFFLINE as they stand at the call. Only weights, configs and
tokenizer files are asked for, never code. A pinned commit that lies in the cache needs no network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.core.errors import BitwrightError, InvalidModel, InvalidReference, Temporary, Unsupported
from bitwright.core.refs import HubRef
from bitwright.models.limits import DEFAULT_LIMITS, Limits
from bitwright.models.shards import refuse

ALLOW = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
COMMIT = re.compile(r"[0-9a-f]{40}")
TRUE = frozenset({"1", "ON", "YES", "TRUE"})


@dataclass(frozen=True)
class Snapshot:
    """A cached revision. `beneath`: the repository's folder in the cache, which its links must not leave."""

    path: Path
    beneath: Path
    ref: str


def is_offline(environ: Mapping[str, str] | None = None) -> bool:
    """Whether HF_HUB_OFFLINE asks for no network (huggingface_hub's own reading of the variable)."""
    return (environ or os.environ).get("HF_HUB_OFFLINE", "").upper() in TRUE


def hub_cache(environ: Mapping[str, str] | None = None) -> Path:
    """The hub's cache folder: HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME or ~/.cache + huggingface/hub."""
    env = environ or os.environ
    if env.get("HF_HUB_CACHE"):
        return Path(env["HF_HUB_CACHE"]).expanduser()
    home = env.get("HF_HOME") or str(Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(home).expanduser() / "hub"


def fetch(ref: HubRef, *, offline: bool | None = None, limits: Limits = DEFAULT_LIMITS) -> Snapshot:
    """The revision's folder in the cache, downloaded if need be.

    Raises InvalidReference, InvalidModel, UnsafeFormat (a repository of pickles), Temporary.
    """
    offline = is_offline() if offline is None else offline
    cache = hub_cache()
    pinned = ref.revision is not None and COMMIT.fullmatch(ref.revision) is not None
    if offline or pinned:
        folder = _cached(ref, cache)
        if folder is not None:
            return _snapshot(ref, folder)
    if offline:
        raise InvalidReference(
            f"{ref} is not in the local cache, and the hub may not be asked",
            expected=f"a complete snapshot under {cache}",
            got="none of that revision",
            hint="unset HF_HUB_OFFLINE, or download it where there is a network and copy the cache here",
        )
    return _snapshot(ref, _download(ref, cache, limits))


def _snapshot(ref: HubRef, folder: Path) -> Snapshot:
    commit = folder.name
    named = str(HubRef(ref.repo, commit)) if COMMIT.fullmatch(commit) else str(ref)
    return Snapshot(folder, folder.parent.parent, named)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise Unsupported(
            "hub references need huggingface_hub", got="it is not installed", hint="pip install huggingface_hub"
        ) from error
    return huggingface_hub


def _cached(ref: HubRef, cache: Path) -> Path | None:
    library = _library()
    try:
        found = library.snapshot_download(
            ref.repo, revision=ref.revision, cache_dir=cache, local_files_only=True, allow_patterns=list(ALLOW)
        )
    except library.errors.LocalEntryNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise _explain(ref, error, library) from error
    return Path(found)


def _download(ref: HubRef, cache: Path, limits: Limits) -> Path:
    library = _library()
    options = {"revision": ref.revision, "cache_dir": cache, "allow_patterns": list(ALLOW)}
    try:
        planned = library.snapshot_download(ref.repo, dry_run=True, **options)
        if not any(file.filename.endswith(".safetensors") for file in planned):
            refuse(Path(ref.repo), tuple(library.list_repo_files(ref.repo, revision=ref.revision)))
        total = sum(file.file_size for file in planned)
        if total > limits.model_bytes:
            raise InvalidModel(
                f"{ref} is too large", expected=f"at most {limits.model_bytes} bytes", got=f"{total} bytes"
            )
        return Path(library.snapshot_download(ref.repo, **options))
    except BitwrightError:
        raise
    except library.errors.DryRunError as error:
        folder = _cached(ref, cache)
        if folder is not None:
            return folder
        raise _explain(ref, error.__cause__ or error, library) from error
    except Exception as error:
        # The library's transport raises classes of its HTTP client; all of them end here as typed errors.
        raise _explain(ref, error, library) from error


def _explain(ref: HubRef, error: BaseException, library: Any) -> BitwrightError:
    errors = library.errors
    got = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"[:200]
    if isinstance(error, errors.GatedRepoError):
        hint = "accept its terms on the hub and set HF_TOKEN to a token that may read it"
        return InvalidReference(f"{ref} is gated", expected="a token with access", got=got, hint=hint)
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = "check the spelling; for a private repository set HF_TOKEN"
        return InvalidReference(
            f"there is no repository {ref.repo}, or it is private", expected="a readable repository", got=got, hint=hint
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return InvalidReference(
            f"{ref.repo} has no such revision", expected="a branch, tag or commit", got=repr(ref.revision)
        )
    if isinstance(error, errors.HFValidationError):
        return InvalidReference(f"{ref} is no name of the hub", expected="hf:org/name[@revision]", got=got)
    return Temporary(
        f"{ref} could not be fetched from the hub",
        expected="an answer of the hub",
        got=got,
        hint="check the network and try again",
    )
