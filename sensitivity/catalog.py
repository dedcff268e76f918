"""Sensitivity metrics by name; order is preference, the first is the default."""

from __future__ import annotations

from bitwright.core.catalog import Catalog, Entry

METRICS = Catalog(
    "metric",
    (
        Entry(
            "fisher",
            "sensitivity.fisher:METRIC",
            "KL curvature from labels the model draws itself, errors summed over a sequence before squaring (default)",
            needs=("torch", "transformers"),
            traits={
                "data": "calibration",
                "loss_unit": "nats of KL",
                "passes": "1 forward + K backward",
                "parts": True,
            },
        ),
        Entry(
            "weight-mse",
            "sensitivity.weight_mse:METRIC",
            "squared error of the weights; needs no data, knows nothing of the model's function",
            traits={
                "data": "none",
                "loss_unit": "squared error",
                "passes": "none",
                "parts": True,
                "independent": True,
            },
        ),
        Entry(
            "fisher-token",
            "sensitivity.fisher_token:METRIC",
            "as fisher, with positions taken as independent",
            needs=("torch", "transformers"),
            traits={
                "data": "calibration",
                "loss_unit": "nats of KL",
                "passes": "1 forward + K backward + formats x local products",
            },
        ),
        Entry(
            "fisher-pooled",
            "sensitivity.fisher_pooled:METRIC",
            "fisher-token times one sequence factor a unit; steadier on little text",
            needs=("torch", "transformers"),
            traits={
                "data": "calibration",
                "loss_unit": "nats of KL",
                "passes": "1 forward + K backward + formats x local products",
                "pools": True,
            },
        ),
        Entry(
            "kl-probe",
            "sensitivity.kl_probe:METRIC",
            "every unit quantized alone in every format, and the KL measured",
            needs=("torch", "transformers"),
            traits={
                "data": "calibration",
                "loss_unit": "nats of KL",
                "passes": "units x formats forward",
            },
        ),
        Entry(
            "grad-output",
            "sensitivity.grad_output:METRIC",
            "ModelOpt's formula: output error weighted by squared gradients (baseline)",
            needs=("torch", "transformers"),
            traits={
                "data": "calibration",
                "loss_unit": "weighted squared output error",
                "passes": "1 forward + 1 backward + formats x local products",
            },
        ),
        Entry(
            "taylor",
            "sensitivity.taylor:METRIC",
            "AutoRound's formula: first-order change without signs (baseline)",
            needs=("torch", "transformers"),
            traits={
                "data": "calibration",
                "loss_unit": "absolute first-order change",
                "passes": "1 forward + 1 backward",
            },
        ),
        Entry(
            "hessian",
            "sensitivity.hessian:METRIC",
            "error of each layer's own output, the GPTQ proxy (baseline)",
            needs=("torch", "transformers"),
            traits={
                "data": "calibration",
                "loss_unit": "squared output error",
                "passes": "1 forward + formats x local products",
            },
        ),
        Entry(
            "salience",
            "sensitivity.salience:METRIC",
            "SliM-LLM's salience: what an error costs a layer once later inputs make up for it; also by column block",
            needs=("torch", "transformers"),
            traits={
                "data": "calibration",
                "loss_unit": "compensated squared output error",
                "passes": "1 forward",
                "parts": True,
            },
        ),
        Entry(
            "output-kl",
            "sensitivity.output_kl:METRIC",
            "SliM-LLM's score: KL between a layer's softmaxed outputs; by column block, of its balanced plans",
            needs=("torch", "transformers"),
            traits={
                "data": "calibration",
                "loss_unit": "KL of a layer's softmaxed output",
                "passes": "2 forward + 2 local products",
                "parts": True,
                "target": True,
            },
        ),
        Entry(
            "gptq-loss",
            "sensitivity.gptq_loss:METRIC",
            "BAQ's losses: what each part costs in a reference run of GPTQ, and the law 4^-bits from there",
            needs=("torch", "transformers"),
            traits={
                "data": "calibration",
                "loss_unit": "compensated squared output error",
                "passes": "1 forward + 1 GPTQ",
                "parts": True,
                "target": True,
            },
        ),
        Entry(
            "moe",
            "sensitivity.moe:METRIC",
            "MC-MoE's product: how often and how heavily an expert is used, times its block's error",
            needs=("torch", "transformers"),
            traits={
                "data": "calibration",
                "loss_unit": "weighted relative block error",
                "passes": "1 forward + units x formats of one block",
                "models": "experts",
            },
        ),
        Entry(
            "rank",
            "sensitivity.rank:METRIC",
            "QuantMoE-Bench's rules as scores: outliers, frequent experts, blocks that change much, first layers",
            needs=("torch", "transformers"),
            traits={"data": "calibration", "loss_unit": "score x weights x 4^-bits", "passes": "none or 1 forward"},
        ),
        Entry(
            "linearity",
            "sensitivity.linearity:METRIC",
            "HIGGS' linearity: KL of noise in each unit on random tokens; needs no data",
            needs=("torch", "transformers"),
            traits={"data": "none", "loss_unit": "nats of KL", "passes": "units x levels forward"},
        ),
        Entry(
            "rate-distortion",
            "sensitivity.rate_distortion:METRIC",
            "squared error of the weights relative to their power; needs no data",
            traits={"data": "none", "loss_unit": "relative squared error", "passes": "none", "independent": True},
        ),
        Entry(
            "hessian-trace",
            "sensitivity.hessian_trace:METRIC",
            "HAWQ-V2's mean curvature (Hutchinson's trace) times the squared error",
            needs=("torch", "transformers"),
            traits={"data": "calibration", "loss_unit": "nats of KL", "passes": "1 forward + K backward"},
        ),
        Entry(
            "kron",
            "sensitivity.kron:METRIC",
            "K-FAC's curvature: inputs and output gradients taken as independent",
            needs=("torch", "transformers"),
            traits={"data": "calibration", "loss_unit": "nats of KL", "passes": "1 forward + K backward"},
        ),
        Entry(
            "awq-scale",
            "sensitivity.awq_scale:METRIC",
            "AWQ's view: squared error weighed by the size of the activations that meet it",
            needs=("torch", "transformers"),
            traits={"data": "calibration", "loss_unit": "activation-weighted squared error", "passes": "1 forward"},
        ),
        Entry(
            "lrp",
            "sensitivity.lrp:METRIC",
            "relevance through each layer's own branch times its relative output error (after LRP-QViT)",
            needs=("torch", "transformers"),
            traits={
                "data": "calibration",
                "loss_unit": "relevance-weighted relative output error",
                "passes": "2 forward + 1 backward + formats x local products",
            },
        ),
    ),
)
