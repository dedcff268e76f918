"""Jobs, plans and tables as workers would leave them, put straight into the store: data to look at without a worker.

`python -m tests.dashboard.sample_state STATE_DIR` fills a folder,
`bitwright serve --workers 0 --state-dir STATE_DIR` shows it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import solvers
from bitwright.core.errors import OutOfResources
from bitwright.core.formats import parse_format
from bitwright.core.inventory import Inventory, RestTensor, Unit
from bitwright.core.mixed_format import mixed
from bitwright.core.plan import Measured, Plan, PlanModel, PlanUnit, Totals, Uniform
from bitwright.core.problem import AT_LEAST, Limit, Problem, Rule
from bitwright.core.table import SensitivityTable
from bitwright.jobs.blobs import BlobStore
from bitwright.jobs.store import JobStore, open_store
from bitwright.settings import Settings
from worker.steps.assemble import tie_groups
from worker.steps.bindings import bindings
from worker.steps.redraw import redrawn

FORMATS = ("int2-g64", "int3-g64", "int4-g64", "int5-g64", "int6-g64", "int8-g64", "fp16")
WIDTHS = np.array([2, 3, 4, 5, 6, 8, 14.0])
TWELVE = (
    "int2-g64", "int2-g32", "int3-g64", "int3-g32", "int4-g128", "int4-g64", "int4-g32", "int5-g64", "int6-g64",
    "int8-g128", "int8-g64", "fp16",
)  # fmt: skip
TWELVE_WIDTHS = np.array([2, 2.3, 3, 3.3, 3.9, 4, 4.3, 5, 6, 7.9, 8, 14.0])
LLAMA_SHAPES = {
    "self_attn.q_proj": (576, 576),
    "self_attn.k_proj": (192, 576),
    "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576),
    "mlp.gate_proj": (1536, 576),
    "mlp.up_proj": (1536, 576),
    "mlp.down_proj": (576, 1536),
}
MOE_SHAPES = {"mlp.gate_proj": (256, 128), "mlp.up_proj": (256, 128), "mlp.down_proj": (128, 256)}


def llama_units(layers: int = 30) -> list[Unit]:
    units = []
    for layer in range(layers):
        for module, shape in LLAMA_SHAPES.items():
            families = (
                {"qkv": f"{layer}"} if module[-6:-5] in "qkv" and "attn" in module and "o_proj" not in module else {}
            )
            if module in ("mlp.gate_proj", "mlp.up_proj"):
                families = {"gate_up": f"{layer}"}
            name = f"model.layers.{layer}.{module}.weight"
            units.append(Unit(name, name, shape, "BF16", module, layer=layer, families=families))
    units.append(Unit("lm_head.weight", "lm_head.weight", (4096, 576), "BF16", "lm_head"))
    return units


def moe_units(layers: int = 8, experts: int = 16) -> list[Unit]:
    return [
        Unit(
            f"model.layers.{layer}.mlp.experts.{e}.{m}.weight",
            f"model.layers.{layer}.mlp.experts.{e}.{m}.weight",
            shape,
            "BF16",
            f"experts.{m.removeprefix('mlp.')}",
            layer=layer,
            expert=e,
            families={"expert": f"{layer}/{e}"},
        )
        for layer in range(layers)
        for e in range(experts)
        for m, shape in MOE_SHAPES.items()
    ]


def table_of(
    ref: str,
    units: list[Unit],
    seed: int,
    formats: tuple[str, ...] = FORMATS,
    widths: NDArray[np.float64] = WIDTHS,
) -> SensitivityTable:
    """Losses that fall by about four for each bit, larger at both ends and in v and down projections, with noise."""
    rng = np.random.default_rng(seed)
    layers = 1 + max((unit.layer or 0) for unit in units)
    rest = (
        RestTensor(
            "model.embed_tokens.weight", (4096, 576), "BF16", "embeddings are looked up, not multiplied", "embedding"
        ),
        RestTensor("model.norm.weight", (576,), "BF16", "one number a channel", "norm"),
    )
    inventory = Inventory(
        ref, f"sha256:{seed:064x}", "LlamaForCausalLM", "llama", "causal-lm", layers, tuple(units), rest
    )
    depth = np.array([0.5 if u.layer is None else u.layer / max(1, layers - 1) for u in units])
    role = np.array([3.0 if "v_proj" in u.name or "down" in u.name else 1.0 for u in units])
    base = role * (0.4 + 2.5 * (depth - 0.45) ** 2) * np.exp(rng.normal(0, 0.6, len(units))) * 0.06
    loss = base[:, None] * 4.0 ** -(widths - 2) * np.exp(rng.normal(0, 0.12, (len(units), len(widths))))
    provenance = {"metric": "fisher", "quantizer": "rtn", "seed": seed, "samples": 8, "version": "0.1.0"}
    return SensitivityTable(inventory, formats, loss, loss * 0.08, "fisher", "nats of KL per token", provenance)


def ruled_problem(table: SensitivityTable, bits: float) -> Problem:
    """A budget a layer beside the whole one, and at least two units of each layer at 6 bits."""
    inventory, plain = table.inventory, table.problem(int(bits * table.inventory.weights / 8), tie_kinds=("qkv",))
    layers = [np.array([i for i, u in enumerate(inventory.units) if u.layer == a]) for a in range(inventory.layers)]
    elements = np.array([unit.elements for unit in inventory.units])
    shares = [int(bits * elements[rows].sum() / 8 * 1.02) for rows in layers]
    limits = [
        Limit("bytes", share, f"layer{a}", rows) for a, (share, rows) in enumerate(zip(shares, layers, strict=True))
    ]
    six = np.array([table.formats.index("int6-g64")])
    # Tied units count once: the first of the three.
    rules = [Rule(rows[[0, 3, 4, 5, 6]], six, AT_LEAST, 2) for rows in layers]
    return replace(plain, limits=(*plain.limits, *limits), rules=tuple(rules))


def plan_in_rows(plan: Plan) -> Plan:
    """The same plan with every output row of a unit in one of two formats, its own and the next wider."""
    rng, units = np.random.default_rng(4), []
    for unit in plan.units:
        shape = unit.shape or (1, 1)
        wider = FORMATS[min(len(FORMATS) - 2, FORMATS.index(unit.format) + 1)]
        if shape[0] > 64 and wider != unit.format:
            members = parse_format(unit.format), parse_format(wider)
            name = mixed("row:8", members, rng.integers(0, 2, -(-shape[0] // 8))).name
            unit = unit.model_copy(update={"format": name, "bytes": parse_format(name).storage(shape).bytes})
        units.append(unit)
    total = sum(unit.bytes for unit in units)
    totals = plan.totals.model_copy(update={"bytes": total, "predicted_loss": plan.totals.predicted_loss * 0.7})
    return plan.model_copy(update={"units": tuple(units), "totals": totals, "measured": None})


def plan_of(table: SensitivityTable, bits: float, *, measured: bool = True, problem: Problem | None = None) -> Plan:
    inventory = table.inventory
    ruled = problem is not None
    problem = problem or table.problem(int(bits * inventory.weights / 8))
    solution = solvers.solve(problem)
    choice = solution.choice.tolist()
    cost = table.cost_bytes()
    rows = tuple(
        PlanUnit(
            name=u.name,
            format=FORMATS[j],
            elements=u.elements,
            bytes=int(cost[i, j]),
            loss=float(table.loss[i, j]),
            stderr=float(table.stderr[i, j]),
            shape=u.shape,
            module=u.module,
            layer=u.layer,
            expert=u.expert,
        )
        for i, (u, j) in enumerate(zip(inventory.units, choice, strict=True))
    )
    total, predicted = sum(r.bytes for r in rows), float(solution.loss or 0)
    uniform = min((j for j in range(len(FORMATS)) if cost[:, j].sum() >= total), key=lambda j: cost[:, j].sum())
    uniform_loss = float(table.loss[:, uniform].sum())
    real = Measured(
        kl=predicted * 1.13,
        stderr=predicted * 0.05,
        tokens=16384,
        uniform=Uniform(
            format=FORMATS[uniform],
            kl=uniform_loss * 1.07,
            stderr=uniform_loss * 0.05,
            bytes=int(cost[:, uniform].sum()),
            predicted_loss=uniform_loss,
        ),
    )
    return Plan(
        model=PlanModel(
            ref=inventory.ref, digest=inventory.digest, architecture=inventory.architecture, task=inventory.task
        ),
        units=rows,
        totals=Totals(
            bits_per_weight=8 * total / inventory.weights,
            bytes=total,
            unquantized_bytes=inventory.rest_bytes,
            predicted_loss=predicted,
            predicted_stderr=predicted * 0.03,
            file_bytes=total + inventory.rest_bytes + 20480,
        ),
        certificate=solution.certificate.to_json(),
        bindings=bindings(problem, solution, table) if ruled else (),
        redrawn=redrawn(table, problem, solution, "auto", 0) if ruled else None,
        ties=tie_groups(problem),
        measured=real if measured else None,
        budget=f"{bits}bpw",
        provenance={
            "metric": "fisher",
            "loss_unit": table.loss_unit,
            "solver": solution.solver,
            "recipe": "auto",
            "quantizer": "rtn",
            "seed": 0,
            "calibration_tokens": 16384,
            "table": table.digest,
            "version": "0.1.0",
        },
    )


def store_table(blobs: BlobStore, table: SensitivityTable) -> str:
    table.save(blobs.path("tables", table.digest))
    return table.digest


def finished_plan(
    store: JobStore, blobs: BlobStore, table: SensitivityTable, bits: float, plan: Plan | None = None
) -> str:
    """One succeeded plan job; gives the plan's digest."""
    plan = plan or plan_of(table, bits)
    blobs.put_as("plans", plan.digest, plan)
    digest = store_table(blobs, table)
    job = store.create(
        {"kind": "plan", "model": table.inventory.ref, "budget": f"{bits}bpw", "metric": "fisher", "seed": 0}
    ).job
    claimed = store.claim("sample")
    assert claimed is not None
    assert claimed.id == job.id
    for stage, fraction in (("inspect", 0.02), ("score", 0.3), ("score", 0.6), ("solve", 0.8), ("confirm", 0.95)):
        store.progress(job.id, claimed.attempt, stage, fraction, f"{stage} at {fraction:.0%}")
    result = {
        "feasible": True,
        "plan_digest": plan.digest,
        "plan": plan.to_json(),
        "table_digest": digest,
        "checkpoint": None,
        "infeasible": None,
    }
    store.succeed(job.id, claimed.attempt, result)
    return plan.digest


