"""What runs on a real GPU only: collected where BITWRIGHT_TEST_GPU=1, as `make gpu` sets it.

BITWRIGHT_TEST_DEVICE names another device of torch than `cuda`.
"""

from __future__ import annotations

import os

import pytest

from tests.sensitivity.conftest import tiny

__all__ = ["tiny"]

collect_ignore_glob = [] if os.environ.get("BITWRIGHT_TEST_GPU") == "1" else ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def _there() -> None:
    """A machine without a GPU fails at once, with the error that a user would see."""
    from gpu_kernels.compute import compute_device
    from tests.gpu.places import GPU, on

    with on(GPU):
        assert compute_device().type != "cpu"
