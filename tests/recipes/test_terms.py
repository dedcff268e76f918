"""What a recipe asks of a problem: menus, rules a layer, shares of the budget; against enumeration."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import solvers
from bitwright.core.errors import InvalidInput
from bitwright.core.inventory import Inventory, Unit
from bitwright.core.problem import Limit, Problem, Resource
from bitwright.core.recipe import Recipe, load_recipe, parse_recipe
from bitwright.recipes import find_recipe
from worker.steps.terms import allowed, constrained, fitted, idle, layer_limits, smallest_bytes

#: Names that a recipe's members may have, as the catalogs give them.
KNOWN = {"metric": ("fisher", "moe"), "solver": ("auto", "hull"), "quantizer": ("rtn", "gptq")}
RULED = 'name = "x"\nsummary = "x"\n[[rules]]\nformats = ["int4-g64"]\nat_least = 1\n'
FORMATS = ("sign-g64", "int2-g64", "int3-g64", "int4-g64")


def unit(name: str, module: str, layer: int | None, expert: int | None = None) -> Unit:
    families = {} if expert is None else {"expert": f"{layer}.{expert}"}
    return Unit(name, name, (64, 64), "F16", module, layer=layer, expert=expert, families=families)


def moe(layers: int, experts: int) -> Inventory:
    units = []
    for layer in range(layers):
        units.append(unit(f"{layer}.q", "self_attn.q_proj", layer))
        units += [unit(f"{layer}.{e}.{m}", f"experts.{m}", layer, e) for e in range(experts) for m in ("w1", "w2")]
    units.append(unit("head", "lm_head", None))
    return Inventory("r", "sha256:" + "0" * 64, "a", "t", "causal-lm", layers, tuple(units), ())


def problem(inventory: Inventory, recipe: Recipe, limit: int, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    n = len(inventory.units)
    loss = np.sort(rng.gamma(1, 1, (n, len(FORMATS))), axis=1)[:, ::-1].copy()
    possible = allowed(recipe, inventory.units, FORMATS)
    loss[np.zeros(loss.shape, bool) if possible is None else ~possible] = np.inf
    costs = np.tile(np.array([1, 2, 3, 4], np.int64) * 512 + 128, (n, 1))
    tie = np.array(inventory.tie_ids(("expert",)), np.int64)
    plain = Problem(loss, (Resource("bytes", costs),), (Limit("bytes", limit),), tie, format_names=FORMATS)
    return constrained(plain, recipe, inventory.units)


def enumerate_best(p: Problem) -> float:
    """The least loss over every choice of the groups, by the definition."""
    best, costs = np.inf, p.resources[0].costs()
    groups = [np.flatnonzero(p.group_index == g) for g in range(p.groups)]
    options = [[j for j in range(p.k) if np.isfinite(p.loss[members, j]).all()] for members in groups]
    for picks in itertools.product(*options):
        choice = np.empty(p.n, np.int64)
        for members, j in zip(groups, picks, strict=True):
            choice[members] = j
        if any(
            costs[rows, choice[rows]].sum() > limit.value
            for limit in p.limits
            for rows in [np.arange(p.n) if limit.units is None else limit.units]
        ):
            continue
        counts = [(np.isin(choice[rule.units], rule.formats).sum() - rule.count) * rule.sense for rule in p.rules]
        if all(count >= 0 for count in counts):
            best = min(best, float(p.loss[np.arange(p.n), choice].sum()))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_mc_moe_equals_enumeration_of_all_widths_of_eight_experts(seed: int) -> None:
    """3^8 plans of one layer, as the paper's integer program (research/02 section 1 d)."""
    recipe, inventory = find_recipe("mc-moe"), moe(1, 8)
    p = problem(inventory, recipe, 2 * 640 + 8 * 2 * (2 * 512 + 128) + 2 * 2176, seed)
    solution = solvers.solve(p)
    assert solution.loss == pytest.approx(enumerate_best(p), rel=1e-12)
    widths = solution.choice[[i for i, u in enumerate(inventory.units) if u.expert is not None]]
    assert (widths == 2).sum() >= 2  # one expert of two matrices at 3 bits
    assert (widths == 1).sum() >= 2
    free = solvers.solve(replace(p, rules=()))
    assert free.loss <= solution.loss + 1e-12


