"""How long and from what a fuzz test draws: some hundred examples as a test, as long as it is told by `scripts/fuzz`."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, settings

_CORPUS = Path(__file__).parent / "corpus"
#: Set by `scripts/fuzz`; how many examples each test draws.
_EXAMPLES = int(os.environ.get("FUMEHOOD_FUZZ_EXAMPLES", "150"))

FUZZ = settings(
    max_examples=_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)  # fmt: skip


def corpus(name: str) -> list[bytes]:
    """Return the seeds that are kept for one target, by the order of their names."""
    return [path.read_bytes() for path in sorted((_CORPUS / name).iterdir())]
