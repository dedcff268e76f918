"""Inference engines as data: what each loads, checks before a job starts, and plans in other tools' own syntax."""

from bitwright.engines.catalog import engine_names, load_profile, shipped_profiles
from bitwright.engines.exporters.catalog import EXPORTERS
from bitwright.engines.exporters.writing import export_plan
from bitwright.engines.preflight import Reason, preflight
from bitwright.engines.profile import EngineProfile

__all__ = [
    "EXPORTERS", "EngineProfile", "Reason", "engine_names", "export_plan", "load_profile", "preflight",
    "shipped_profiles",
]  # fmt: skip
