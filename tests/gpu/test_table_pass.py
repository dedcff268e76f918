"""solvers.torch_pass over tables that lie on a GPU: the compiled pass's plan, certified, the same twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitwright.core.certificate import certify
from gpu_kernels.compute import compute_device
from solvers import native, torch_pass
from tests.gpu.places import GPU, on
from tests.solvers.instances import instance

N = 3_000_000


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("family", "k", "bits"), [("groups", 4, 3.5), ("hetero", 8, 7.9), ("oddsize", 12, 3.5), ("experts", 8, 2.01)]
)
def test_the_same_plan_as_the_compiled_pass(family: str, k: int, dtype: type, bits: float) -> None:
    one = instance(family, N, k, 1, dtype=dtype, bits=bits)
    resource, limit = one.resources[0], int(one.limits[0].value)
    with on(GPU):
        device = compute_device()
    tensors = [torch.from_numpy(a).to(device) for a in (one.loss, resource.size, resource.rate)]
    ours, again = (torch_pass.solve_table(*tensors, limit) for _ in range(2))
    compiled = native.solve_table(one.loss, limit, size=resource.size, rate=resource.rate)
    assert ours is not None
    assert again is not None
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
