"""`fumehood doctor`: which walls this machine puts up, seen from inside a sandbox, and how to mend those it does not."""

from __future__ import annotations

import json

from ..engine import Engine
from ..errors import FumehoodError
from ..runtimes import get, languages
from ..runtimes.runtime import Host, say_nothing
from ..sandbox import canary, walls
from ..sandbox.isolation import gvisor
from ..sandbox.walls import CAN_GO_WITHOUT, GVISOR_WALLS, WALLS, Finding, named
from .arguments import Arguments, Command, Option, UsageError
from .isolation import ISOLATION
from .terminal import wants_colour

_MEANINGS = {**WALLS, **GVISOR_WALLS}


def doctor(arguments: Arguments) -> int:
    """Do the command. Exit code 0 where every wall is up that was not given up, else 125; for probes see `doctor_probes`."""
    if arguments.probes:
        from .doctor_probes import probe  # noqa: PLC0415 - 100 ms that a look at the walls need not pay

        return probe(arguments)
    if arguments.unwalled or arguments.only:
        raise UsageError("--unwalled and --only say which probes to run: add --probes")
    without = named(arguments.without)
    with Engine(without=without, isolation=arguments.isolation) as engine:
        probes = canary.probe(engine.spawn, without, engine.runsc)
    tier = canary.memory_tier()
    missing = [probe.wall for probe in walls.missing(probes, without)]
    if arguments.json:
        print(json.dumps(_as_json(probes, tier, missing, without), indent=2))
    else:
        _print(probes, tier, missing, without)
    return 125 if missing else 0


def _as_json(probes: list[Finding], tier: Finding, missing: list[str], without: frozenset[str]) -> dict[str, object]:
    return {
        "runs": not missing,
        "missing": missing,
        "without": sorted(without),
        "tier": "cgroup" if tier.up else "sampled",
        "walls": [probe.as_dict() for probe in (*probes, tier)],
        "languages": _languages(),
        "gvisor": _gvisor(),
    }


def _languages() -> dict[str, str]:
    """Return each language with "ready" or what is missing. Nothing is built for that."""
    found: dict[str, str] = {}
    for language in languages():
        try:
            if not language.startswith("python"):  # runs wherever Fumehood does; its packages come with the first use
                get(language).start("", None, Host(notice=say_nothing))
            found[language] = "ready"
        except FumehoodError as error:
            found[language] = str(error)
    return found


def _gvisor() -> str:
    """Return "ready" or what is missing for the second isolation."""
    try:
        gvisor.find()
    except FumehoodError as error:
        return str(error)
    return "ready"


def _print(probes: list[Finding], tier: Finding, missing: list[str], without: frozenset[str]) -> None:
    green, red, yellow, plain = ("\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[0m") if wants_colour(1) else ("",) * 4
    for probe in probes:
        mark = f"{green}up  {plain}" if probe.up else f"{red}DOWN{plain}"
        print(f"{mark}  {probe.wall:<18} {_MEANINGS[probe.wall]}")
        if not probe.up:
            print(f"      seen: {probe.seen}")
            print(f"      remedy: {probe.remedy}")
            if probe.wall in without:
                print(f"      given up by --without: {CAN_GO_WITHOUT[probe.wall]}")
    mark = f"{green}up  {plain}" if tier.up else f"{yellow}tier{plain}"
    print(f"{mark}  {'cgroup':<18} {tier.seen}")
    if not tier.up:
        print(f"      better: {tier.remedy}")
    print()
    for language, state in _languages().items():
        print(f"{language:<11} {state}")
    print(f"{'gvisor':<11} {_gvisor()}")
    print()
    if missing:
        print(f"Nothing will run here: {', '.join(missing)} missing.")
    else:
        print(f"Programs will run here; memory and processes are bounded by {'a cgroup' if tier.up else 'sampling'}.")


COMMAND = Command(
    name="doctor",
    summary="Show which walls this machine puts up, and how to mend those it does not.",
    description=(
        "Run a canary in a sandbox that tries what each wall is there to stop, and print each wall as up or down, with "
        "what was seen and the exact remedy. Exit code 0 where programs will run, 125 where they will not. With --probes attack "
        "the sandbox on this host, some hundred times, and print what came of each; exit code 1 where one got through."
    ),
    run=doctor,
    options=(
        Option(name="json", help="Print the findings as JSON."),
        Option(name="probes", help="Run the attacks: under two minutes on two cores."),
        Option(
            name="only",
            metavar="PROBE",
            many=True,
            help="Run these probes alone: a number like P85, a class like network, or a name.",
        ),
        Option(
            name="unwalled",
            help="Run the attacks with no walls at all, in namespaces that are thrown away: at least 90 % must get "
            "through, else the probes show nothing. Meant for a machine that may be hurt.",
        ),
        ISOLATION,
        Option(
            name="without",
            metavar="WALL",
            many=True,
            help=f"As for run: give up {', '.join(CAN_GO_WITHOUT)}.",
        ),
    ),
    examples=(
        "fumehood doctor",
        "fumehood doctor --json",
        "fumehood doctor --probes",
        "fumehood doctor --probes --only P85",
    ),
)
