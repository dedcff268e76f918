"""What fewer label samples cost: plans of `fisher` with K = 1 and 2 samples an item against K = 4, by measured KL.

Usage: python -m benchmarks.samples MODEL [--tokens 16384] [--test 8192] [--seeds 3] [--also fisher-token]

The tables of fewer samples are made from the signed samples that the table of four keeps, so all see the same text and
labels. Budgets 2.5, 3, 3.5 and 4 code bits, RTN group 64; scored on valid.txt, measured on test.txt. --also: plans of
another metric on the same text, against those of `fisher`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.metric_plans import BUDGETS, FORMATS, optimum
from bitwright.core.table import SensitivityTable
from bitwright.models import inspect, open_model
from sensitivity import calibration
from sensitivity.evaluate import measure
from sensitivity.runner import load_runner
from sensitivity.scoring import score

TEXT = Path("tests/models/text")
SAMPLES = (1, 2, 4)


def fewer(table: SensitivityTable, samples: int, of: int) -> SensitivityTable:
    """The table of the first `samples` label samples of every item; cells of units never reached stay."""
    signed = table.extras["signed"].astype(np.float64)
    items = signed.reshape(-1, of, *signed.shape[1:])[:, :samples]
    loss = 0.5 * (items**2).mean(axis=(0, 1))
    return replace(table, loss=np.where(loss > 0, loss, table.loss), extras={})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--test", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--also", default=None)
    arguments = parser.parse_args()
    source = open_model(arguments.model)
    inventory = inspect(source)
    runner = load_runner(source, inventory)
    test = calibration.load_data(str(TEXT / "test.txt"), source, inventory, tokens_wanted=arguments.test)
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        parts = calibration.load(
            str(TEXT / "valid.txt"), source, inventory,
            scoring_tokens=arguments.tokens, confirming_tokens=256, seed=seed,
        )  # fmt: skip
        whole = score(source, inventory, FORMATS, calibration=parts, seed=seed, samples=max(SAMPLES))
        tables = {f"K={k}": fewer(whole, k, max(SAMPLES)) for k in SAMPLES}
        if arguments.also:
            tables[arguments.also] = score(
                source, inventory, FORMATS, metric=arguments.also, calibration=parts, seed=seed
            )  # fmt: skip
        choices = {(name, bits): optimum(table, bits) for name, table in tables.items() for bits in BUDGETS}
        texts = {key: tuple(choice.tolist()) for key, choice in choices.items()}
        variants = {str(text): [FORMATS[j] for j in text] for text in set(texts.values())}
        kl = {name: quality.kl for name, quality in measure(source, inventory, variants, test, runner=runner).items()}
        base = [kl[str(texts[f"K={max(SAMPLES)}", bits])] for bits in BUDGETS]
        for name in tables:
            mine = [kl[str(texts[name, bits])] for bits in BUDGETS]
            ratios = " / ".join(f"{a / b:.3f}" for a, b in zip(mine, base, strict=True))
            mean = float(np.exp(np.mean(np.log(np.divide(mine, base)))))
            print(f"{Path(arguments.model).name} seed {seed} {name}: {ratios}; {mean:.4f}", flush=True)


if __name__ == "__main__":
    main()