def fill(settings: Settings) -> dict[str, str]:
    """Jobs in every state. Gives the digests and job ids by name."""
    store, blobs = open_store(settings.resolved_database_url), BlobStore(settings.blob_dir)
    llama = table_of("hf:HuggingFaceTB/SmolLM2-135M", llama_units(), 1)
    moe = table_of("file:models/mixtral-small", moe_units(), 2)
    made = {"llama_table": llama.digest, "moe_table": moe.digest}
    made["plan"] = finished_plan(store, blobs, llama, 3.5)
    made["plan4"] = finished_plan(store, blobs, llama, 4.25)
    ruled = plan_of(llama, 4.5, problem=ruled_problem(llama, 4.5))
    made["ruled_plan"] = finished_plan(store, blobs, llama, 4.5, ruled)
    made["row_plan"] = finished_plan(store, blobs, llama, 3.0, plan_in_rows(plan_of(llama, 3.0)))
    made["moe_plan"] = finished_plan(store, blobs, moe, 3.0)
    failed = store.create(
        {"kind": "plan", "model": "file:models/broken-" + "very-long-name-" * 12, "budget": "4bpw"}
    ).job
    claim = store.claim("sample")
    assert claim is not None
    error = OutOfResources(
        "the disk is full", expected="120 MB free", got="3 MB free", hint="free space and run the job again"
    )
    store.fail(failed.id, claim.attempt, error)
    cancelled = store.create({"kind": "inspect", "model": "hf:org/cancelled"}).job
    store.cancel(cancelled.id)
    running = store.create({"kind": "plan", "model": "hf:Qwen/Qwen3-0.6B", "budget": "420MiB", "engine": "vllm"}).job
    claim = store.claim("sample", lease_seconds=3600)
    assert claim is not None
    store.progress(running.id, claim.attempt, "inspect", 0.01, "196 units, 440,401,920 weights")
    store.progress(running.id, claim.attempt, "score", 0.42, "fisher: sequence 27 of 64")
    store.create({"kind": "plan", "model": "<img src=x onerror=alert(1)>", "budget": "3bpw", "to": "packed"})
    made |= {"failed": failed.id, "running": running.id}
    store.close()
    return made


def views(made: dict[str, str]) -> dict[str, str]:
    """Every view with data, by name, as the fragment of its address."""
    return {
        "jobs": "#/jobs",
        "running job": f"#/jobs/{made['running']}",
        "failed job": f"#/jobs/{made['failed']}",
        "new": "#/new",
        "plan": f"#/plans/{made['plan']}",
        "plan with rules": f"#/plans/{made['ruled_plan']}?unit=model.layers.3.mlp.down_proj.weight",
        "plan in rows": f"#/plans/{made['row_plan']}?unit=model.layers.3.mlp.down_proj.weight",
        "plan with experts": f"#/plans/{made['moe_plan']}",
        "frontier": f"#/frontier/{made['llama_table']}",
        "compare": f"#/compare?a={made['plan']}&b={made['plan4']}",
        "solve": "#/solve",
        "system": "#/system",
    }


if __name__ == "__main__":
    print(fill(Settings(state_dir=Path(sys.argv[1]))))
