"""Where heavy arithmetic runs: the CPU unless something else is there and wanted, and never a device that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitwright.core.errors import InvalidSetting
from bitwright.settings import Settings
from gpu_kernels.compute import accelerator, compute_device, device_words
from sensitivity.base import NUMERICS
from tests import devices
from worker.sandbox import Order

SECOND = pytest.mark.skipif(not devices.POSSIBLE, reason=devices.NO_COMPILER)


def test_without_an_accelerator_the_cpu_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for told in (None, "auto", "cpu"):
        if told is not None:
            monkeypatch.setenv("BITWRIGHT_DEVICE", told)
        if told == "cpu" or not torch.cuda.is_available():
            assert accelerator() is None
            assert device_words() is None
            assert compute_device() == torch.device("cpu")


def test_torch_is_not_loaded_to_be_told_that_it_sees_nothing() -> None:
    code = "import sys; from gpu_kernels.compute import accelerator; print(accelerator(), 'torch' in sys.modules)"
    assert devices.output(code, "cpu").split() == ["None", "False"]


@pytest.mark.parametrize("told", ["cuda:63", "xpu", "nosuchdevice", "meta"])
def test_a_device_that_torch_does_not_see_is_a_typed_error(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_DEVICE", told)
    with pytest.raises(InvalidSetting, match="BITWRIGHT_DEVICE") as error:
        accelerator()
    assert "cpu" in str(error.value.expected)
    assert str(error.value.got).startswith(told)
    assert "BITWRIGHT_DEVICE" in str(error.value.hint)


@pytest.mark.parametrize("told", ["", "CUDA", "cuda:", "cuda:1000", "../x", "a" * 40])
def test_what_names_no_device_is_a_typed_error(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_DEVICE", told)
    with pytest.raises(InvalidSetting, match="BITWRIGHT_DEVICE"):
        accelerator()


@SECOND
def test_any_device_that_torch_can_open_is_taken_and_named_in_keys() -> None:
    import torch

    code = (
        "from gpu_kernels.compute import accelerator, compute_device, device_words\n"
        "from sensitivity.base import numerics\n"
        "print(accelerator(), compute_device(), device_words(), numerics(), sep='|')"
    )
    assert devices.output(code).strip() == f"second:0|second:0|second (test)|{NUMERICS} on second (test)"
    if not torch.cuda.is_available():
        assert devices.output(code, "auto").strip() == f"None|cpu|None|{NUMERICS}"


@SECOND
def test_the_second_device_keeps_its_tensors_apart() -> None:
    """What the other tests rest on: it computes what the CPU computes, and refuses to mix with it."""
    code = (
        "import torch\n"
        "a = torch.arange(12.0).reshape(3, 4); b = a.to('second')\n"
        "assert torch.equal((b.T @ b).cpu(), a.T @ a) and torch.equal(b[torch.tensor([2, 0])].cpu(), a[[2, 0]])\n"
        "for wrong in (lambda: b + a, lambda: b @ a.T, lambda: torch.cat([a, b]), lambda: b.numpy(),\n"
        "              lambda: torch.where(b > 1, a, b), lambda: b.normal_(generator=torch.Generator())):\n"
        "    try:\n"
        "        wrong()\n"
        "    except (RuntimeError, TypeError) as error:\n"
        "        print('refused:', str(error)[:60])\n"
    )
    assert devices.output(code).count("refused:") == 6


@SECOND
def test_a_full_device_is_told_from_other_errors() -> None:
    code = (
        "import torch\n"
        "from gpu_kernels.compute import device_full\n"
        "try:\n"
        "    torch.empty(1 << 20, device='second')\n"
        "except RuntimeError as error:\n"
        "    print(device_full(error), device_full(RuntimeError('x')))\n"
    )
    assert devices.output(code, SECOND_DEVICE_BYTES=str(1 << 20)).split() == ["True", "False"]


def test_a_child_of_the_worker_computes_where_its_worker_does(tmp_path: Path) -> None:
    order = Order({}, Settings(device="cuda:1"), "m:f", tmp_path / "log", tmp_path)
    assert order.environment()["BITWRIGHT_DEVICE"] == "cuda:1"
