"""The dashboard in a real Chromium: every view with data, keyboard, drag, dark, phone, hostile names, a lost server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bitwright.core.plan import plan_from_json
from bitwright.core.table import load_table
from tests.api.running import Running, running_server
from tests.dashboard.chromium import Browser, find_chromium
from tests.dashboard.conftest import Site
from tests.dashboard.sample_state import TWELVE, TWELVE_WIDTHS, llama_units, store_table, table_of, views

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is missing; `make test` installs Debian's"),
]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_every_view_opens_without_complaint_and_fits_the_screen(
    site: Site, browser: Browser, width: int, dark: bool
) -> None:
    server, made = site
    browser.look(width, 900, dark=dark)
    for name, fragment in views(made).items():
        browser.open(f"{server.url}/{fragment}")
        overflow = browser.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, f"{name} is {overflow} px wider than the screen"
        assert browser.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
        assert "undefined" not in browser.text("main"), name
        assert "NaN" not in browser.text("main"), name


def test_every_control_and_picture_has_a_name(site: Site, browser: Browser) -> None:
    server, made = site
    script = """[...document.querySelectorAll('button, a, input, select, textarea, svg[role=img], [role=progressbar]')]
      .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length || e.title))
      .map(e => e.outerHTML.slice(0, 120))"""
    for name, fragment in views(made).items():
        browser.open(f"{server.url}/{fragment}")
        assert browser.evaluate(script) == [], name


def test_hostile_names_are_text(site: Site, browser: Browser) -> None:
    server, _ = site
    browser.open(f"{server.url}/#/jobs")
    assert "<img src=x onerror=alert(1)>" in browser.text("main")
    assert browser.evaluate("document.querySelector('main img') === null")


def test_plan_says_its_certificate_and_walks_by_keyboard(site: Site, browser: Browser) -> None:
    server, made = site
    browser.open(f"{server.url}/#/plans/{made['plan']}")
    plan = plan_from_json(server.http.get(f"/v1/plans/{made['plan']}").json())
    assert plan.certificate["status"].capitalize() in browser.text(".verdict")
    cells = browser.evaluate("document.querySelectorAll('.heat td[role=gridcell]').length")
    assert cells == len(plan.units)
    browser.evaluate("document.querySelector('.heat td[tabindex=\"0\"]').focus()")
    first = browser.evaluate("document.activeElement.getAttribute('aria-label')")
    browser.press("ArrowRight")
    browser.press("ArrowDown")
    second = browser.evaluate("document.activeElement.getAttribute('aria-label')")
    assert "layer 0" in first
    assert "layer 1" in second
    assert browser.evaluate("document.querySelectorAll('.heat td[tabindex=\"0\"]').length") == 1
    assert plan.units[0].format[3] in browser.text(".heat")
    browser.press("Enter")
    browser.wait("document.body.innerText.includes('Why int')")
    assert "least" in browser.text("main")


def test_experts_unfold(site: Site, browser: Browser) -> None:
    server, made = site
    browser.open(f"{server.url}/#/plans/{made['moe_plan']}")
    browser.evaluate("document.querySelector('.heat td[role=gridcell]').click()")
    assert browser.evaluate("document.querySelectorAll('.expert').length") == 16


def test_plan_exports_or_says_why_not(site: Site, browser: Browser) -> None:
    server, made = site
    browser.open(f"{server.url}/#/plans/{made['plan']}")
    browser.evaluate("[...document.querySelectorAll('button')].find(b => b.textContent === 'mlx').click()")
    browser.wait("document.querySelector('.note-line pre, .note-line .problem') !== null")
    browser.forgive("422")


def dragged(server: Running, browser: Browser, digest: str, steps: int = 12) -> list[dict[str, Any]]:
    browser.open(f"{server.url}/#/frontier/{digest}", ready="svg.frontier")
    box = browser.evaluate("document.querySelector('svg.frontier').getBoundingClientRect().toJSON()")
    y = box["top"] + box["height"] / 2
    browser.page.mouse.move(box["left"] + box["width"] * 0.2, y)
    browser.page.mouse.down()
    found = []
    for step in range(1, steps + 1):
        browser.page.mouse.move(box["left"] + box["width"] * (0.2 + 0.7 * step / steps), y)
        browser.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found.append(
            browser.evaluate(
                "(({dataset}) => ({bytes: document.querySelector('.readout .bytes').textContent,"
                " budget: Number(dataset.budget), ms: Number(dataset.milliseconds)}))"
                "(document.querySelector('[data-budget]'))"
            )
        )
    browser.page.mouse.up()
    return found


def test_dragged_budget_moves_plan_and_bytes(site: Site, browser: Browser) -> None:
    server, made = site
    found = dragged(server, browser, made["llama_table"])
    assert len({entry["bytes"] for entry in found}) == len(found)
    last = found[-1]["budget"]
    assert [entry["budget"] for entry in found] == sorted(entry["budget"] for entry in found)
    browser.wait(f"location.hash.includes('bytes={last}')")
    assert "int" in browser.text(".legend")


def test_plan_in_the_browser_is_the_solvers_to_within_its_bound(site: Site, browser: Browser) -> None:
    server, made = site
    table = load_table(server.blobs.path("tables", made["llama_table"]))
    for bits in (2.5, 3.5, 5.0):
        limit = int(bits * table.inventory.weights / 8)
        script = f"""(async () => {{
          const {{ Allocator }} = await import('/assets/allocate.js');
          const table = await (await import('/assets/api.js')).tableOf('{made["llama_table"]}');
          const plan = new Allocator(table, ['qkv']).at({limit});
          return {{ choice: [...plan.choice], loss: plan.loss, bound: plan.bound, bytes: plan.bytes }};
        }})()"""
        browser.open(f"{server.url}/#/system")
        found = browser.evaluate(script)
        body = {"table": made["llama_table"], "ties": ["qkv"], "limits": {"bytes": limit}}
        solution = server.http.post("/v1/solve", json=body).json()
        rows, cost = range(len(found["choice"])), table.cost_bytes()
        assert found["loss"] == pytest.approx(sum(float(table.loss[i, found["choice"][i]]) for i in rows), rel=1e-9)
        assert found["bytes"] == sum(int(cost[i, found["choice"][i]]) for i in rows) <= limit
        assert found["bound"] <= solution["loss"] * (1 + 1e-9)
        assert solution["loss"] <= found["loss"] * (1 + 1e-9)
        assert found["bound"] == pytest.approx(solution["certificate"]["lower_bound"], rel=1e-6)


def test_first_and_last_high_in_the_browser_is_the_solvers(site: Site, browser: Browser) -> None:
    server, made = site
    table = load_table(server.blobs.path("tables", made["llama_table"]))
    browser.open(f"{server.url}/#/system")
    for bits, ties in ((2.5, ["qkv"]), (3.5, []), (4.4, ["qkv", "gate_up"])):
        limit = int(bits * table.inventory.weights / 8)
        found = browser.evaluate(
            f"""(async () => {{
          const {{ Allocator }} = await import('/assets/allocate.js');
          const table = await (await import('/assets/api.js')).tableOf('{made["llama_table"]}');
          return new Allocator(table, {json.dumps(ties)}).positional({limit});
        }})()"""
        )
        body = {"table": made["llama_table"], "ties": ties, "limits": {"bytes": limit}, "solver": "positional"}
        solution = server.http.post("/v1/solve", json=body).json()
        assert found["loss"] == pytest.approx(solution["loss"], rel=1e-9)
        assert found["bytes"] == solution["certificate"]["cost"]["bytes"]


def test_plan_shows_engines_the_thumb_rule_and_how_sure_it_is(site: Site, browser: Browser) -> None:
    server, made = site
    browser.open(f"{server.url}/#/plans/{made['plan']}")
    browser.wait("document.querySelector('main').innerText.includes('keep their format')")
    menus = server.http.get(f"/v1/plans/{made['plan']}/engines").json()
    lights = browser.evaluate("document.querySelectorAll('.lights > li').length")
    assert lights == 1 + len(menus["engines"]), "bitwright's own container comes first"
    assert "first and last high, predicted" in browser.evaluate("document.querySelector('.wrap').textContent")


def test_what_binds_a_unit_is_said_in_words_with_its_price(site: Site, browser: Browser) -> None:
    server, made = site
    plan = plan_from_json(server.http.get(f"/v1/plans/{made['ruled_plan']}").json())
    dear = max((row for row in plan.bindings if row.kind == "rule"), key=lambda row: row.price)
    unit = plan.units[(dear.units or ())[0]].name
    browser.open(f"{server.url}/#/plans/{made['ruled_plan']}?unit={unit}")
    browser.wait("document.querySelector('.bound h3') !== null")
    said = browser.text(".bound")
    assert dear.words in said
    assert "of loss for the last choice" in said
    assert "bytes of all planned units" in said
    assert "rule:" not in browser.text("main")
    tied = plan.units[plan.ties[0][0]].name
    browser.open(f"{server.url}/#/plans/{made['ruled_plan']}?unit={tied}")
    browser.wait("document.querySelector('.bound')?.innerText.includes('q, k and v together')")
    browser.wait("document.querySelector('main').innerText.includes('same limits, rules and ties')")
    assert plan.redrawn is not None
    assert f"{100 * plan.redrawn.units:.1f} % keep their format" in browser.text("main")


def test_a_plan_in_rows_gets_true_lights_and_says_what_its_rows_took(site: Site, browser: Browser) -> None:
    server, made = site
    browser.open(f"{server.url}/#/plans/{made['row_plan']}?unit=model.layers.0.mlp.up_proj.weight")
    browser.wait("document.querySelectorAll('.lights > li').length > 3")
    states = browser.evaluate("[...document.querySelectorAll('.lights > li')].map((row) => row.className)")
    assert states[0] == "loads"
    assert set(states[1:]) == {"refused"}
    assert "parts in formats of their own" in browser.text(".lights")
    browser.wait("document.querySelector('main').innerText.includes('blocks of 8 rows chose one by one')")


def test_planning_for_an_engine_turns_its_light_green(site: Site, browser: Browser) -> None:
    server, made = site
    browser.open(f"{server.url}/#/frontier/{made['moe_table']}")
    light = "[...document.querySelectorAll('.lights > li')].find((row) => row.innerText.includes('MLX'))"
    browser.evaluate(f"{light}.querySelector('button')?.click()")
    browser.wait(f"{light}.className === 'loads'")
    browser.wait("location.hash.includes('engine=mlx')")


def test_large_tables_can_be_dragged(site: Site, browser: Browser) -> None:
    server, _ = site
    digest = store_table(server.blobs, table_of("hf:org/large", llama_units(143), 3, TWELVE, TWELVE_WIDTHS))
    found = dragged(server, browser, digest, steps=4)
    assert len({entry["bytes"] for entry in found}) == 4
    print(json.dumps([entry["ms"] for entry in found]))


def test_job_is_followed_live_until_its_end(site: Site, browser: Browser) -> None:
    server, _ = site
    job = server.submit(model="hf:org/live")
    browser.open(f"{server.url}/#/jobs/{job['id']}")
    assert "Waiting for a worker" in browser.text("main")
    claim = server.claim(job["id"])
    server.store.progress(job["id"], claim.attempt, "score", 0.37, "sequence 3 of 8")
    browser.wait("document.body.innerText.includes('sequence 3 of 8')")
    server.store.succeed(job["id"], claim.attempt, {"answer": 1})
    browser.wait("document.querySelector('.state.succeeded') !== null")
    assert "started" in browser.text(".timeline")


def test_running_job_without_a_word_yet_says_that_it_starts(site: Site, browser: Browser) -> None:
    server, _ = site
    job = server.submit(model="hf:org/silent")
    server.claim(job["id"])
    browser.open(f"{server.url}/#/jobs/{job['id']}")
    browser.wait("document.body.innerText.includes('0 % · starting')")
    assert "· ·" not in browser.text("main")


def test_search_asks_the_server_for_jobs_that_are_not_on_the_page(site: Site, browser: Browser) -> None:
    server, _ = site
    wanted = server.store.create({"kind": "inspect", "model": "hf:org/needle"}).job
    for index in range(60):  # more than a page of newer ones
        server.store.create({"kind": "inspect", "model": f"hf:org/hay{index}"})
    browser.open(f"{server.url}/#/jobs")
    assert "needle" not in browser.text(".jobs")
    browser.page.get_by_label("Find a job").fill("NEEDLE inspect")
    browser.wait("document.querySelectorAll('.jobs li').length === 1")
    assert "hf:org/needle" in browser.text(".jobs")
    assert "q=NEEDLE" in browser.evaluate("location.hash")
    browser.page.get_by_label("Find a job").fill("no such job anywhere")
    browser.wait("document.body.innerText.includes('No job fits these filters')")
    browser.page.get_by_role("button", name="Show every job").click()
    browser.wait("document.querySelectorAll('.jobs li').length > 1")
    server.store.cancel(wanted.id)


@pytest.mark.parametrize("scored", [True, False])
def test_plan_that_does_not_fit_is_told_in_the_list_and_on_its_page(site: Site, browser: Browser, scored: bool) -> None:
    """With a way to every budget; where it was refused before anything was scored, with a word why there is none."""
    server, made = site
    job = server.submit(kind="plan", model="hf:org/tight", budget="2bpw")
    claim = server.claim(job["id"])
    result = {
        "feasible": False,
        "infeasible": {"detail": "no"},
        "plan_digest": None,
        "table_digest": made["llama_table"] if scored else None,
    }
    server.store.succeed(job["id"], claim.attempt, result)
    browser.open(f"{server.url}/#/jobs?q={job['id']}")
    browser.wait("document.body.innerText.toLowerCase().includes('no plan fits the budget')")
    browser.open(f"{server.url}/#/jobs/{job['id']}")
    browser.wait("document.body.innerText.includes('No plan fits this budget')")
    text = browser.evaluate("document.body.innerText")
    assert ("See every budget that can be met" in text) == scored
    assert ("refused before anything was scored" in text) != scored


def test_numbers_of_loss_carry_their_unit(site: Site, browser: Browser) -> None:
    server, made = site
    browser.open(f"{server.url}/#/plans/{made['plan']}")
    tiles = browser.evaluate("[...document.querySelectorAll('.tile')].map((t) => t.innerText)")
    measured = [tile for tile in tiles if "measured loss" in tile]
    assert measured
    assert all("nats" in tile for tile in measured)


def test_words_of_a_request_do_not_overlap_on_a_phone(site: Site, browser: Browser) -> None:
    server, _ = site
    job = server.submit(kind="plan", model="hf:org/phone", budget="4bpw")
    browser.look(390, 844)
    browser.open(f"{server.url}/#/jobs/{job['id']}")
    wide = "[...document.querySelectorAll('.facts dt')].filter((e) => e.scrollWidth > e.clientWidth).length"
    assert "calibration_tokens" in browser.text("main")
    assert browser.evaluate(wide) == 0


def test_form_starts_a_job_and_shows_what_is_wrong(site: Site, browser: Browser) -> None:
    server, _ = site
    browser.open(f"{server.url}/#/new")
    assert "bitwright plan" in browser.text("main")
    browser.evaluate("document.querySelector('form button.primary').click()")
    browser.wait("document.querySelector('#field-model').getAttribute('aria-invalid') === 'true'")
    browser.forgive("422")
    fill_in = """(name, value) => {
      const e = document.querySelector(name);
      e.value = value;
      e.dispatchEvent(new Event('input', { bubbles: true }));
    }"""
    browser.evaluate(f"({fill_in})('#field-model', 'hf:org/from-the-form')")
    assert "hf:org/from-the-form" in browser.text("pre")
    browser.evaluate("document.querySelector('form button.primary').click()")
    browser.wait("location.hash.startsWith('#/jobs/')")
    browser.wait("document.body.innerText.includes('hf:org/from-the-form')")


def test_unknown_plan_says_what_to_do(site: Site, browser: Browser) -> None:
    server, _ = site
    browser.open(f"{server.url}/#/plans/sha256:{'0' * 64}", ready=".problem")
    assert "What to do" in browser.text(".problem")
    browser.forgive("404")


def test_empty_server_invites_and_a_lost_one_is_told(
    tmp_path_factory: pytest.TempPathFactory, browser: Browser
) -> None:
    with running_server(tmp_path_factory.mktemp("empty")) as server:
        browser.open(f"{server.url}/#/jobs")
        browser.wait("document.body.innerText.includes('No jobs yet')")
    browser.wait("!document.getElementById('offline').hidden")
    assert "does not answer" in browser.text("#offline")
    browser.forgive("ERR_CONNECTION_REFUSED")


def test_half_a_million_slopes_are_sorted_as_by_comparison(site: Site, browser: Browser) -> None:
    server, _ = site
    browser.open(f"{server.url}/#/system")
    script = """(async () => {
      const { falling } = await import('/assets/allocate.js');
      let state = 1;
      const values = Float64Array.from({ length: 5000 }, () => {
        state = (state * 48271) % 2147483647;
        return state % 3 ? 10 ** ((state % 600) - 300) : (state % 7) / 3 + 1e-300;
      });
      const wanted = [...values.keys()].sort((a, b) => values[b] - values[a] || a - b);
      return falling(values).every((i, at) => i === wanted[at]) && falling(new Float64Array(0)).length === 0;
    })()"""
    assert browser.evaluate(script) is True


def test_an_example_problem_is_solved_with_its_certificate(site: Site, browser: Browser) -> None:
    server, _ = site
    browser.open(f"{server.url}/#/solve")
    browser.page.get_by_role("button", name="Try an example").click()
    browser.wait("document.querySelector('.verdict.optimal') !== null")
    rows = browser.evaluate(
        "[...document.querySelectorAll('table[aria-label=choices], [aria-label=choices] tr')].length"
    )
    assert rows >= 7
    chosen = browser.evaluate(
        "[...document.querySelectorAll('[aria-label=choices] tbody td:last-child')].map(e => e.innerText)"
    )
    assert chosen[0] == chosen[1], "q and k are tied"


@pytest.mark.parametrize("width", [1440, 390])
def test_the_chart_stands_still_while_it_is_dragged(site: Site, browser: Browser, width: int) -> None:
    server, made = site
    browser.look(width, 900)
    browser.open(f"{server.url}/#/frontier/{made['llama_table']}", ready="svg.frontier")
    script = """(async () => {
      const slider = document.querySelector('input.along'), tops = new Set();
      for (let at = 0; at <= 1000; at += 25) {
        slider.value = at;
        slider.dispatchEvent(new Event('input'));
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        tops.add(Math.round(document.querySelector('svg.frontier').getBoundingClientRect().top + scrollY));
      }
      return [...tops];
    })()"""
    assert len(browser.evaluate(script)) == 1


@pytest.mark.parametrize("width", [1440, 390])
def test_the_ratio_covers_no_name_at_any_budget(site: Site, browser: Browser, width: int) -> None:
    browser.look(width, 844)
    server, made = site
    browser.open(f"{server.url}/#/frontier/{made['llama_table']}", ready="svg.frontier")
    box = browser.evaluate("document.querySelector('svg.frontier').getBoundingClientRect().toJSON()")
    y, shown = box["top"] + box["height"] / 2, 0
    browser.page.mouse.move(box["left"] + 0.2 * box["width"], y)
    browser.page.mouse.down()
    for step in range(4, 20):
        browser.page.mouse.move(box["left"] + step / 20 * box["width"], y)
        browser.page.wait_for_timeout(40)
        met = browser.evaluate("""(() => {
          const box = (e) => e.getBoundingClientRect(), ratio = document.querySelector('svg.frontier .ratio');
          if (ratio.style.display === 'none') return null;
          const r = box(ratio), names = [...document.querySelectorAll('svg.frontier text.label')];
          return names.filter((e) => e.style.display !== 'none').map((e) => [e.textContent, box(e)])
            .filter(([, n]) => n.left < r.right && n.right > r.left && n.top + 3 < r.bottom && n.bottom - 3 > r.top)
            .map(([name]) => name); })()""")
        assert not met, (step, met)
        shown += met is not None
    browser.page.mouse.up()
    assert shown > 4
