"""solvers.torch_pass over tables that lie on a GPU: the compiled pass's plan, certified, the same twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitwright.core.certificate import certify
from gpu_kernels.compute import compute_device
from solvers import cuda_pass, native, torch_bracket, torch_pass, torch_visit
from tests.gpu.places import GPU, on
from tests.solvers.instances import instance

N = 1_000_000


@pytest.mark.parametrize("large", [100_000, torch_bracket.LARGE])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("family", "k", "bits"), [("groups", 4, 3.5), ("hetero", 8, 7.9), ("oddsize", 12, 3.5), ("experts", 8, 2.01)]
)
def test_the_same_plan_as_the_compiled_pass(
    family: str, k: int, dtype: type, bits: float, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """large: from where samples of samples narrow the bracket; the lower, the fewer rows go to the host."""
    monkeypatch.setattr(torch_bracket, "LARGE", large)
    monkeypatch.setattr(torch_pass, "FEW", large >> 4)
    one = instance(family, N, k, 1, dtype=dtype, bits=bits)
    resource, limit = one.resources[0], int(one.limits[0].value)
    with on(GPU):
        device = compute_device()
    tensors = [torch.from_numpy(a).to(device) for a in (one.loss, resource.size, resource.rate)]
    ours, again = (torch_pass.solve_table(*tensors, limit) for _ in range(2))
    compiled = native.solve_table(one.loss, limit, size=resource.size, rate=resource.rate)
    assert (ours is None) == (again is None) == (compiled.status == native.INFEASIBLE)
    if ours is None or again is None:
        return
    assert torch.equal(ours.choice, again.choice)
    assert (ours.loss, ours.cost, ours.slope) == (again.loss, again.cost, again.slope)
    checked = certify(
        torch_pass.problem(*tensors, limit), ours.choice.cpu().numpy().astype(np.int64), {"bits": ours.slope}
    )
    assert checked.cost["bits"] == ours.cost <= limit
    scale = checked.loss + ours.slope * limit
    assert checked.loss == pytest.approx(ours.loss, abs=1e-12 * scale)
    assert checked.lower_bound == pytest.approx(ours.bound, abs=2e-12 * scale)
    assert ours.loss == pytest.approx(compiled.loss, abs=1e-8 * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [2, 3, 4, 6, 8, 12, 33, 64])
def test_the_kernel_settles_what_torchs_operations_settle(
    k: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any number of formats, both types of sizes, a table that does not begin at a multiple of 16 bytes, forbidden
    cells."""
    with on(GPU):
        device = compute_device()
    rng = np.random.default_rng(k)
    rate = np.sort(rng.choice(np.arange(1, 500), k, replace=False))
    table = rng.exponential(1, (100_001, 1)) * 4.0 ** (-rate / 60) * rng.uniform(0.5, 2, (100_001, k))
    table[rng.random(table.shape) < 0.05] = np.inf
    table[:, 0] = np.where(np.isinf(table).all(axis=1), 1.0, table[:, 0])
    loss = torch.from_numpy(table).to(dtype).to(device)
    sizes = torch.from_numpy(rng.integers(1, 5000, 100_001)).to(device)
    rates = torch.from_numpy(rate).to(device)
    middle = float(np.median(table[:, 0])) / (rate[-1] * 2500)
    for some, size in ((loss, sizes), (loss[1:], sizes[1:].int()), (loss, sizes[:1].expand(100_001))):
        assert cuda_pass.takes(some, size) == (device.type == "cuda")
        ours = torch_visit.fused_pass(some, size, rates, 0.8 * middle, 1.25 * middle)
        with monkeypatch.context() as patch:
            patch.setattr(cuda_pass, "takes", lambda loss, size: False)
            theirs = torch_visit.fused_pass(some, size, rates, 0.8 * middle, 1.25 * middle)
        assert 0 < len(theirs.rows) < len(some)
        assert torch.equal(ours.rows, theirs.rows)
        settled = torch.ones(len(some), dtype=torch.bool, device=device)
        settled[ours.rows] = False
        assert torch.equal(ours.choice[settled], theirs.choice[settled])
        assert ours.cost == theirs.cost
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-12)
