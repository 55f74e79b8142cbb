"""The verdict of each attack on the way out falls where the policy allows what is asked for, or what is asked for is allowed.

That is not to say that the very bytes of an odd spelling would get through somewhere: it shows that somebody who came is seen.
"""

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
def test_its_verdict_falls_where_it_is_allowed(lenient: Target, probe: Probe) -> None:
    with pytest.raises(Fell):
        probe.attack(lenient)
