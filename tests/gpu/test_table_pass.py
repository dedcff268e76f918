"""solvers.torch_pass over tables that lie on a GPU: the compiled pass's plan, certified, the same twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_kernels.compute import compute_device
from solvers import cuda_pass, torch_bracket, torch_visit
from tests.gpu.places import GPU, on
from tests.solvers.instances import instance
from tests.solvers.test_torch_pass import TABLES, check_plan

N = 1_000_000


@pytest.mark.parametrize("large", [100_000, torch_bracket.LARGE])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("family", "k", "bits"), TABLES)
def test_the_same_plan_as_the_compiled_pass(
    family: str, k: int, dtype: type, bits: float, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on(GPU):
        device = compute_device()
    check_plan(instance(family, N, k, 1, dtype=dtype, bits=bits), device, large, monkeypatch)


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
        for count in (1, 5, 32):
            grid = middle * np.geomspace(1e-3, 1e3, count)
            one = torch_bracket.spent(some, size, rates, grid)
            with monkeypatch.context() as patch:
                patch.setattr(cuda_pass, "takes", lambda loss, size: False)
                other = torch_bracket.spent(some, size, rates, grid)
            # torch may round a product and a sum once where the kernel rounds twice: a row at a border goes either way
            assert np.abs(one - other).max() <= 2 * int(size.max()) * int(rate[-1])
