"""What the hub may answer, from a small stand-in of the hub on loopback: every answer ends in a typed error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "f" * 40
#: Repository to (status, headers) of every answer.
REFUSALS = {
    "none": (404, {"X-Error-Code": "RepoNotFound"}),
    "gated": (403, {"X-Error-Code": "GatedRepo"}),
    "norev": (404, {"X-Error-Code": "RevisionNotFound"}),
    "nonsense": (200, {}),
}
TREES = {
    "pickled": [("config.json", 10), ("pytorch_model.bin", 10)],
    "huge": [("config.json", 10), ("model.safetensors", 300 << 30)],
}
EXPECTED = {
    "hf:none/x": "invalid-reference",
    "hf:gated/x": "invalid-reference",
    "hf:norev/x@v1": "invalid-reference",
    "hf:nonsense/x": "temporary",
    "hf:pickled/x": "unsafe-format",
    "hf:huge/x": "invalid-model",
}
ASK = """
import json, sys
from bitwright.core.errors import BitwrightError
from bitwright.models import open_model
found = {}
for ref in sys.argv[1:]:
    try:
        open_model(ref, allow_path=False)
    except BitwrightError as error:
        found[ref] = [error.slug, error.detail]
print(json.dumps(found))
"""


class Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        parts = self.path.split("?")[0].split("/")
        owner = parts[3] if self.path.startswith("/api/models/") else parts[1]
        status, headers = REFUSALS.get(owner, (200, {}))
        if "resolve" in parts:
            size = dict(TREES[owner])[parts[-1]]
            headers = {"X-Repo-Commit": COMMIT, "ETag": '"0"', "X-Linked-Size": str(size), "X-Linked-ETag": '"0"'}
        body = b"<html>" if owner in REFUSALS else json.dumps(self.answer(owner)).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 (the name that http.server asks for)

    def answer(self, owner: str) -> object:
        files = TREES[owner]
        if "/tree/" in self.path:
            return [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in files]
        return {"id": f"{owner}/x", "sha": COMMIT, "siblings": [{"rfilename": name} for name, _ in files]}

    def log_message(self, *args: object) -> None:
        """Silent."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(endpoint: str, home: Path, *refs: str) -> dict[str, list[str]]:
    """A process of its own: huggingface_hub reads its environment when it is imported."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *refs], env=env, capture_output=True, text=True, timeout=120, check=True
    )
    answers: dict[str, list[str]] = json.loads(done.stdout)
    return answers


def test_each_answer_is_a_typed_error_and_nothing_is_downloaded(hub: str, tmp_path: Path) -> None:
    found = ask(hub, tmp_path, *EXPECTED)
    assert {ref: slug for ref, (slug, _) in found.items()} == EXPECTED
    assert "too large" in found["hf:huge/x"][1]
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".bin", ".safetensors"}]


def test_a_hub_that_is_not_there_is_temporary(tmp_path: Path) -> None:
    found = ask("http://127.0.0.1:9", tmp_path, "hf:acme/tiny")
    assert found["hf:acme/tiny"][0] == "temporary"
