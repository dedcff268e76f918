"""Print requirements/lock.txt: the exact versions in this environment, without this project itself.

Local version labels (+cpu) are left out, so that one file serves machines with and without a GPU: pip prefers whatever
wheel of that version the machine's own index offers. CUDA runtime wheels belong to the machine, not to the project.
"""

from __future__ import annotations

import re
from importlib.metadata import distributions

OURS = {"bitwright", "pip"}
MACHINE = re.compile(r"(nvidia|cuda|triton)([-_].*)?")

HEAD = """\
# Every package that `make venv` installs, in exactly these versions (written by `make lock`; do not edit).
# torch: any build of this version will do; on a machine without a GPU use a CPU wheel (CONTRIBUTING.md).
"""


def main() -> None:
    found = {str(d.metadata["Name"]).replace("_", "-").lower(): d.version.partition("+")[0] for d in distributions()}
    print(HEAD, end="")
    for name in sorted(found):
        if name not in OURS and not MACHINE.fullmatch(name):
            print(f"{name}=={found[name]}")


if __name__ == "__main__":
    main()
