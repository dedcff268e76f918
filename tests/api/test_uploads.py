"""Uploaded texts and problem files: kept by tenant, named, listed, deleted, limited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from bitwright.client import Client
from service.keys import KeyFile
from tests.api.running import Running, assert_problem, running_server

TEXT = {"Content-Type": "text/plain"}


def upload(http: httpx.Client, text: str, name: str = "", **more: Any) -> httpx.Response:
    return http.post("/v1/texts", params={"name": name}, content=text.encode(), headers={**TEXT, **more})


def names(http: httpx.Client, headers: dict[str, str] | None = None) -> list[str]:
    return [record["name"] for record in http.get("/v1/texts", headers=headers).json()["texts"]]


def test_a_text_is_found_again_by_its_name_until_it_is_deleted(tmp_path: Path) -> None:
    with running_server(tmp_path) as api, Client(api.url) as client:
        digest = client.upload_text("to be read", "wiki")
        other = upload(api.http, "something else").json()
        assert (other["name"], other["bytes"]) == ("", 14)
        assert sorted(names(api.http)) == ["", "wiki"]
        assert client.upload_text("to be read", "wikipedia") == digest
        assert sorted(names(api.http)) == ["", "wikipedia"], "the same text takes its new name"
        body = {"kind": "sensitivity", "model": "hf:a/b", "calibration": digest}
        assert api.http.post("/v1/jobs", json=body).status_code == 202
        client.delete_text(digest)
        assert [record["digest"] for record in client.texts()] == [other["digest"]]
        assert_problem(api.http.post("/v1/jobs", json=body), 422, "invalid-calibration")
        assert_problem(api.http.delete(f"/v1/texts/{digest}"), 404, "not-found")
        assert_problem(api.http.delete("/v1/texts/sha256:short"), 404, "not-found")


def test_a_file_that_two_tenants_keep_stays_until_the_second_has_deleted_it(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    ann, bob = ({"Authorization": f"Bearer {keys.create(name, tenant=name)[0]}"} for name in ("ann", "bob"))
    with running_server(tmp_path) as api:
        digest = upload(api.http, "shared", "mine", **ann).json()["digest"]
        upload(api.http, "shared", "his", **bob)
        assert (names(api.http, ann), names(api.http, bob)) == (["mine"], ["his"])
        blob = api.blobs.path("texts", digest)
        assert api.http.delete(f"/v1/texts/{digest}", headers=ann).status_code == 204
        assert (names(api.http, ann), names(api.http, bob), blob.is_file()) == ([], ["his"], True)
        assert api.http.delete(f"/v1/texts/{digest}", headers=bob).status_code == 204
        assert not blob.is_file()


def test_a_tenant_keeps_so_many_files_and_not_one_more(tmp_path: Path) -> None:
    with running_server(tmp_path, tenant_uploads=2) as api:
        digests = [upload(api.http, text).json()["digest"] for text in ("one", "two")]
        problem = assert_problem(upload(api.http, "three"), 409, "conflict")
        assert "2" in problem["expected"]
        assert upload(api.http, "two", "again").status_code == 201, "it is there already"
        api.http.delete(f"/v1/texts/{digests[0]}")
        assert upload(api.http, "three").status_code == 201


@pytest.mark.parametrize(("name", "status"), [("x" * 256, 201), ("x" * 257, 422), ("a\nb", 422), ("Müller 🙂", 201)])
def test_names_are_printable_and_of_bounded_length(api: Running, name: str, status: int) -> None:
    assert upload(api.http, "named", name).status_code == status
