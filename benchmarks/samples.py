"""What fewer label samples cost: plans of `fisher`, K = 1, 2 and 4, in spans and of whole sequences, by measured KL.

All of them as measured; beside them the default, whose cells are pooled over formats.

Usage: python -m benchmarks.samples MODEL [--tokens 16384] [--test 8192] [--seeds 3] [--also fisher-token] [--plans 20]
           [--text DIR]

The tables of fewer samples are made from the signed samples that the table of four keeps, so all see the same text and
labels; ratios are to K = 4 of whole sequences. Budgets 2.5, 3, 3.5 and 4 code bits, RTN group 64; scored on valid.txt,
measured on test.txt. --also: plans of another metric on the same text too. --plans: Spearman's correlation of predicted
and measured KL too, over so many random mixed plans at 2.5, 3 and 3.5 code bits. --text: a folder with valid.txt and
test.txt.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from benchmarks.metric_plans import BUDGETS, FORMATS, RANDOM_BUDGETS, Choice, bytes_at, optimum, random_choice
from bitwright.core.table import SensitivityTable
from bitwright.models import inspect, open_model
from sensitivity import calibration
from sensitivity.evaluate import measure
from sensitivity.runner import load_runner
from sensitivity.scoring import score
from sensitivity.spans import SPAN

TEXT = Path("tests/models/text")
SAMPLES = (1, 2, 4)


def fewer(table: SensitivityTable, samples: int, of: int) -> SensitivityTable:
    """The table of the first `samples` label samples of every item; cells of units never reached stay."""
    signed, spans = table.extras["signed"].astype(np.float64), table.provenance["parameters"].get("spans_an_item", 1)
    items = signed.reshape(-1, of, spans, *signed.shape[1:])[:, :samples]
    loss = 0.5 * (items**2).mean(axis=(0, 1, 2))
    return replace(table, loss=np.where(loss > 0, loss, table.loss), extras={})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--test", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--also", default=None)
    parser.add_argument("--plans", type=int, default=0)
    parser.add_argument("--text", type=Path, default=TEXT)
    arguments = parser.parse_args()
    source = open_model(arguments.model)
    inventory = inspect(source)
    runner = load_runner(source, inventory)
    test = calibration.load_data(str(arguments.text / "test.txt"), source, inventory, tokens_wanted=arguments.test)
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        parts = calibration.load(
            str(arguments.text / "valid.txt"), source, inventory,
            scoring_tokens=arguments.tokens, confirming_tokens=256, seed=seed,
        )  # fmt: skip
        most = max(SAMPLES)
        asked = {"calibration": parts, "seed": seed, "samples": most}
        whole, cut = (
            score(source, inventory, FORMATS, **asked, options={"span": span, "keep_samples": True})
            for span in (0, SPAN)
        )
        tables = {f"K={k}, sequences": fewer(whole, k, most) for k in SAMPLES}
        tables |= {f"K={k}, spans": fewer(cut, k, most) for k in SAMPLES}
        tables["default"] = score(source, inventory, FORMATS, calibration=parts, seed=seed)
        if arguments.also:
            tables[arguments.also] = score(
                source, inventory, FORMATS, metric=arguments.also, calibration=parts, seed=seed
            )  # fmt: skip
        choices = {(name, bits): optimum(table, bits) for name, table in tables.items() for bits in BUDGETS}
        texts = {key: tuple(choice.tolist()) for key, choice in choices.items()}
        rng, cost = np.random.default_rng(seed), whole.cost_bytes()
        drawn = {
            bits: [random_choice(bytes_at(bits, whole), cost, rng) for _ in range(arguments.plans)]
            for bits in RANDOM_BUDGETS
        }
        everything = {*texts.values(), *(tuple(choice.tolist()) for some in drawn.values() for choice in some)}
        variants = {str(text): [FORMATS[j] for j in text] for text in everything}
        kl = {name: quality.kl for name, quality in measure(source, inventory, variants, test, runner=runner).items()}
        base = [kl[str(texts[f"K={most}, sequences", bits])] for bits in BUDGETS]
        for name in tables:
            mine = [kl[str(texts[name, bits])] for bits in BUDGETS]
            ratios = " / ".join(f"{a / b:.3f}" for a, b in zip(mine, base, strict=True))
            mean = float(np.exp(np.mean(np.log(np.divide(mine, base)))))
            ranks = [_spearman(tables[name], some, kl) for some in drawn.values() if some]
            told = "; Spearman " + " / ".join(f"{rank:.3f}" for rank in ranks) if ranks else ""
            print(f"{Path(arguments.model).name} seed {seed} {name}: {ratios}; {mean:.4f}{told}", flush=True)


def _spearman(table: SensitivityTable, plans: list[Choice], kl: dict[str, float]) -> float:
    rows = np.arange(len(table.loss))
    predicted = [float(table.loss[rows, plan].sum()) for plan in plans]
    return float(spearmanr(predicted, [kl[str(tuple(plan.tolist()))] for plan in plans]).statistic)


if __name__ == "__main__":
    main()
