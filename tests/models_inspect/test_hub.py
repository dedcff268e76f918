"""Hub references against a local cache that the test builds; no network."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitwright.core.errors import InvalidReference
from bitwright.core.refs import HubRef
from bitwright.models import inspect, open_model
from bitwright.models.hub import hub_cache, is_offline
from tests.models_inspect.checkpoints import LAYOUTS, write

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with one model, laid out as huggingface_hub does: blobs, and links to them by revision."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    repository = tmp_path / "home" / "hub" / "models--acme--tiny"
    plain = write(tmp_path / "plain", LAYOUTS["llama-gqa"])
    snapshot = repository / "snapshots" / COMMIT
    for folder in (repository / "blobs", repository / "refs", snapshot):
        folder.mkdir(parents=True)
    for file in plain.iterdir():
        (repository / "blobs" / file.name).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


@pytest.mark.parametrize("ref", ["hf:acme/tiny", "hf:acme/tiny@main", f"hf:acme/tiny@{COMMIT}"])
def test_revision_is_found_offline_and_pinned(ref: str, cache: Path, tmp_path: Path) -> None:
    source = open_model(ref, allow_path=False)
    assert source.ref == f"hf:acme/tiny@{COMMIT}"
    assert len(inspect(source).units) == 15
    assert source.digest == open_model(str(tmp_path / "plain")).digest


def test_pinned_commit_in_the_cache_needs_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert open_model(f"hf:acme/tiny@{COMMIT}").tensors


@pytest.mark.parametrize("ref", ["hf:acme/other", "hf:acme/tiny@v2", f"hf:acme/tiny@{'f' * 40}"])
def test_what_the_cache_lacks_is_said(ref: str, cache: Path) -> None:
    with pytest.raises(InvalidReference, match="not in the local cache") as caught:
        open_model(ref)
    assert "HF_HUB_OFFLINE" in str(caught.value.hint)


def test_offline_can_be_asked_for_by_argument(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(InvalidReference, match="not in the local cache"):
        open_model("hf:acme/other", offline=True)


def test_links_out_of_the_repository_are_refused(cache: Path, tmp_path: Path) -> None:
    link = cache / "snapshots" / COMMIT / "config.json"
    link.unlink()
    link.symlink_to(tmp_path / "plain" / "config.json")
    with pytest.raises(InvalidReference, match="leads out"):
        open_model("hf:acme/tiny")


def test_cache_folder_follows_the_environment(tmp_path: Path) -> None:
    assert hub_cache({"HF_HUB_CACHE": str(tmp_path)}) == tmp_path
    assert hub_cache({"HF_HOME": str(tmp_path)}) == tmp_path / "hub"
    assert hub_cache({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "huggingface" / "hub"


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("ON", True), ("0", False), ("", False)])
def test_offline_is_read_as_the_library_reads_it(value: str, offline: bool) -> None:
    assert is_offline({"HF_HUB_OFFLINE": value}) is offline


def test_no_revision_is_main() -> None:
    assert str(HubRef("a/b", None)) == "hf:a/b"