def test_the_rules_change_the_optimum_in_some_layer() -> None:
    recipe, inventory = find_recipe("mc-moe"), moe(1, 8)
    changed = 0
    for seed in range(12):
        p = problem(inventory, recipe, 2 * 2176 + 14_400, seed)
        changed += solvers.solve(p).loss > solvers.solve(replace(p, rules=())).loss + 1e-9
    assert changed > 0


def test_every_layer_keeps_its_share() -> None:
    recipe, inventory = find_recipe("mc-moe"), moe(3, 4)
    p = problem(inventory, recipe, 4 * 2176 + 3 * 8 * 1200)
    limits = [limit for limit in p.limits if limit.subset is not None]
    assert [limit.name for limit in limits] == ["bytes@layer0", "bytes@layer1", "bytes@layer2"]
    solution = solvers.solve(p)
    costs = p.resources[0].costs()
    for limit in limits:
        assert costs[limit.units, solution.choice[limit.units]].sum() <= limit.value
    assert sum(limit.value for limit in limits) + 2176 <= p.limits[0].value


def test_a_layer_without_experts_does_not_pay_for_attention_out_of_their_share() -> None:
    """DeepSeek's first block is dense: its 4 bits a weight did not fit a share of 2.5, and mc-moe refused the model."""
    recipe, inventory = find_recipe("mc-moe"), moe(2, 4)
    first = [unit(f"dense.{m}", f"mlp.{m}", 0) for m in ("gate_proj", "up_proj", "down_proj")]
    others = [replace(u, layer=None if u.layer is None else u.layer + 1) for u in inventory.units]
    inventory = replace(inventory, layers=3, units=(*first, *others))
    p = problem(inventory, recipe, 6 * 2176 + 2 * 8 * 1200)
    by_name = {limit.name: limit for limit in p.limits if limit.subset is not None}
    assert by_name["bytes@layer0"].value == 3 * 2176
    assert by_name["bytes@layer1"].value == by_name["bytes@layer2"].value == 2176 + 8 * 1200
    assert solvers.solve(p).feasible
    least = smallest_bytes(problem(inventory, recipe, 10**9), recipe, inventory.units)
    assert least is not None
    assert solvers.solve(problem(inventory, recipe, least)).feasible
    assert not solvers.solve(problem(inventory, recipe, least - 1)).feasible


def test_the_smallest_budget_is_the_smallest() -> None:
    recipe, inventory = find_recipe("mc-moe"), moe(2, 4)
    least = smallest_bytes(problem(inventory, recipe, 10**9), recipe, inventory.units)
    assert least is not None
    assert solvers.solve(problem(inventory, recipe, least)).feasible
    assert not solvers.solve(problem(inventory, recipe, least - 1)).feasible


def test_rules_that_contradict_each_other_have_no_smallest_budget() -> None:
    text = """
name = "torn"
summary = "x"
formats = ["int1-g64", "int2-g64"]
[[rules]]
classes = ["expert"]
formats = ["int2-g64"]
at_least = 5
"""
    recipe, inventory = parse_recipe(text, origin="torn.toml"), moe(1, 4)
    recipe = recipe.model_copy(update={"menus": find_recipe("mc-moe").menus})
    assert smallest_bytes(problem(inventory, recipe, 10**9), recipe, inventory.units) is None


def test_menus_fix_formats_of_the_units_they_name() -> None:
    recipe, inventory = find_recipe("mc-moe"), moe(1, 2)
    table = allowed(recipe, inventory.units, FORMATS)
    assert table is not None
    names = [unit.name for unit in inventory.units]
    assert table[names.index("0.q")].tolist() == [False, False, False, True]
    assert table[names.index("head")].tolist() == [False, False, False, True]
    assert table[names.index("0.0.w1")].tolist() == [True, True, True, False]
    assert allowed(find_recipe("auto"), inventory.units, FORMATS) is None


