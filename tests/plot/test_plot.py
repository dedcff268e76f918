"""`bitwright plot`: well-formed SVG with every format in its legend, PNG of the same, words for the rest."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bitwright.cli import main
from bitwright.core.errors import Unsupported
from bitwright.core.plan import load_plan
from bitwright.plot import heatmap_svg
from bitwright.plot.svg import bits_of, colour, ink, log_ticks
from tests.dashboard.sample_state import FORMATS, llama_units, plan_of, table_of

HOSTILE = '<script>alert("1")</script>&' + "long-" * 50


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plot")
    table = table_of(HOSTILE, llama_units(6), 1)
    plan_of(table, 3.5).save(folder / "plan.json")
    table.save(folder / "table.npz")
    return folder


def words_of(path: Path) -> list[str]:
    return [element.text or "" for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_heat_map_names_every_module_and_format(files: Path) -> None:
    assert main(["plot", str(files / "plan.json"), "--out", str(files / "plan.svg")]) == 0
    words, plan = words_of(files / "plan.svg"), load_plan(files / "plan.json")
    assert {unit.module for unit in plan.units} <= set(words)
    for name in {unit.format for unit in plan.units}:
        count = sum(unit.format == name for unit in plan.units)
        assert any(f"{name} ({count} unit" in text for text in words)
    assert not list(ElementTree.parse(files / "plan.svg").iter("{http://www.w3.org/2000/svg}script"))


def test_frontier_marks_uniform_plans_and_a_plan(files: Path) -> None:
    given = [str(files / "table.npz"), "--plan", str(files / "plan.json"), "--ties", "qkv,gate_up"]
    assert main(["plot", *given, "--out", str(files / "frontier.svg")]) == 0
    words = words_of(files / "frontier.svg")
    assert set(FORMATS) <= set(words)
    assert "plan of 3.5bpw" in words
    assert "bits per weight of the planned units" in words
    assert any(text.startswith("predicted loss (nats") for text in words)


def test_labels_of_the_frontier_do_not_overlap(files: Path) -> None:
    assert main(["plot", str(files / "table.npz"), "--out", str(files / "labels.svg")]) == 0
    boxes = []
    for found in ElementTree.parse(files / "labels.svg").iter("{http://www.w3.org/2000/svg}text"):
        if (found.text or "") in FORMATS:
            x, y, wide = float(found.attrib["x"]), float(found.attrib["y"]), 7.0 * len(found.text or "")
            left = x if found.attrib["text-anchor"] == "start" else x - wide
            boxes.append((left, left + wide, y - 10, y))
    for i, a in enumerate(boxes):
        assert not any(a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3] for b in boxes[i + 1 :])


@pytest.mark.parametrize("source", ["plan.json", "table.npz"])
def test_png_is_the_same_picture_at_twice_the_size(files: Path, source: str) -> None:
    assert main(["plot", str(files / source), "--out", str(files / "out.png")]) == 0
    assert main(["plot", str(files / source), "--out", str(files / "out.svg")]) == 0
    data = (files / "out.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    size = ElementTree.parse(files / "out.svg").getroot().attrib
    assert int.from_bytes(data[16:20], "big") == pytest.approx(2 * float(size["width"]), abs=2)
    assert int.from_bytes(data[20:24], "big") == pytest.approx(2 * float(size["height"]), abs=2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["plan.json", "--out", "out.gif"], "FILE.svg or FILE.png"),
        (["plan.json", "--plan", "plan.json", "--out", "out.svg"], "frontier"),
        (["missing.json", "--out", "out.svg"], "no such plan file"),
        (["missing.npz", "--out", "out.svg"], "missing.npz"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    monkeypatch.chdir(files)
    (files / "out.svg").unlink(missing_ok=True)
    assert main(["plot", *words]) == 2
    assert told in capsys.readouterr().err
    assert not (files / "out.svg").exists()


def test_a_plan_with_thousands_of_modules_is_refused(files: Path) -> None:
    plan = load_plan(files / "plan.json")
    units = tuple(plan.units[0].model_copy(update={"name": f"u{i}", "module": f"module {i}"}) for i in range(1000))
    with pytest.raises(Unsupported, match="too many modules"):
        heatmap_svg(plan.model_copy(update={"units": units}))


@pytest.mark.parametrize(
    ("name", "bits"),
    [("int4-g64", 4), ("int-l6-g64", 2.6), ("q4_k", 4), ("fp16", 16), ("tcq2.5", 2.5), ("higgs-p2-n32-g64", 2.5)],
)
def test_bits_of_a_format_by_its_name(name: str, bits: float) -> None:
    assert bits_of(name) == bits


def test_words_on_every_colour_can_be_read() -> None:
    """WCAG 2.2: at least 4.5 to 1."""
    for tenth in range(5, 200):
        bits = tenth / 10
        light = [luminance(colour(bits)), luminance(ink(bits))]
        assert (max(light) + 0.05) / (min(light) + 0.05) >= 4.5


def luminance(code: str) -> float:
    parts = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("low", "high"), [(1.0, 9.0), (0.9, 1.1), (1e-9, 1.0), (230.0, 3.2e4)])
def test_ticks_lie_inside_and_are_few(low: float, high: float) -> None:
    found = log_ticks(low, high, 8)
    assert found == sorted(found)
    assert all(low * 0.999 <= tick <= high * 1.001 for tick in found)
    assert 1 <= len(found) <= 8
