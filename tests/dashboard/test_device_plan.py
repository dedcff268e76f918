"""A plan for a device: the parts of its memory add up to the device, on the page as in the plan."""

from __future__ import annotations

import pytest

from bitwright.core.plan import CacheChoice, Memory, Plan
from tests.dashboard.chromium import Browser, find_chromium
from tests.dashboard.conftest import Site
from tests.dashboard.sample_state import llama_units, plan_of, table_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is missing; `make test` installs Debian's"),
]
GIB = 2**30


def planned() -> Plan:
    """8 GiB: 5 for the file, 1 each for cache and engine, half each for activations and what is not usable."""
    cache = (CacheChoice(part="both", format="fp16", bytes=GIB, loss=0.0),)
    memory = Memory(
        context=8192, batch=1, device_bytes=8 * GIB, usable_bytes=15 * GIB // 2, activation_bytes=GIB // 2,
        engine_bytes=GIB, cache=cache, total_bytes=15 * GIB // 2,
    )  # fmt: skip
    plan = plan_of(table_of("hf:org/device", llama_units(2), 1), 4.0)
    prediction = {"kl": 0.02, "low": 0.01, "high": 0.03, "stability": {"changed": 0.1, "regret": 0.02, "tables": 20}}
    return plan.model_copy(update={"memory": memory, "provenance": {**plan.provenance, "prediction": prediction}})


def test_the_parts_of_a_devices_memory_are_told(site: Site, browser: Browser) -> None:
    server, _ = site
    plan = planned()
    server.blobs.put_as("plans", plan.digest, plan)
    browser.open(f"{server.url}/#/plans/{plan.digest}")
    card = browser.evaluate(
        "[...document.querySelectorAll('section')].find(s => s.innerText.includes('of the device are spent')).innerText"
    )
    for words in ("8.00 GiB of the device", "5.00 GiB", "62.5 %", "1.00 GiB", "512 MiB"):
        assert words in card
    browser.wait("document.querySelector('.lights') !== null")
    text = browser.text("main")
    assert "95 % between 0.01 and 0.03" in text
    browser.page.wait_for_load_state("networkidle")
    browser.forgive("404")  # its sensitivity table was never stored
    assert "10.0 % of the units change format, on average of 20 tables" in text


def test_the_form_says_a_devices_budget_as_the_server_reads_it(site: Site, browser: Browser) -> None:
    server, _ = site
    browser.open(f"{server.url}/#/new?model=hf:org/name&unit=device&budget=24&engine=vllm")
    assert "24GiB device, 8192 context, batch 1" in browser.text("pre")
    browser.page.fill("#device-context", "4096")
    browser.page.fill("#device-batch", "4")
    assert "24GiB device, 4096 context, batch 4" in browser.text("pre")
    browser.page.click("text=Check only")
    browser.wait("document.querySelector('#checked').innerText.includes('valid')")
