"""openapi/openapi.json is enough: what a public generator makes from it creates, finds, reads and cancels jobs."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.api.public_tools import generated_client
from tests.api.running import Running


def test_a_public_generator_makes_a_client_that_works(api: Running, tmp_path: Path) -> None:
    generated_client(Path(sys.executable).parent, api.url, tmp_path)
