"""The examples, run as they stand: against a real server with a real worker, on a real (small) model."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.api.running import Running, running_server
from tests.models_inspect import checkpoints
from worker.embedded import embedded_worker

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("examples")
    (folder / "models").mkdir()
    checkpoints.write(folder / "models" / "llama", checkpoints.decoder("llama", "LlamaForCausalLM"))
    roots = {"models": folder / "models"}
    with running_server(folder / "state", model_roots=roots) as server, embedded_worker(server.settings, slots=1):
        yield server


def environment(api: Running, run_id: str) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {
        **os.environ, "PATH": path, "BITWRIGHT_SERVER": api.url, "MODEL": "file:models/llama", "BUDGET": "4.5bpw",
        "BUDGETS": "3.5bpw,4.5bpw", "RUN_ID": run_id, "PYTHONPATH": str(ROOT),
    }  # fmt: skip


def run(api: Running, words: list[str], folder: Path, run_id: str) -> str:
    done = subprocess.run(
        words, env=environment(api, run_id), cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def jobs_of(api: Running) -> int:
    return len(api.http.get("/v1/jobs?page_size=1000").json()["jobs"])


def airflow_command() -> str:
    tree = ast.parse((EXAMPLES / "airflow_dag.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    keywords = {word.arg: word.value for call in calls for word in call.keywords}
    command = ast.literal_eval(keywords["bash_command"])
    assert ast.literal_eval(keywords["env"])["RUN_ID"].startswith("{{ run_id }}"), "a key of the run, not of the try"
    return command


def argo_command() -> str:
    workflow = yaml.safe_load((EXAMPLES / "argo_workflow.yaml").read_text())
    (template,) = workflow["spec"]["templates"]
    assert {"MODEL", "BUDGET", "RUN_ID", "BITWRIGHT_SERVER"} <= {one["name"] for one in template["container"]["env"]}
    return template["container"]["args"][0]


def ci_command() -> str:
    pipeline = yaml.safe_load((EXAMPLES / "ci_step.yaml").read_text())
    return pipeline["jobs"]["plan"]["steps"][0]["run"]


def test_curl_creates_waits_and_finds_the_same_job_again(api: Running, tmp_path: Path) -> None:
    first = json.loads(run(api, ["sh", str(EXAMPLES / "curl.sh")], tmp_path, "curl-1"))
    before = jobs_of(api)
    again = json.loads(run(api, ["sh", str(EXAMPLES / "curl.sh")], tmp_path, "curl-1"))
    assert first["plan_digest"] == again["plan_digest"]
    assert jobs_of(api) == before


@pytest.mark.parametrize("command", [airflow_command, argo_command, ci_command])
def test_pipeline_steps_write_the_plan_and_repeat_without_a_second_job(api: Running, tmp_path: Path, command) -> None:
    for _ in range(2):
        run(api, ["bash", "-ec", command()], tmp_path, command.__name__)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["bitwright_plan"] == 1
    keyed = api.http.get("/v1/jobs?page_size=1000").json()["jobs"]
    assert len({job["id"] for job in keyed}) == len(keyed)


def test_the_async_client_plans_several_budgets_at_once(api: Running, tmp_path: Path) -> None:
    out = run(api, [sys.executable, str(EXAMPLES / "async_client.py")], tmp_path, "async")
    losses = [float(line.split()[1]) for line in out.splitlines()]
    assert len(losses) == 2
    assert losses[0] > losses[1] > 0
