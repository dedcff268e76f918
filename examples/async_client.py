"""Several budgets of one model at once, with progress: the sensitivities are scored once, every budget is a solve."""

from __future__ import annotations

import asyncio
import os
import sys

from bitwright.async_client import AsyncClient


def show(stage: str, fraction: float, message: str) -> None:
    print(f"{stage} {100 * fraction:.0f} % {message}", file=sys.stderr)


async def main() -> None:
    budgets = os.environ.get("BUDGETS", "3.5bpw,4.5bpw").split(",")
    async with AsyncClient(os.environ["BITWRIGHT_SERVER"], key=os.environ.get("BITWRIGHT_API_KEY")) as client:
        shared = {"kind": "plan", "model": os.environ["MODEL"], "metric": "weight-mse", "confirm": False}
        jobs = (client.run({**shared, "budget": budget}, progress=show) for budget in budgets)
        for budget, result in zip(budgets, await asyncio.gather(*jobs), strict=True):
            print(budget, result["plan"]["totals"]["predicted_loss"])


if __name__ == "__main__":
    asyncio.run(main())
