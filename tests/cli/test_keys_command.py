"""`bitwright keys`: a key is shown once, kept as a hash, listed without its secret, and revoked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitwright.cli import main
from service.keys import KeyFile


def test_a_key_is_created_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ["--state-dir", str(tmp_path)]
    assert main(["keys", "create", "pipeline", "--scopes", "jobs:read,solve", "--days", "30", *state]) == 0
    text = capsys.readouterr().out.strip()
    key = KeyFile(tmp_path / "keys.json").find(text)
    assert key is not None
    assert key.scopes == ("jobs:read", "solve")
    assert main(["keys", "list", "--json", *state]) == 0
    out = capsys.readouterr().out
    (row,) = json.loads(out)
    assert (row["id"], row["name"], row["active"]) == (key.id, "pipeline", True)
    assert text not in out
    assert main(["keys", "revoke", row["id"], *state]) == 0
    assert KeyFile(tmp_path / "keys.json").find(text) is None
    capsys.readouterr()
    assert main(["keys", "list", *state]) == 0
    assert "no key" in capsys.readouterr().out


def test_the_state_folder_is_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BITWRIGHT_STATE_DIR", str(tmp_path))
    assert main(["keys", "create", "x", "--json"]) == 0
    assert KeyFile(tmp_path / "keys.json").find(json.loads(capsys.readouterr().out)["key"]) is not None


@pytest.mark.parametrize(
    "words",
    [
        ["create"], ["revoke"], ["list", "extra"], ["list", "--days", "3"], ["revoke", "nothing"],
        ["create", "x", "--scopes", "root"], ["create", "x", "--days", "nan"], ["create", "x", "--days", "-1"],
        ["sing"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_words_exit_with_2_and_make_nothing(words: list[str], tmp_path: Path) -> None:
    assert main(["keys", *words, "--state-dir", str(tmp_path)]) == 2
    assert not (tmp_path / "keys.json").exists()
