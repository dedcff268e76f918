"""Proofs by other people's software: collected only where `make consumers` made their environment.

The software lives in `.venv-consumers` (requirements/consumers.txt), apart from ours; each proof asks it through a
small script under probes/ that knows nothing of bitwright and answers in JSON or .npz.
"""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("BITWRIGHT_TEST_CONSUMERS") == "1" else ["test_*.py"]
