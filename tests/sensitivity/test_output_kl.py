"""SliM-LLM's score against its definition in float64, and its ladder of plans against counting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.balance import centre, dealt
from bitwright.core.errors import InvalidInput, Unsupported
from bitwright.core.formats import MixedFormat, parse_format
from sensitivity.data import Data
from sensitivity.deltas import Deltas, unit_weight
from sensitivity.output_kl import METRIC
from sensitivity.runner import load_runner
from sensitivity.salience import block_losses
from sensitivity.scoring import score
from tests.sensitivity.test_published_metrics import _inputs, _task
from tests.sensitivity.tiny_models import DATA, Opened, calibrated

MENU = ("sign-g8", "int2-g8", "int3-g8", "int4-g8")


def kl(outputs: np.ndarray, changed: np.ndarray) -> float:
    p, q = (torch.log_softmax(torch.from_numpy(x), -1) for x in (outputs, changed))
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("model", ["llama", "vit"])
def test_the_score_is_the_kl_of_a_layers_outputs(tiny: dict[str, Opened], model: str) -> None:
    source, inventory = tiny[model]
    data = DATA[model]()
    runner = load_runner(source, inventory)
    inputs, parameters = _inputs(runner, data), runner.parameters
    formats = ("int2-g32", "int4-g32")
    table = score(source, inventory, formats, metric="output-kl", calibration=calibrated(data))
    errors = Deltas(source, inventory, tuple(parse_format(name) for name in formats), "rtn")
    for number, unit in enumerate(inventory.units):
        name = runner.slices[unit.name].parameter
        bias = parameters.get(name.removesuffix("weight") + "bias")
        plain = inputs[name] @ unit_weight(source, unit).T.astype(np.float64)
        plain += 0 if bias is None else bias.detach().double().numpy()
        for column, delta in enumerate(errors.stack(number)):
            expected = kl(plain, plain + inputs[name] @ delta.T.astype(np.float64))
            assert table.loss[number, column] == pytest.approx(expected, rel=2e-3, abs=2e-6)


def test_plans_are_scored_whole_and_uniform_is_among_them(tiny: dict[str, Opened]) -> None:
    source, inventory = tiny["llama"]
    data, formats = DATA["llama"](), tuple(parse_format(name) for name in MENU)
    runner = load_runner(source, inventory)
    inputs = _inputs(runner, data)
    target = {
        "bits": 2 + 3.0,
        "rounding": "nearest",
    }  # int2-g8: 2 bits, 18/8 of scales and zero points, and the widths of blocks
    table = score(
        source, inventory, MENU, metric="output-kl", calibration=calibrated(data), granularity="column:8",
        options=target,
    )  # fmt: skip
    task = replace(_task(tiny["llama"], data), formats=formats, deltas=Deltas(source, inventory, formats, "rtn"))
    salience = {name: found for name, (found, _) in block_losses(task, 8).items()}
    for number, unit in enumerate(inventory.units):
        plain = inputs[runner.slices[unit.name].parameter] @ unit_weight(source, unit).T.astype(np.float64)
        offered = [name for name in table.menus[number] if name]
        assert np.isfinite(table.loss[number, : len(offered)]).all()
        widths = [np.array([int(MENU.index(f.members[i].name)) for i in f.choice]) for f in map(parse_format, offered)]
        assert len(set(widths[0])) <= 2
        order = np.argsort(salience[unit.name], kind="stable")
        for moved, (name, width) in enumerate(zip(offered, widths, strict=True)):
            format = parse_format(name)
            assert isinstance(format, MixedFormat)
            assert (np.diff(width[order]) >= 0).all()
            assert width.sum() == widths[0].sum()
            assert format.storage(unit.shape).bytes <= 5 * unit.elements / 8
            blocks = np.split(task.deltas.stack(number), unit.shape[1] // 8, axis=2)
            delta = np.concatenate([block[w] for block, w in zip(blocks, width, strict=True)], axis=1)
            expected = kl(plain, plain + inputs[runner.slices[unit.name].parameter] @ delta.T.astype(np.float64))
            assert table.loss[number, moved] == pytest.approx(expected, rel=2e-3, abs=2e-6)


@settings(max_examples=200, deadline=None)
@given(
    parts=st.integers(1, 40), first=st.integers(1, 50), steps=st.lists(st.integers(1, 30), min_size=2, max_size=7),
    share=st.floats(0, 1.3),
)  # fmt: skip
def test_the_centre_spends_the_room_and_not_more(parts: int, first: int, steps: list[int], share: float) -> None:
    sizes = np.cumsum([first, *steps]).astype(np.int64)
    room = int(share * sizes[-1] * parts)
    middle, surplus = centre(sizes, room, parts)
    low, high = max(0, -surplus), max(0, surplus)
    assert low + high <= parts
    plan = middle + dealt(np.arange(parts), low, high)
    spent = int(sizes[plan].sum())
    if room >= sizes[0] * parts:
        assert spent <= room
        fuller = np.sort(plan)
        if plan.min() < len(sizes) - 1:
            fuller[0] += 1
            assert sizes[fuller].sum() > room
    if room in (sizes[1:] * parts).tolist():
        assert (middle, surplus) == (int(np.flatnonzero(sizes * parts == room)[0]), 0)


def test_blocks_without_a_target_or_of_other_cuts_are_refused(tiny: dict[str, Opened]) -> None:
    data = calibrated(DATA["llama"]())

    def ask(granularity: str, formats: tuple[str, ...] = MENU, **options: object) -> None:
        score(*tiny["llama"], formats, metric="output-kl", calibration=data, granularity=granularity, options=options)

    with pytest.raises(InvalidInput, match="none was named"):
        ask("column:8")
    with pytest.raises(Unsupported, match="blocks of columns"):
        ask("row", bits=3.0)
    with pytest.raises(Unsupported, match="one bit"):
        ask("column:8", ("int2-g8", "int4-g8"), bits=3.0)
    with pytest.raises(InvalidInput, match="these options"):
        ask("column:8", bits=4.0, tokens=0)
    assert METRIC.needs_data


def test_a_layer_of_few_blocks_and_a_unit_without_tokens_have_a_plan(tiny: dict[str, Opened]) -> None:
    """Blocks of 16 leave 2 or 3 a matrix: the released search has no candidate below 4."""
    few = Data("tokens", {"input_ids": DATA["mixtral"]().inputs["input_ids"][:1, :2]})
    formats = tuple(name.replace("g8", "g16") for name in MENU)
    source, inventory = tiny["mixtral"]
    table = score(
        source, inventory, formats, metric="output-kl", calibration=calibrated(few), granularity="column:16",
        options={"bits": 3.5},
    )  # fmt: skip
    assert all(menu[0] for menu in table.menus)
    assert {len([name for name in menu if name]) for menu in table.menus} >= {1, 2}
    assert table.provenance["unmeasured"]
