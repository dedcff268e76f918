"""Are the packages that Python would import ours? Names such as `service` and `worker` are generic (ADR 0001)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import bitwright
from bitwright.core.errors import InvalidSetting

PACKAGES = ("gpu_kernels", "quantizers", "sensitivity", "service", "solvers", "worker")


def check_packages(packages: tuple[str, ...] = PACKAGES) -> None:
    """Raises InvalidSetting when another distribution hides one of our packages. Imports none of them."""
    home = Path(bitwright.__file__).resolve().parent.parent
    for name in packages:
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or [spec.origin or ""]) if spec is not None else []
        if places and not any(Path(place).resolve() == home / name for place in places):
            raise InvalidSetting(
                f"another package named '{name}' hides the one of bitwright",
                expected=str(home / name),
                got=", ".join(places),
                hint="install bitwright in a virtual environment of its own, and do not run it from a folder "
                f"that holds a module named '{name}'",
            )
