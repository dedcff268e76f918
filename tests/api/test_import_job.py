"""`import` as a job: another tool's mix beside a model of this server's roots becomes a plan, and a better one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitwright.core.plan import load_plan
from bitwright.engines import EXPORTERS
from bitwright.models import inspect, open_model
from service.keys import KeyFile
from tests.api.running import Running, assert_problem, running_server
from tests.engines.plans import plan_of
from tests.models_inspect.checkpoints import LAYOUTS, SIZES, write
from worker.embedded import embedded_worker

REQUEST = {"kind": "import", "model": "file:m/llama", "source": "file:m/types.txt"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, dict[str, str]]]:
    """A server with a worker, and the key of a tenant."""
    folder = tmp_path_factory.mktemp("import")
    config, shapes = LAYOUTS["llama-gqa"]
    inventory = inspect(open_model(str(write(folder / "m" / "llama", ({**config, **SIZES}, shapes)))))
    menu = ("q4_0", "q8_0", "bf16")
    wanted = {u.name: menu[i % 3] if u.layer is not None else "bf16" for i, u in enumerate(inventory.units)}
    (folder / "m" / "types.txt").write_text(EXPORTERS.load("llama.cpp")(plan_of(inventory, wanted)))
    (folder / "secret.txt").write_text("token=q4_0\n")
    (folder / "m" / "out.txt").symlink_to(folder / "secret.txt")
    (folder / "m" / "folder").mkdir()
    (folder / "m" / "folder" / "config.json").symlink_to(folder / "secret.txt")
    text, _ = KeyFile(folder / "state" / "keys.json").create("ann", tenant="ann")
    with running_server(folder / "state", model_roots={"m": folder / "m"}) as server:
        server.http.headers["Authorization"] = f"Bearer {text}"
        with embedded_worker(server.settings, slots=1):
            yield server, {"BITWRIGHT_API_KEY": text}


def test_a_mix_becomes_a_plan_and_a_better_one(served: tuple[Running, dict[str, str]]) -> None:
    api, _ = served
    job = api.http.post("/v1/jobs", json=REQUEST, headers={"Prefer": "wait=60"}).json()
    assert job["state"] == "succeeded", job
    result = api.http.get(job["links"]["result"]).json()
    theirs, better = api.http.get(job["links"]["plan"]).json(), api.http.get(job["links"]["better"]).json()
    assert (theirs, better) == (result["plan"], result["better"])
    assert theirs["provenance"]["imported"] == "tensor-types"
    assert better["totals"]["predicted_loss"] < theirs["totals"]["predicted_loss"]
    assert better["totals"]["bytes"] <= theirs["totals"]["bytes"]
    for plan in (theirs, better):
        verdict = api.http.post("/v1/plans:verify", json={"plan": plan, "table": result["table_digest"]})
        assert verdict.json()["ok"], verdict.text


def test_the_command_line_imports_on_a_server(served: tuple[Running, dict[str, str]], tmp_path: Path) -> None:
    api, key = served
    done = subprocess.run(
        [sys.executable, "-m", "bitwright", "import", "file:m/llama", "--from", "file:m/types.txt", "--server", api.url,
         "--out", "theirs.json", "--better", "ours.json", "--json"],
        cwd=tmp_path, env={**os.environ, **key}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    theirs, ours = load_plan(tmp_path / "theirs.json"), load_plan(tmp_path / "ours.json")
    assert json.loads(done.stdout) == theirs.to_json()
    assert ours.totals.predicted_loss < theirs.totals.predicted_loss


@pytest.mark.parametrize(
    ("members", "slug"),
    [
        ({"source": "/etc/passwd"}, "invalid-reference"),
        ({"source": "file:m/../state/keys.json"}, "invalid-reference"),
        ({"source": "https://example.com/x.gguf"}, "invalid-reference"),
        ({"tool": "unzip"}, "unknown-name"),
        ({"metric": "guess"}, "unknown-name"),
        ({"engine": "abacus"}, "unknown-name"),
        ({"source": None}, "invalid-input"),
    ],
)
def test_what_could_never_be_imported_is_refused_at_once(
    served: tuple[Running, dict[str, str]], members: dict[str, object], slug: str
) -> None:
    assert_problem(served[0].http.post("/v1/jobs", json={**REQUEST, **members}), 422, slug)


@pytest.mark.parametrize("name", ["out.txt", "folder", "nothing"])
def test_a_source_that_leads_out_of_its_root_is_not_read(served: tuple[Running, dict[str, str]], name: str) -> None:
    body = {**REQUEST, "source": f"file:m/{name}"}
    job = served[0].http.post("/v1/jobs", json=body, headers={"Prefer": "wait=60"}).json()
    assert job["state"] == "failed"
    wanted = "invalid-model" if name == "nothing" else "invalid-reference"
    assert job["error"]["type"].endswith(wanted), job["error"]
    assert "token" not in json.dumps(job)
