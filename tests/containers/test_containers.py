"""Every container: predicted = written = read back, bounds, sharding, resuming, and what goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitwright.core.errors import (
    InvalidInput,
    InvalidModel,
    InvalidPlan,
    OutOfResources,
    Temporary,
    UnknownName,
    Unsupported,
    VerificationFailed,
)
from bitwright.core.formats import parse_format
from quantizers.containers.catalog import CONTAINERS
from quantizers.containers.journal import open_journal
from quantizers.containers.packed_reader import read as plain_read
from quantizers.rtn import QUANTIZER
from tests.containers.toy import toy
from tests.strategies import format_names, shapes

SHAPES = {"a.weight": (33, 64), "b.weight": (5, 96), "c.weight": (16, 32), "d.weight": (4, 4)}
#: For layouts whose words and groups want whole multiples.
WHOLE = {"a.weight": (32, 64), "b.weight": (64, 96), "c.weight": (32, 32), "d.weight": (4, 4)}
MIXES = {
    "packed": ["int3-g40", "int1-g7", "int8-sym-channel", "bf16"],
    "compressed-tensors": ["int3-sym-g32", "int1-sym-channel", "int6-g32", "fp16"],
    "compressed-tensors-0.17": ["int3-g32", "int5-sym-channel", "int7-sym-g64", "fp16"],
    "gptq": ["int3-sym-g32", "int4-sym-channel", "int8-sym-g32", "fp16"],
    "mlx": ["int3-g32", "int5-sym-g32", "int8-g32", "fp16"],
}
#: What a reader needs besides numpy, and what it is asked in a process that cannot see this project.
READER = ("packed_reader.py", "packed_blocks.py", "packed_grids.py", "packed_parts.py")
READING = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy, packed_reader
assert not any(name.partition(".")[0] in ("bitwright", "quantizers", "gpu_kernels") for name in sys.modules)
model = packed_reader.read(sys.argv[2])
names = [name for name in model if name[1:] == ".weight"]
print(json.dumps({name: float(numpy.abs(model[name]).sum(dtype=numpy.float64)) for name in sorted(names)}))
"""
#: Containers of safetensors files, which hold any model; gguf has its own tests.
BOTH = pytest.mark.parametrize("name", tuple(MIXES))


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    return WHOLE if name in {"gptq", "mlx"} else SHAPES


def written(report: Any) -> int:
    return sum((report.path / file).stat().st_size for file in report.files)


def make(tmp_path: Path, name: str, **options: Any) -> tuple[Any, Any, Any, Any]:
    container = CONTAINERS.load(name)
    source, inventory = toy(tmp_path / "model", shapes_of(name))
    formats = [parse_format(text) for text in MIXES[name]]
    return (
        container,
        container.write(source, inventory, formats, tmp_path / "out", **options),
        (source, inventory),
        formats,
    )


@BOTH
@pytest.mark.parametrize("shard", [10**9, 700, 1])
def test_written_is_predicted_and_reads_back(name: str, shard: int, tmp_path: Path) -> None:
    container, report, (source, inventory), formats = make(tmp_path, name, max_shard_bytes=shard)
    assert report.file_bytes == written(report)
    predicted = container.predict(inventory, formats, max_shard_bytes=shard)
    assert (predicted.file_bytes, predicted.files) == (report.file_bytes, report.files)
    assert report.file_bytes == report.unit_bytes + report.rest_bytes + report.overhead_bytes
    assert report.unit_bytes == sum(f.storage(u.shape).bytes for u, f in zip(inventory.units, formats, strict=True))
    assert report.overhead_bytes <= container.max_overhead(inventory, formats, max_shard_bytes=shard)
    checkpoint = container.read(report.path)
    assert list(checkpoint.formats().values()) == formats
    for unit, format in zip(inventory.units, formats, strict=True):
        expected = QUANTIZER.quantize(source.read_float32(unit.tensor), format).dequantize()
        assert np.array_equal(checkpoint.dequantized(unit.name), expected)
        assert np.array_equal(checkpoint.read_float32(unit.tensor), expected)
    assert sorted(checkpoint.rest_names()) == sorted(t.name for t in inventory.rest)
    for tensor in inventory.rest:
        assert np.array_equal(checkpoint.raw(tensor.name), source.arrays[tensor.name])
    assert (report.path / "tokenizer.json").is_file()
    assert not list(tmp_path.glob(".out*"))


