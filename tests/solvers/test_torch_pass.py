"""The torch path on CPU tensors against the compiled one; the code names no device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitwright.core.certificate import certify
from bitwright.core.errors import InvalidProblem
from bitwright.core.problem import Problem
from solvers import native, torch_bracket, torch_pass, torch_visit
from tests.solvers.instances import instance

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native library is not built")


#: Family, formats, bits: the last has no plan.
TABLES = [("groups", 4, 3.5), ("hetero", 8, 7.9), ("oddsize", 12, 3.5), ("experts", 8, 2.01)]


def check_plan(one: Problem, device: torch.device, large: int, monkeypatch: pytest.MonkeyPatch, **told: int) -> None:
    """The compiled solver's plan, certified, and the same twice.

    large: from where samples of samples narrow the bracket; the lower, the fewer rows go to the host.
    """
    monkeypatch.setattr(torch_bracket, "LARGE", large)
    monkeypatch.setattr(torch_pass, "FEW", large >> 4)
    resource, limit = one.resources[0], int(one.limits[0].value)
    tensors = [torch.from_numpy(a).to(device) for a in (one.loss, resource.size, resource.rate)]
    ours, again = (torch_pass.solve_table(*tensors, limit, **told) for _ in range(2))
    compiled = native.solve_table(one.loss, limit, size=resource.size, rate=resource.rate)
    assert (ours is None) == (again is None) == (compiled.status == native.INFEASIBLE)
    if ours is None or again is None:
        return
    assert torch.equal(ours.choice, again.choice)
    assert (ours.loss, ours.cost, ours.slope) == (again.loss, again.cost, again.slope)
    choice = ours.choice.cpu().numpy().astype(np.int64)
    checked = certify(torch_pass.problem(*tensors, limit), choice, {"bits": ours.slope})
    assert checked.cost["bits"] == ours.cost <= limit
    scale = checked.loss + ours.slope * limit
    assert checked.loss == pytest.approx(ours.loss, abs=1e-12 * scale)
    assert checked.lower_bound == pytest.approx(ours.bound, abs=2e-12 * scale)
    assert ours.loss == pytest.approx(compiled.loss, abs=1e-8 * scale)


@pytest.mark.parametrize("large", [1000, torch_bracket.LARGE])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("family", "k", "bits"), TABLES)
def test_the_same_plan_as_the_compiled_pass(
    family: str, k: int, dtype: type, bits: float, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = instance(family, 40_000, k, 1, dtype=dtype, bits=bits)
    check_plan(one, torch.device("cpu"), large, monkeypatch, sample=4096)


def test_a_settled_row_is_settled_for_the_whole_bracket() -> None:
    one = instance("hetero", 20_000, 8, 2, dtype=np.float32)
    size, rate = one.resources[0].size, one.resources[0].rate
    slope = native.solve_table(one.loss, int(one.limits[0].value), size=size, rate=rate).slope
    low, high = 0.9 * slope, 1.1 * slope
    found = torch_visit.fused_pass(*(torch.from_numpy(a) for a in (one.loss, size, rate)), low, high)
    settled = np.setdiff1d(np.arange(one.n), found.rows.numpy())
    assert 0 < len(found.rows) < one.n // 4
    cost = np.multiply.outer(size, rate)[settled]
    for slope in np.linspace(low, high, 5):
        value = one.loss[settled].astype(np.float64) + slope * cost
        best = value[np.arange(len(settled)), found.choice.numpy()[settled]]
        assert (best <= value.min(axis=1) * (1 + 1e-15)).all()


def test_one_size_for_all_and_sizes_of_32_bits_are_the_same_plan() -> None:
    one = instance("groups", 20_000, 8, 3, dtype=np.float32)
    loss, rate, limit = torch.from_numpy(one.loss), torch.from_numpy(one.resources[0].rate), int(one.limits[0].value)
    size = torch.from_numpy(one.resources[0].size)
    first = torch_pass.solve_table(loss, size, rate, limit)
    for other in (size[:1].expand(len(size)), size.to(torch.int32)):
        second = torch_pass.solve_table(loss, other, rate, limit)
        assert first is not None
        assert second is not None
        assert torch.equal(first.choice, second.choice)
        assert (first.cost, first.loss, first.slope) == (second.cost, second.loss, second.slope)


@pytest.mark.parametrize("n", [100, 12_345])
def test_a_sample_takes_one_row_of_every_stretch(n: int) -> None:
    rows = torch_bracket._spread(n, n >> 4, 7, torch.device("cpu")).numpy()
    width = n // (n >> 4)
    assert (rows // width == np.arange(n >> 4)).all()
    assert rows.max() < n
    if n > 1000:  # every place of a stretch, none twice as often as another should
        counts = np.bincount(rows % width, minlength=width)
        assert counts.min() > 0.5 * counts.mean()
        assert counts.max() < 1.5 * counts.mean()


def test_a_few_rows_are_solved_as_the_compiled_solver_does() -> None:
    rng = np.random.default_rng(0)
    none = 0
    for _ in range(60):
        n, k = int(rng.integers(1, 30)), int(rng.integers(2, 6))
        loss, size = rng.exponential(1, (n, k)), rng.integers(1, 50, n)
        rate = np.sort(rng.choice(np.arange(1, 40), k, replace=False))
        limit = int(rng.uniform(0.8, 1.1) * size.sum() * rng.uniform(rate[0], rate[-1]))
        ours = torch_pass.solve_table(*(torch.from_numpy(a) for a in (loss, size, rate)), limit)
        compiled = native.solve_table(loss, limit, size=size, rate=rate)
        assert (ours is None) == (compiled.status == native.INFEASIBLE)
        none += ours is None
        assert ours is None or ours.loss == pytest.approx(compiled.loss, rel=1e-12)
    assert 0 < none < 20


def test_what_no_plan_can_spend_is_no_gap() -> None:
    """Regression: with sizes of 64 and more and rates a thousand apart the limit left something over that no plan can
    spend, and all rows went to the host to look for it."""
    size, rate = torch.tensor([128, 64, 320]), torch.tensor([2250, 3250, 4250])
    totals = {128 * a + 64 * b + 320 * c for a in (2250, 3250, 4250) for b in (2250, 3250, 4250) for c in (2250, 3250)}
    for limit in (1_300_000, 1_355_000, max(totals) + 63_999):
        left = torch_pass._unspendable(size, rate, limit)
        assert left < 64_000
        assert all(total <= limit - left or total > limit for total in totals)
        assert any((total - limit + left) % 64_000 == 0 for total in totals)
    assert torch_pass._unspendable(size[:1].expand(5), rate, 5 * 128 * 2250 + 128_000 + 7) == 7
    assert torch_pass._unspendable(size, rate[:1], 10**6) == 0


def test_tables_of_one_format_or_one_loss_or_without_weights_have_a_plan() -> None:
    """Regression: the grid of multipliers began at 0 (ValueError), or the limit was divided by no weights at all."""
    two, ten = torch.tensor([2, 4]), torch.tensor([10, 10, 10])
    for loss, size, rate, limit, cost in (
        (torch.ones(3, 1), ten, two[:1], 60, 60),
        (torch.ones(3, 2), ten, two, 90, None),
        (torch.ones(3, 2), ten, two, 10**6, None),
        (torch.tensor([[3.0, 1.0]] * 3), 0 * ten, two, 0, 0),
        (torch.tensor([[3.0, 1.0]] * 3), torch.tensor([10, 0, 10]), two, 60, 60),
    ):
        ours = torch_pass.solve_table(loss, size, rate, limit)
        assert ours is not None
        assert ours.cost <= limit
        assert cost is None or ours.cost == cost
    assert torch_pass.solve_table(torch.ones(3, 1), ten, two[:1], 59) is None


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    "strange", [[float("nan"), 1.0], [-float("inf"), 1.0], [1.0, float("nan")], [float("inf")] * 2]
)
def test_a_row_that_cannot_be_used_is_found_without_a_look_at_the_whole_table(
    strange: list[float], large: bool
) -> None:
    """Regression: NaN came back as the loss of a plan, and -inf was passed over."""
    loss = torch.rand(50_000 if large else 1, 2)
    loss[len(loss) // 2] = torch.tensor(strange)
    size = torch.full((len(loss),), 10)
    with pytest.raises(InvalidProblem):
        torch_pass.solve_table(loss, size, torch.tensor([2, 4]), 30 * len(loss))


def test_tensors_that_are_no_table_are_refused() -> None:
    loss, size, rate = torch.ones(3, 2), torch.ones(3, dtype=torch.int64), torch.tensor([1, 2])
    for given in (
        (loss.numpy(), size, rate, 9), (loss.half(), size, rate, 9), (loss, size.double(), rate, 9),
        (loss, size[:2], rate, 9), (loss[:0], size[:0], rate, 9), (torch.ones(3, 65), size, torch.arange(65), 9),
        (loss, size, -rate, 9), (loss, size, rate, 9.5), (loss, size, rate, float("nan")), (loss[0], size, rate, 9),
    ):  # fmt: skip
        with pytest.raises(InvalidProblem):
            torch_pass.solve_table(*given)  # type: ignore[arg-type]
