"""Tools that others wrote, against the real server.

- openapi-python-client generates a client from openapi/openapi.json; it then creates, reads and cancels a job
  (tests/api/test_generated_client.py);
- schemathesis walks the API, stateful links included: no answer of 5xx, no undocumented status. It lives in a virtual
  environment of its own: `make tools`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.api.running import running_server

ROOT = Path(__file__).resolve().parents[2]
USE = """
import sys
sys.path.insert(0, sys.argv[1])
from bitwright_client import Client
from bitwright_client.api.jobs import create_job, get_job, list_jobs, cancel_job
from bitwright_client.api.solve import solve
from bitwright_client.models import InspectRequest, Job, SolveRequest

with Client(base_url=sys.argv[2], raise_on_unexpected_status=True) as client:
    body = InspectRequest.from_dict({"kind": "inspect", "model": "hf:org/name"})
    job = create_job.sync(client=client, body=body, idempotency_key="generated")
    assert isinstance(job, Job), job
    again = create_job.sync(client=client, body=body, idempotency_key="generated")
    assert again.id == job.id
    assert get_job.sync(job.id, client=client).state == "queued"
    assert job.id in [one.id for one in list_jobs.sync(client=client).jobs]
    assert cancel_job.sync(job.id, client=client).state == "cancelled"
print("the generated client works")
"""
#: Checks of schemathesis that are goals here; the others judge style or send what the grammar of a text forbids.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def generated_client(tools: Path, url: str, folder: Path) -> None:
    generate = [tools / "openapi-python-client", "generate", "--path", ROOT / "openapi" / "openapi.json"]
    subprocess.run(
        [*generate, "--output-path", folder / "client", "--meta", "none", "--overwrite"], check=True, cwd=folder
    )
    (folder / "client").rename(folder / "bitwright_client")
    subprocess.run([tools / "python", "-c", USE, folder, url], check=True)


def schemathesis(tools: Path, url: str, cases: int, seed: int, seconds: int) -> int:
    each = max(1, cases // 40)  # about as many operations and links
    words = ["run", f"{url}/openapi.json", "--checks", CHECKS, "--max-examples", str(each), "--seed", str(seed)]
    words += ["--phases", "examples,coverage,fuzzing,stateful", "--max-time", str(seconds), "--continue-on-failure"]
    return subprocess.run([tools / "schemathesis", *words], check=False, env={**os.environ, "NO_COLOR": "1"}).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path, default=ROOT / ".venv-tools" / "bin")
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=1200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bitwright-tools-") as name:
        folder = Path(name)
        limits = {"wait_seconds": 1, "stream_seconds": 1, "ping_seconds": 0.5, "tenant_queued_jobs": 100_000}
        with running_server(folder / "state", **limits) as server:
            return schemathesis(given.tools, server.url, given.cases, given.seed, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