@BOTH
def test_files_are_ordinary_safetensors(name: str, tmp_path: Path) -> None:
    load_file = pytest.importorskip("safetensors.torch").load_file
    _, report, _, _ = make(tmp_path, name)
    tensors = load_file(report.path / "model.safetensors")
    assert tensors["embed.weight"].shape == (11, 3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_cost_model_is_what_packed_writes(data: st.DataObject) -> None:
    """core.formats == bytes on disk, for random shapes (stacked too) and formats; bounds hold for random menus."""
    names = [f"u{i}" for i in range(data.draw(st.integers(1, 4)))]
    model = {n: data.draw(shapes(largest=40, stacked=True)) for n in names}
    container = CONTAINERS.load("packed")
    with tempfile.TemporaryDirectory() as folder:
        source, inventory = toy(Path(folder) / "model", model)
        menu = [parse_format(t) for t in data.draw(st.lists(format_names(), min_size=1, max_size=4))]
        formats = [data.draw(st.sampled_from(menu)) for _ in inventory.units]
        shard = data.draw(st.sampled_from([10**9, 2000]))
        report = container.write(source, inventory, formats, Path(folder) / "out", max_shard_bytes=shard)
        assert written(report) == container.predict(inventory, formats, max_shard_bytes=shard).file_bytes
        assert report.overhead_bytes <= container.max_overhead(inventory, menu, max_shard_bytes=shard)
        checkpoint = container.read(report.path)
        used = {n for n in checkpoint.tensors if n not in {t.name for t in inventory.rest}}
        on_disk = sum(checkpoint.tensors[n].stop - checkpoint.tensors[n].start for n in used)
        assert on_disk == sum(f.storage(u.shape).bytes for u, f in zip(inventory.units, formats, strict=True))
        plain = plain_read(report.path)
        assert set(plain) == set(model) | {t.name for t in inventory.rest}
        for name in model:
            assert plain[name].shape == model[name]
            assert np.array_equal(plain[name], checkpoint.read_float32(name))


def test_the_plain_reader_is_short_and_stands_alone(tmp_path: Path) -> None:
    """Copied somewhere else with its data, it reads a checkpoint with numpy alone, grids and mixed formats too."""
    here = Path(__file__).parents[2]
    files = [*(here / "quantizers" / "containers").glob("packed_*.py"), here / "gpu_kernels" / "gaussian_grids.npz"]
    texts = {path.name: path.read_text() for path in files if path.name in READER}
    assert set(texts) == set(READER)
    assert len(texts["packed_reader.py"].splitlines()) < 100
    assert not any("from bitwright" in text or "from quantizers" in text for text in texts.values())
    container = CONTAINERS.load("packed")
    source, inventory = toy(tmp_path / "model", SHAPES)
    formats = [parse_format(f) for f in ("higgs-p2-n64", "higgs-p1-n8-g32", "q4_0", "bf16")]
    report = container.write(source, inventory, formats, tmp_path / "out")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in files:
        if path.name in READER or path.suffix == ".npz":
            (copy / path.name).write_bytes(path.read_bytes())
    words = [sys.executable, "-I", "-c", READING, str(copy), str(report.path)]
    found = subprocess.run(words, capture_output=True, text=True, check=True, cwd=copy)
    checkpoint = container.read(report.path)
    sums = {name: float(np.abs(checkpoint.read_float32(name)).sum(dtype=np.float64)) for name in SHAPES}
    assert json.loads(found.stdout) == sums


@BOTH
def test_a_killed_run_goes_on_where_it_stood(name: str, tmp_path: Path) -> None:
    container = CONTAINERS.load(name)
    source, inventory = toy(tmp_path / "model", shapes_of(name))
    formats = [parse_format(text) for text in MIXES[name]]
    seen: list[str] = []

    def stop(stage: str, fraction: float, message: str) -> None:
        seen.append(message)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        container.write(source, inventory, formats, tmp_path / "out", progress=stop)
    assert not (tmp_path / "out").exists()
    again: list[str] = []
    report = container.write(
        source, inventory, formats, tmp_path / "out", progress=lambda s, f, m: again.append(m) if s == "write" else None
    )
    assert not set(seen) & set(again)
    fresh = container.write(source, inventory, formats, tmp_path / "fresh")
    for file in report.files:
        assert (report.path / file).read_bytes() == (fresh.path / file).read_bytes()


def test_a_half_written_folder_of_another_plan_is_not_used(tmp_path: Path) -> None:
    container = CONTAINERS.load("packed")
    source, inventory = toy(tmp_path / "model", SHAPES)

    def stop(stage: str, fraction: float, message: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        container.write(source, inventory, [parse_format("int4-g64")] * 4, tmp_path / "out", progress=stop)
    (tmp_path / ".out.partial" / "stray.json").write_text("{}")
    report = container.write(source, inventory, [parse_format("int2-g64")] * 4, tmp_path / "out")
    assert not (report.path / "stray.json").exists()
    assert set(container.read(report.path).formats().values()) == {parse_format("int2-g64")}


def test_the_same_again_is_a_report_and_something_else_is_refused(tmp_path: Path) -> None:
    container, report, (source, inventory), formats = make(tmp_path, "packed")
    before = (report.path / "model.safetensors").stat().st_mtime_ns
    assert container.write(source, inventory, formats, tmp_path / "out") == report
    assert (report.path / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(InvalidInput, match="not empty"):
        container.write(source, inventory, [parse_format("int4-g64")] * 4, tmp_path / "out")


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    with open_journal(tmp_path / ".out.partial", "someone"), pytest.raises(Temporary):
        make(tmp_path, "packed")


def test_damage_between_writing_and_reading_is_found(tmp_path: Path) -> None:
    container = CONTAINERS.load("packed")
    source, inventory = toy(tmp_path / "model", SHAPES)

    def spoil(stage: str, fraction: float, message: str) -> None:
        if stage == "write" and fraction == 1.0:
            file = tmp_path / ".out.partial" / "model.safetensors"
            data = bytearray(file.read_bytes())
            data[-40] ^= 1
            file.write_bytes(bytes(data))

    with pytest.raises(VerificationFailed, match="reads back differently"):
        container.write(source, inventory, [parse_format("int4-g64")] * 4, tmp_path / "out", progress=spoil)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.partial").exists()


def test_no_room_is_seen_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(OutOfResources, match="not enough room"):
        make(tmp_path, "packed")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_nan_weights_stop_the_job_and_leave_nothing(tmp_path: Path) -> None:
    source, inventory = toy(tmp_path / "model", SHAPES)
    source.arrays["c.weight"][3, 3] = np.nan
    with pytest.raises(InvalidModel, match=r"c\.weight"):
        CONTAINERS.load("packed").write(source, inventory, [parse_format("int4-g64")] * 4, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_too_few_formats(tmp_path: Path) -> None:
    _, inventory = toy(tmp_path / "model", SHAPES)
    with pytest.raises(InvalidPlan, match="one format a unit"):
        CONTAINERS.load("packed").predict(inventory, [parse_format("int4-g64")])


@pytest.mark.parametrize(
    ("shape", "format", "expected"),
    [
        ((8, 64), "int4-sym-g64-fp32", "float16 scales"),
        ((8, 70), "int4-sym-g64", "divides 70"),
        ((2, 8, 64), "int4-sym-g64", "one matrix a tensor"),
    ],
)
def test_compressed_tensors_says_what_it_cannot_hold(
    shape: tuple[int, ...], format: str, expected: str, tmp_path: Path
) -> None:
    _, inventory = toy(tmp_path / "model", {"a.weight": shape})
    with pytest.raises(Unsupported) as caught:
        CONTAINERS.load("compressed-tensors").predict(inventory, [parse_format(format)] * len(inventory.units))
    assert expected in str(caught.value)
    assert caught.value.hint


def _edit(path: Path, change: Any) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(version=9),
        lambda m: m.update(bitwright_container="zip"),
        lambda m: m["units"][0].update(format="int9-g64"),
        lambda m: m["units"][0].update(shape=[3]),
        lambda m: m.pop("units"),
    ],
)
def test_a_strange_manifest_is_refused(change: Any, tmp_path: Path) -> None:
    container, report, _, _ = make(tmp_path, "packed")
    _edit(report.path / "bitwright.json", change)
    with pytest.raises(InvalidModel):
        container.read(report.path)


def test_a_manifest_that_lies_about_a_width_is_refused(tmp_path: Path) -> None:
    container, report, _, _ = make(tmp_path, "packed")
    _edit(report.path / "bitwright.json", lambda m: m["units"][0].update(format="int4-g40"))
    with pytest.raises(InvalidModel, match=r"a\.weight\.codes"):
        container.read(report.path).quantized("a.weight")
    with pytest.raises(UnknownName):
        container.read(report.path).quantized("nobody")


def test_a_config_that_disagrees_with_the_manifest_is_refused(tmp_path: Path) -> None:
    container, report, _, _ = make(tmp_path, "compressed-tensors")

    def widen(config: dict[str, Any]) -> None:
        config["quantization_config"]["config_groups"]["group_0"]["weights"]["num_bits"] = 4

    _edit(report.path / "config.json", widen)
    with pytest.raises(InvalidModel, match="differently"):
        container.read(report.path)


@pytest.mark.parametrize("cut", [3, 100, -1])
def test_truncated_files_are_refused(cut: int, tmp_path: Path) -> None:
    container, report, _, _ = make(tmp_path, "packed")
    file = report.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(InvalidModel, match=r"model\.safetensors"):
        container.read(report.path)


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"bitwright\.json"):
        CONTAINERS.load("packed").read(tmp_path)


def test_links_out_of_the_model_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('"secret"')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link.json").symlink_to(tmp_path / "secret.json")
    _, report, _, _ = make(tmp_path, "packed")
    assert not (report.path / "link.json").exists()