def test_lines_speak_of_layers_from_both_ends() -> None:
    text = """
name = "ends"
summary = "x"
formats = ["int2-g64"]
[[menus]]
layers = [0, -1]
formats = ["int4-g64"]
"""
    table = allowed(parse_recipe(text, origin="ends.toml"), moe(3, 1).units, ("int2-g64", "int4-g64"))
    assert table is not None
    assert table[:, 1].tolist() == [True, True, True, False, False, False, True, True, True, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "x"\nsummary = "x"\n[[rules]]\nformats = ["int2-g64"]\n', "at_least or at_most"),
        ('name = "x"\nsummary = "x"\n[[menus]]\nformats = ["int2-g64"]\n', "no menu for the others"),
        ('name = "x"\nsummary = "x"\nmetrics = "fisher"\n', "line 3"),
        ('name = "x"\nsummary = "x"\nties = ["cousins"]\n', "line 3"),
        ('name = "x"\nsummary = "x"\nformats = "int4-g64"\n', "line 3"),
        ('name = "x"\nsummary = "x"\nspread = "wide"\n', "line 3"),
        ('name = "x"\nsummary = "x"\n\nformats = ["int99"]\n', "mine.toml line 4"),
        ('name = "x"\nsummary = "x"\nformats = ["int4-g64"]\nmetric = "fishre"\n', "did you mean fisher"),
        ('name = "x"\nsummary = "x"\nformats = ["int4-g64"]\nmetric = "fishre"\n', "mine.toml line 4"),
        ('name = "x"\nsummary = "x"\nsolver = "hulk"\n', "no solver of that name (mine.toml line 3)"),
        ('name = "x"\nsummary = "x"\nquantizer = "gtpq"\n', "no quantizer of that name (mine.toml line 3)"),
        ('name = "x"\nsummary = "x"\n[pruning]\nprotect = 2\n', "line 4, member 'pruning.protect'"),
        (RULED + "[[rules]]\nformats = ['int4-g64']\nat_least = -1\n", "line 8, member 'rules.1.at_least'"),
        ('summary = "x"\n', "line 1, member 'name'"),
        ('name = "x"\nsummary = \n', "line 2"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as error:
        parse_recipe(text, origin="mine.toml", known=KNOWN)
    assert words in f"{error.value} {error.value.hint}"


def test_layer_limits_leave_room_for_units_outside_layers() -> None:
    recipe, inventory = find_recipe("mc-moe"), moe(2, 2)
    p = problem(inventory, recipe, 20_000)
    assert sum(limit.value for limit in layer_limits(p, inventory.units, 20_000)) <= 20_000 - 2176


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """It ended in a trace."""
    (tmp_path / "own.toml").write_bytes(b'name = "own"\n\xff\xfe')
    with pytest.raises(InvalidInput, match=r"own\.toml is not text at line 2"):
        load_recipe(tmp_path / "own.toml")


def test_lines_about_no_unit_are_said() -> None:
    """A pattern with a slip of the pen changed nothing, silently."""
    text = RULED + '[[menus]]\nmodules = ["self_atn.*"]\nformats = ["int4-g64"]\n'
    recipe = parse_recipe('formats = ["int2-g64", "int4-g64"]\n' + text, origin="x")
    assert idle(recipe, moe(2, 2).units) == [
        "menu 1 of the recipe x is about no unit of this model: modules = ['self_atn.*']"
    ]
    assert idle(find_recipe("mc-moe"), moe(2, 2).units) == []


def test_blocks_are_not_halved_below_the_groups_of_their_formats() -> None:
    """`column:7` became `column:1`, and that was refused in its stead."""
    recipe = find_recipe("slim-llm").model_copy(update={"granularity": "column:7", "formats": ("int2-g64",)})
    assert fitted(recipe, moe(1, 2)) == (recipe, [])
    assert fitted(find_recipe("slim-llm"), moe(1, 2))[0].granularity == "column:64"


def test_units_outside_layers_have_a_share_and_not_their_dearest_format() -> None:
    """With a head that may take 16 bits, nothing was left for the layers' shares below 4.2 bits a weight."""
    recipe, inventory = Recipe(name="x", summary="x", spread="layer", formats=FORMATS), moe(2, 2)
    least = smallest_bytes(problem(inventory, recipe, 10**9), recipe, inventory.units)
    assert least == len(inventory.units) * 640
    p = problem(inventory, recipe, least)
    assert solvers.solve(p).feasible
    assert {limit.value for limit in p.limits if limit.subset is not None} == {5 * 640}
