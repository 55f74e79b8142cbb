"""Runs probes, one after the other, and says of each what came of it."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from ..errors import InvalidRequest
from ..protocol.record import Record
from ..sandbox.walls import GVISOR_WALLS
from . import gvisor
from .attacks import SUITES
from .host_side import is_the_hosts_root
from .suite import ONLY_ROOT, Fell, LeftOut
from .target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import IO, Literal

    from .suite import Probe

    Verdict = Literal[
        "held",  # the walls did what they promise
        "fell",  # they did not, or the probe could not be carried to its end
        "open",  # this way of running does not stop it, which its tier says
        "left out",  # it cannot be tried here
    ]

#: Of the probes that are tried without walls, the share that must fall.
SHARE_THAT_MUST_FALL = 0.9
# What there is to attack inside gVisor: its answers to system calls are its own affair.
_WALLS_OF_GVISOR = frozenset(
    {
        *GVISOR_WALLS,
        "egress",
        "memory",
        "processes",
        "time",
        "output",
        "results",
        "files-in",
        "files-out",
        "sessions",
        "leftovers",
    }
)
# Everything else about a sandbox is the same whether a cgroup counts its memory or a sample does.
_WHAT_A_SAMPLE_BOUNDS = ("memory", "processes")


class Outcome(Record):
    """What came of one probe in one way: `seen` is "" where it held, else what was seen or why it was not tried."""

    id: str
    name: str
    way: str
    wall: str
    tried: str
    expected: str
    verdict: Verdict
    seen: str
    seconds: float


def choose(only: Sequence[str] = ()) -> list[Probe]:
    """Return the probes of these numbers, classes or names; all of them where none is named. Raises `InvalidRequest`."""
    every = [probe for suite in SUITES.values() for probe in suite]
    for word in only:
        if not any(_is_meant(probe, word) for probe in every):
            raise InvalidRequest(
                f"no probe is called {word!r}: name a number like P85, a whole name, or one of {', '.join(SUITES)}"
            )
    return [probe for probe in every if not only or any(_is_meant(probe, word) for word in only)]


def _is_meant(probe: Probe, word: str) -> bool:
    return word in (probe.id, probe.name, probe.name.partition(".")[0])


def run(
    probes: Sequence[Probe], ways: Sequence[str], on_outcome: Callable[[Outcome, float], None] | None = None
) -> list[Outcome]:
    """Try every probe in every way; `on_outcome` hears each, with the share that is done, as it comes.

    Raises `SandboxUnavailable` where nothing can run here.
    """
    plan = {way: [probe for probe in probes if belongs(probe, way, ways)] for way in ways}
    planned = sum(map(len, plan.values()))
    outcomes: list[Outcome] = []
    for outcome in _in_processes(plan) if len(ways) > 1 else run_here(plan[ways[0]], ways[0]):
        outcomes.append(outcome)
        if on_outcome is not None:
            on_outcome(outcome, len(outcomes) / planned)
    return outcomes


def run_here(probes: Sequence[Probe], way: str) -> Iterator[Outcome]:
    """Try them in one way, in this process."""
    with Target(way) as target:
        for probe in probes:
            yield attempt(probe, target)


def _in_processes(plan: dict[str, list[Probe]]) -> Iterator[Outcome]:
    """Try each way in a process of its own, all at one time: most of what probes do is wait."""
    workers: dict[str, subprocess.Popen[bytes]] = {}
    pending = {way: {probe.name: probe for probe in probes} for way, probes in plan.items()}
    try:
        with selectors.DefaultSelector() as selector:
            for way, probes in plan.items():
                workers[way] = _worker(way, probes)
                selector.register(_output(workers[way]), selectors.EVENT_READ, way)
            while selector.get_map():
                for key, _event in selector.select():
                    if line := key.fileobj.readline():  # type: ignore[union-attr]  # a file, as registered
                        outcome = Outcome(**json.loads(line))
                        del pending[outcome.way][outcome.name]
                        yield outcome
                    else:
                        selector.unregister(key.fileobj)
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
            _output(worker).close()
    for way, left in pending.items():
        yield from (_outcome(probe, way, "fell", "the process that was to try it died", 0.0) for probe in left.values())


def _worker(way: str, probes: Sequence[Probe]) -> subprocess.Popen[bytes]:
    order = json.dumps([way, [probe.name for probe in probes]])
    command = [sys.executable, "-m", "fumehood.probes.worker", order]
    # Unbuffered: what lies in a buffer here no selector tells of.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0)


def _output(worker: subprocess.Popen[bytes]) -> IO[bytes]:
    assert worker.stdout is not None  # noqa: S101 - a pipe was asked for
    return worker.stdout


def belongs(probe: Probe, way: str, ways: Sequence[str]) -> bool:
    """Whether a probe is tried in this way when all of `ways` are."""
    if probe.once:
        # There, it has the better part of two minutes to itself.
        chosen = "warm" if "warm" in ways else ways[0]
        return way == chosen and (probe.only_ways is None or way in probe.only_ways)
    if way == "sampled" and probe.wall not in _WHAT_A_SAMPLE_BOUNDS:
        return False
    return probe.only_ways is None or way in probe.only_ways


def attempt(probe: Probe, target: Target) -> Outcome:
    """Try one probe."""
    started = time.monotonic()
    verdict, seen = _verdict(probe, target)
    return _outcome(probe, target.way, verdict, seen, time.monotonic() - started)


def _outcome(probe: Probe, way: str, verdict: Verdict, seen: str, seconds: float) -> Outcome:
    facts = {name: getattr(probe, name) for name in ("id", "name", "wall", "tried", "expected")}
    return Outcome(**facts, way=way, verdict=verdict, seen=seen, seconds=seconds)


def _verdict(probe: Probe, target: Target) -> tuple[Verdict, str]:
    if probe.only_root and not target.walled and not is_the_hosts_root():
        return "left out", ONLY_ROOT
    if target.way == "gvisor":
        if probe.wall not in _WALLS_OF_GVISOR:
            return "left out", "that wall is the host's kernel's; here gVisor's answers"
        if (otherwise := gvisor.reason(gvisor.UNLIKE, probe.name)) is not None:
            return "left out", otherwise
    try:
        probe.attack(target)
    except LeftOut as reason:
        return "left out", str(reason)
    except Fell as fault:
        why = next((probe.open_in[tier] for tier in target.tiers if tier in probe.open_in), None)
        if target.way == "gvisor":
            why = why or gvisor.reason(gvisor.OPEN, probe.name)
        return ("fell", str(fault)) if why is None else ("open", f"{why} ({fault})")
    # What cannot be carried to its end has shown nothing, whatever stood in its way: that counts as fallen.
    except Exception as error:  # noqa: BLE001 - the outermost frame of a probe; the report says it
        return "fell", f"the probe was not carried to its end: {type(error).__name__}: {error}"
    return "held", ""


def passes(outcomes: Sequence[Outcome], *, walled: bool) -> bool:
    """Whether the walls hold; or, where there are none, whether the suite would have noticed."""
    tried = [outcome for outcome in outcomes if outcome.verdict != "left out"]
    if not tried:
        return False  # that nothing was tried shows nothing
    if walled:
        return not any(outcome.verdict == "fell" for outcome in tried)
    return sum(outcome.verdict == "fell" for outcome in tried) >= SHARE_THAT_MUST_FALL * len(tried)
