"""`bitwright score` and `plan` on models and calibration data that break them: exit codes, words, and no file left."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bitwright.cli import main
from tests.sensitivity.tiny_models import VOCABULARY, save_model

Capture = pytest.CaptureFixture[str]
FORMATS = ("--formats", "int3-g32,int8-g32")


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llama"
    save_model("llama", folder)
    return folder


def _ids(path: Path, items: int = 6, length: int = 12) -> Path:
    np.save(path, np.random.default_rng(0).integers(0, VOCABULARY, (items, length)))
    return path


def _refused(words: list[object], out: Path, capsys: Capture) -> tuple[int, str]:
    """Exit code and slug of the problem; nothing may be left of the output."""
    code = main([*map(str, words), "--out", str(out), "--json"])
    printed, _ = capsys.readouterr()
    assert not list(out.parent.glob(f"*{out.name}*")), "something half-written"
    return code, str(json.loads(printed)["type"]).rsplit("/", 1)[-1].rsplit(":", 1)[-1]


@pytest.mark.parametrize(
    ("tensor", "value", "code", "slug"),
    [
        ("model.layers.1.mlp.down_proj.weight", np.nan, 2, "invalid-model"),
        ("model.layers.1.mlp.down_proj.weight", np.inf, 2, "invalid-model"),
        ("model.norm.weight", np.nan, 2, "invalid-model"),
        ("model.layers.1.mlp.down_proj.weight", 3e38, 2, "unsupported"),
        ("model.norm.weight", 3e38, 1, "not-finite"),
    ],
    ids=["nan", "infinite", "nan-outside-the-plan", "scales-overflow", "forward-overflows"],
)
def test_models_that_give_nan(
    tmp_path: Path, capsys: Capture, tensor: str, value: float, code: int, slug: str
) -> None:  # fmt: skip
    save_model("llama", tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    tensors[tensor] = np.full(tensors[tensor].shape, value, np.float32)
    save_file(tensors, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    words: list[object] = ["score", tmp_path / "m", *FORMATS, "--calibration", _ids(tmp_path / "ids.npy")]
    assert _refused(words, tmp_path / "table.npz", capsys) == (code, slug)


@pytest.mark.parametrize("name", ["empty", "binary", "missing", "one item", "outside", "too long"])
def test_calibration_data_that_cannot_be_used(llama: Path, tmp_path: Path, capsys: Capture, name: str) -> None:
    path = tmp_path / ("data.npy" if name in ("one item", "outside", "too long") else "data.txt")
    if name in ("empty", "binary"):
        path.write_bytes(b"" if name == "empty" else bytes(range(256)) * 9)
    elif name == "one item":
        _ids(path, items=1)
    elif name == "outside":
        np.save(path, np.full((4, 8), VOCABULARY))
    elif name == "too long":
        _ids(path, length=65)
    words: list[object] = ["score", llama, *FORMATS, "--calibration", path]
    assert _refused(words, tmp_path / "table.npz", capsys) == (2, "invalid-calibration")


def test_experts_that_no_token_reaches_are_named(tmp_path: Path, capsys: Capture) -> None:
    """Regression: the table for people gave stand-ins like measured losses. Each item is one token: it takes two of
    four experts, and no use of queries and keys."""
    save_model("mixtral", tmp_path / "m")
    np.save(tmp_path / "ids.npy", np.array([[3], [7]]))
    words = [str(tmp_path / "m"), *FORMATS, "--calibration", str(tmp_path / "ids.npy")]
    assert main(["score", *words, "--out", str(tmp_path / "table.npz")]) == 0
    table, _ = capsys.readouterr()
    rows = [line for line in table.splitlines() if "(not measured)" in line]
    assert rows
    assert all("experts" in line or "q_proj" in line or "k_proj" in line for line in rows)
    assert any("experts" in line for line in rows)
    assert not any(float(loss) == 0 for line in rows for loss in line.split()[-2:])
    assert f"warning: {len(rows)} units were not reached by the calibration data" in table
    assert main(["plan", *words, "--budget", "5bpw"]) == 0
    report, _ = capsys.readouterr()
    assert f"warning: {len(rows)} units were not reached by the calibration data" in report


def test_a_calibration_file_that_is_not_there_is_told_before_a_server_is(tmp_path: Path, capsys: Capture) -> None:
    """Regression: an invalid plan, it was said."""
    words: list[object] = ["score", "file:m", "--calibration", tmp_path / "no.txt", "--server", "http://127.0.0.1:9"]
    assert _refused(words, tmp_path / "table.npz", capsys) == (2, "invalid-calibration")


def test_too_little_address_space(llama: Path, tmp_path: Path) -> None:
    """Regression: a library that did not fit was an unexpected error. 300 MiB hold Python and numpy, and no torch."""
    words = ["score", str(llama), *FORMATS, "--calibration", str(_ids(tmp_path / "ids.npy")), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "bitwright", *words, "--out", str(tmp_path / "table.npz")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20)),
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["type"].endswith("out-of-resources"), done.stdout
    assert not (tmp_path / "table.npz").exists()
