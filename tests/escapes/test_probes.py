"""Runs the probes that ship with Fumehood, in every way in which a sandbox can come about on this host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fumehood.probes import running
from fumehood.probes.suite import Probe
from fumehood.probes.target import Target, ways_here

WAYS = ways_here()
PROBES = [(way, probe) for way in WAYS for probe in running.choose() if running.belongs(probe, way, WAYS)]


@pytest.fixture(scope="module")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    with Target(request.param) as target:
        yield target


@pytest.mark.parametrize(
    ("target", "probe"), PROBES, indirect=["target"], ids=[f"{way}-{probe.id}-{probe.name}" for way, probe in PROBES]
)
def test_the_attack_is_stopped(target: Target, probe: Probe) -> None:
    outcome = running.attempt(probe, target)
    if outcome.verdict == "left out":
        pytest.skip(outcome.seen)
    if outcome.verdict == "open":
        pytest.xfail(outcome.seen)
    # What is said to be open must be seen to be: the words would outlive the hole.
    assert outcome.verdict == ("open" if set(target.tiers) & set(probe.open_in) else "held"), outcome.seen


def test_every_probe_has_a_name_of_its_own() -> None:
    names = [probe.name for probe in running.choose()]
    assert len(names) == len(set(names))
