"""Each attack on the way out gets through where a policy allows what it needs: that it holds elsewhere means something."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fumehood.probes.attacks import egress
from fumehood.probes.suite import Fell, Probe
from fumehood.probes.target import Target


@pytest.fixture(scope="module")
def lenient() -> Iterator[Target]:
    with Target("warm") as target:
        target.lenient = True
        yield target


@pytest.mark.parametrize("probe", list(egress.SUITE), ids=lambda probe: probe.name.removeprefix("egress."))
def test_it_gets_through_where_it_is_allowed(lenient: Target, probe: Probe) -> None:
    with pytest.raises(Fell):
        probe.attack(lenient)
