"""Model references: the grammar, and that a server takes no path that leaves its roots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.errors import InvalidReference
from bitwright.core.refs import FileRef, HubRef, PathRef, parse_ref

_PART = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("./model", PathRef("./model")),
        ("file:models/a/b", FileRef("models", ("a", "b"))),
        ("hf:org/name", HubRef("org/name", None)),
        ("hf:org/name@v1.0", HubRef("org/name", "v1.0")),
    ],
)
def test_each_kind_parses_and_prints_back(text: str, value: object) -> None:
    found = parse_ref(text)
    assert found == value
    assert str(found) == text


@given(st.lists(_PART, min_size=1, max_size=4))
def test_file_references_round_trip(parts: list[str]) -> None:
    ref = parse_ref(f"file:root/{'/'.join(parts)}", allow_path=False)
    assert ref == FileRef("root", tuple(parts))


@pytest.mark.parametrize(
    "text",
    [
        "", "file:", "file:root",
        "file:root/", "file:root/../etc", "file:root/a/../b", "file:root//a", "file:/etc/passwd",
        "file:root/.hidden", "hf:name", "hf:a/b/c", "hf:a/../b", "hf:org/name@", "hf:org/name@../x", "hf:org/na--me",
        "hf:org/name.git", "https://example.org/model", "s3://bucket/model", "model\x00", "model\n", "a" * 5000,
    ],
)  # fmt: skip
def test_bad_references_are_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_ref(text, allow_path=False)


@given(st.text(max_size=60))
def test_a_server_never_gets_a_path(text: str) -> None:
    try:
        ref = parse_ref(text, allow_path=False)
    except InvalidReference:
        return
    assert isinstance(ref, FileRef | HubRef)
    if isinstance(ref, FileRef):
        assert not {".", "..", ""} & set(ref.relative)
