"""Reports of benchmarks.metrics as markdown tables and as one SVG of predicted against measured KL."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

HEADER = (
    "metric", "Spearman random", "Spearman near", "Pearson random / near", "pred / meas", "KL 2.5", "KL 3", "KL 3.5",
    "KL 4", "gain", "regret (4 budgets; mean)", "own plan, predicted / measured [bare sum]", "passes",
    "CPU s", "peak MiB",
)  # fmt: skip
TRUTH = "kl-probe"
PANEL, MARGIN = 190, 34
COLOURS = ("#2563eb", "#d97706", "#059669")
Report = dict[str, Any]


def _numbers(values: list[float], digits: int = 2) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in values)


def _mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _regret(values: list[float]) -> str:
    return f"{_numbers(values)}; **{_mean(values):.3f}**" if values else ""


def _cells(name: str, r: Report) -> tuple[str, ...]:
    nats = name.startswith(("fisher", "kl"))
    regret = _regret(r.get("regret", []))
    pearson = [float(np.mean(r[f"{kind}_pearson"])) for kind in ("random", "near")]
    return (
        name, _numbers(r["random_spearman"]), _numbers(r["near_spearman"]), _numbers(pearson),
        f"{r['ratio']:.2f}" if nats else "-", *(f"{value:.5f}" for value in r["kl"]), f"{r['gain']:.2f}", regret,
        f"{_numbers(r['own_ratio'])} [{_numbers(r['bare_ratio'])}]" if nats else "-",
        _short(r["passes"]), f"{r['seconds']:.0f}", f"{r['peak_mib']}",
    )  # fmt: skip


def _short(passes: str) -> str:
    """'1 forward + 2 backward + 6 x local products' as '1F + 2B + 6P'."""
    for word, letter in ((" forward", "F"), (" backward", "B"), (" x local products", "P"), (" local products", "P")):
        passes = passes.replace(word, letter)
    return passes


def _line(name: str, values: dict[str, float], uniform: dict[str, float], regret: str = "") -> tuple[str, ...]:
    gain = _mean([uniform[bits] / value for bits, value in values.items()])
    kl = (f"{value:.5f}" for value in values.values())
    return (f"*{name}*", "", "", "", "", *kl, f"{gain:.2f}", regret, "", "", "", "")


def _peer_line(tool: str, found: dict[str, list[float]], report: Report) -> tuple[str, ...]:
    bits = ", ".join(f"{used:.2f}" for used, _ in found.values())
    values = {budget: kl for budget, (_, kl) in found.items()}
    truth = report["metrics"].get(TRUTH)
    regret = [] if truth is None else [own / best for own, best in zip(values.values(), truth["kl"], strict=True)]
    return _line(f"{tool} (at {bits} bits)", values, report["uniform"], _regret(regret))


def markdown(reports: list[Report]) -> str:
    """One table a seed, and the regret over all seeds."""
    lines: list[str] = []
    for report in reports:
        lines += [
            f"### {report['model']}, seed {report['seed']}: scored on {report['tokens']}, "
            f"measured on {report['test']}, {report['plans']} random and {report['near']} near plans a budget",
            "",
        ]
        rows: list[tuple[str, ...]] = [HEADER, ("---",) * len(HEADER)]
        rows.append(_line("uniform", report["uniform"], report["uniform"]))
        rows.append(_line("first and last layers high", report["ends_high"], report["uniform"]))
        rows += [_peer_line(tool, found, report) for tool, found in report["peers"].items()]
        rows += [_cells(name, r) for name, r in report["metrics"].items()]
        lines += ["| " + " | ".join(cells) + " |" for cells in rows] + [""]
        lines += [f"`{name}` does not apply: {why}." for name, why in report["left_out"].items()] + [""]
    names = [name for name, r in reports[0]["metrics"].items() if "regret" in r]
    if len(reports) > 1 and names:
        lines += ["| metric | regret, geometric mean a seed | all |", "|---|---|---|"]
        for name in names:
            each = [_mean(report["metrics"][name]["regret"]) for report in reports]
            lines.append(f"| {name} | {_numbers(each, 3)} | {_mean(each):.3f} |")
    return "\n".join(lines)


def plot(report: Report) -> str:
    """Predicted (across) against measured KL (up), log scales, one panel a metric, one colour a budget."""
    panels = list(report["metrics"].items())
    across = min(4, len(panels))
    width, height = across * PANEL, math.ceil(len(panels) / across) * (PANEL + 16)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="10"><rect width="100%" height="100%" fill="white"/>'
    ]
    for number, (name, r) in enumerate(panels):
        left, top = (number % across) * PANEL, (number // across) * (PANEL + 16)
        parts += _panel(name, r, left, top)
    return "\n".join([*parts, "</svg>\n"])


def _panel(name: str, r: Report, left: int, top: int) -> list[str]:
    groups = [(b, pair) for kind in ("random", "near") for b, pair in enumerate(r[f"{kind}_pairs"])]
    x = np.log(np.concatenate([pair[0] for _, pair in groups]))
    y = np.log(np.concatenate([pair[1] for _, pair in groups]))
    inner = PANEL - MARGIN - 8

    def place(values: Any, all_values: Any) -> Any:
        low, high = float(all_values.min()), float(all_values.max())
        return (np.log(values) - low) / max(high - low, 1e-9) * inner

    parts = [
        f'<text x="{left + MARGIN}" y="{top + 12}">{name}</text>',
        f'<rect x="{left + MARGIN}" y="{top + 18}" width="{inner}" height="{inner}" fill="none" stroke="#999"/>',
        f'<text x="{left + MARGIN}" y="{top + inner + 30}">'
        f"{math.exp(x.min()):.1e} predicted {math.exp(x.max()):.1e}</text>",
        f'<text x="{left + 10}" y="{top + inner + 18}" transform="rotate(-90 {left + 10} {top + inner + 18})">'
        f"{math.exp(y.min()):.1e} KL {math.exp(y.max()):.1e}</text>",
    ]
    for budget, (predicted, measured) in groups:
        places = zip(place(predicted, x), place(measured, y), strict=True)
        dots = "".join(f"M{left + MARGIN + px:.1f} {top + 18 + inner - py:.1f}h0" for px, py in places)
        parts.append(
            f'<path d="{dots}" stroke="{COLOURS[budget % len(COLOURS)]}" stroke-width="3" stroke-linecap="round" '
            'stroke-opacity="0.5"/>'
        )
    return parts
