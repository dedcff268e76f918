"""How a command ends: exit codes, Ctrl-C, a closed pipe, a mistake of ours, a package that hides ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from bitwright.cli import main, progress
from bitwright.cli.shadow import check_packages
from bitwright.core.errors import Cancelled, Infeasible, InvalidInput, InvalidSetting, JobFailed, Temporary

Capture = pytest.CaptureFixture[str]


def raising(error: BaseException) -> Callable[[Namespace], int]:
    def handler(args: Namespace) -> int:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobFailed("x"), 1),
        (InvalidInput("x"), 2),
        (Infeasible("x"), 3),
        (Temporary("x"), 75),
        (Cancelled("x"), 130),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("division by zero"), 1),
        (MemoryError(), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_exit_codes(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("bitwright.cli.catalogs.run", raising(error))
    assert main(["formats", "--json"]) == code
    out, err = capsys.readouterr()
    assert json.loads(out)["title"]
    assert err.startswith("bitwright: ")
    assert "Traceback" not in err


def test_ctrl_c_during_the_imports_is_answered_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Regression: SIGINT in the first 0.2 s printed a trace."""

    class Interrupting:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "bitwright.cli.command":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "bitwright.cli.command", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert main(["formats", "--json"]) == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    out, err = capsys.readouterr()
    assert json.loads(out)["title"] == "The job was cancelled"
    assert err.startswith("bitwright: stopped by the keyboard")


def test_ctrl_c_that_a_library_wraps_in_an_error_of_its_own_is_still_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Regression: numpy turned a SIGINT during its import into an ImportError, shown as a mistake of ours."""

    def handler(args: Namespace) -> int:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("importing the C extensions failed") from error

    monkeypatch.setattr("bitwright.cli.catalogs.run", handler)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main(["formats"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "unexpected" not in capsys.readouterr().err


def test_a_mistake_of_ours_is_one_line_with_a_hint(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("bitwright.cli.catalogs.run", raising(KeyError("first\nsecond")))
    assert main(["formats"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("bitwright: unexpected KeyError")
    assert "--debug" in lines[1]


def test_debug_shows_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.cli.catalogs.run", raising(InvalidInput("x")))
    with pytest.raises(InvalidInput):
        main(["formats", "--debug"])


def test_a_closed_pipe_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "bitwright", "formats"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""


def test_a_package_that_hides_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hidden_by_test").mkdir()
    (tmp_path / "hidden_by_test" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidSetting, match="hides the one of bitwright"):
        check_packages(("hidden_by_test",))
    check_packages(("package_that_is_nowhere",))


def test_our_own_packages_are_not_hidden() -> None:
    check_packages()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_serve_stops_on_signals_and_leaves_no_process(stop: signal.Signals, tmp_path: Path) -> None:
    import psutil

    command = [sys.executable, "-m", "bitwright", "serve", "--port", "0", "--state-dir", str(tmp_path), "--json"]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    assert server.stdout is not None
    try:
        url = json.loads(server.stdout.readline())["url"]
        assert url.startswith("http://127.0.0.1:")
        children = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(stop)
        assert server.wait(60) == (0 if stop == signal.SIGTERM else 130)
        assert server.stdout.read() == ""  # regression: Ctrl-C printed a second JSON document
        _, alive = psutil.wait_procs(children, timeout=30)
        assert [(process.pid, process.status()) for process in alive] == []
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_a_port_in_use_is_a_typed_error(tmp_path: Path, capsys: Capture) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        code = main(["serve", "--port", str(taken.getsockname()[1]), "--workers", "0", "--state-dir", str(tmp_path)])
    assert code == 2
    assert "--port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["worker", "--slots", "0"], "--slots from 1 to 64"),
        (["worker", "--slots", "65"], "--slots from 1 to 64"),
        (["serve", "--root", "models=/nonexistent"], "a folder of models"),
        (["serve", "--root", "models"], "NAME=DIR"),
        (["frontier", "missing.npz", "--points", "1"], "--points of 2 or more"),
    ],
)
def test_values_that_cannot_work_are_refused_at_once(words: list[str], expected: str, capsys: Capture) -> None:
    """Regression: a worker of no slots ran for ever, a missing root was found when the first job failed."""
    assert main([*words, "--json"]) == 2
    assert expected in json.loads(capsys.readouterr().out)["expected"]


# --- the progress bar -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [None, False])
def test_no_bar_without_a_terminal(wanted: bool | None, capsys: Capture) -> None:
    with progress.progress_bar(Namespace(progress=wanted)) as move:
        move("score", 0.5, "half")
    assert capsys.readouterr() == ("", "")


def test_the_bar_goes_to_stderr_and_starts_anew_with_each_stage(capsys: Capture) -> None:
    with progress.progress_bar(Namespace(progress=True)) as move:
        for stage, fraction in (("score", 0.0), ("score", 0.4), ("score", 1.7), ("solve", 0.0), ("solve", -1.0)):
            move(stage, fraction, "layer 3")
            time.sleep(0)
    out, err = capsys.readouterr()
    assert out == ""
    assert "score" in err
    assert "solve" in err
