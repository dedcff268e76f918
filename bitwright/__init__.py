"""bitwright: how many bits should every part of a neural network get, within a budget, with a proof.

The library face; every name is loaded when first used (import bitwright is fast and light):

    inspect, score, plan, load_problem, solve, verify, frontier, execute, evaluate, preflight, import_plan,
    import_plans, export
"""

__version__ = "0.1.0"

#: Public name -> module that holds it.
_FACE = {
    "inspect": "bitwright.face",
    "score": "bitwright.face",
    "plan": "bitwright.face",
    "solve": "bitwright.face",
    "verify": "bitwright.face",
    "frontier": "bitwright.face",
    "execute": "bitwright.face",
    "evaluate": "bitwright.face",
    "export": "bitwright.face",
    "preflight": "bitwright.face",
    "import_plan": "bitwright.face",
    "import_plans": "bitwright.face",
    "load_problem": "bitwright.core.problem_file",
    "save_problem": "bitwright.core.problem_file",
    "load_plan": "bitwright.core.plan",
    "load_solution": "bitwright.core.solution",
    "load_table": "bitwright.core.table",
    "Problem": "bitwright.core.problem",
    "Plan": "bitwright.core.plan",
    "Solution": "bitwright.core.solution",
    "Certificate": "bitwright.core.claim",
    "SensitivityTable": "bitwright.core.table",
    "BitwrightError": "bitwright.core.errors",
}

__all__ = ["__version__", *sorted(_FACE)]


def __getattr__(name: str) -> object:
    # Imported here: what stands at the top of this file runs before the command line can answer Ctrl-C.
    import importlib

    if name not in _FACE:
        raise AttributeError(f"module 'bitwright' has no attribute '{name}'")
    return getattr(importlib.import_module(_FACE[name]), name)


def __dir__() -> list[str]:
    return __all__
