"""What is said of probes: a wall's fault is never lost, and what was not shown counts as fallen."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fumehood.errors import InvalidRequest
from fumehood.probes import running
from fumehood.probes.running import Outcome
from fumehood.probes.suite import Fell, LeftOut, Probe, Suite, at_most, holds, one_of, same
from fumehood.probes.target import Target

if TYPE_CHECKING:
    from fumehood.probes.running import Verdict


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with Target("cold") as target:
        yield target


def probe(attack: Callable[[Target], None], **fields: object) -> Probe:
    return Probe(id="P1", name="a.b", tried="t", expected="e", wall="files", attack=attack, **fields)  # type: ignore[arg-type]  # the tests' own


def raises(error: Exception) -> Callable[[Target], None]:
    def attack(_target: Target) -> None:
        raise error

    return attack


def test_a_probe_that_finds_nothing_held(target: Target) -> None:
    outcome = running.attempt(probe(lambda _target: None), target)
    assert (outcome.verdict, outcome.seen, outcome.way) == ("held", "", "cold")


def test_a_wall_that_gives_way_fell(target: Target) -> None:
    outcome = running.attempt(probe(raises(Fell("saw it"))), target)
    assert (outcome.verdict, outcome.seen) == ("fell", "saw it")


@pytest.mark.parametrize("error", [OSError(5, "no"), InvalidRequest("no"), ImportError("no"), AssertionError("no")])
def test_what_cannot_be_carried_to_its_end_fell(target: Target, error: Exception) -> None:
    outcome = running.attempt(probe(raises(error)), target)
    assert outcome.verdict == "fell"
    assert "not carried to its end" in outcome.seen


def test_what_cannot_be_tried_is_left_out_with_its_reason(target: Target) -> None:
    outcome = running.attempt(probe(raises(LeftOut("no such language"))), target)
    assert (outcome.verdict, outcome.seen) == ("left out", "no such language")


def test_what_a_tier_does_not_stop_is_open_there_and_nowhere_else(target: Target) -> None:
    known = probe(raises(Fell("saw it")), open_in={target.tier: "known"})
    assert running.attempt(known, target).verdict == "open"
    elsewhere = probe(raises(Fell("saw it")), open_in={"another tier": "known"})
    assert running.attempt(elsewhere, target).verdict == "fell"
    # An attack that could not be made says nothing of a hole that is known.
    failed = probe(raises(OSError(5, "no")), open_in={target.tier: "known"})
    assert running.attempt(failed, target).verdict == "fell"


FELL: Verdict = "fell"


def outcomes(*verdicts: Verdict) -> list[Outcome]:
    facts = {"id": "P1", "name": "a.b", "way": "cold", "wall": "files", "tried": "", "expected": "", "seen": ""}
    return [Outcome(**facts, verdict=verdict, seconds=0.0) for verdict in verdicts]


def test_one_that_fell_is_a_failure() -> None:
    assert running.passes(outcomes("held", "open", "left out"), walled=True)
    assert not running.passes(outcomes("held", "fell"), walled=True)


def test_that_nothing_was_tried_is_no_success() -> None:
    for walled in (True, False):
        assert not running.passes(outcomes("left out"), walled=walled)
        assert not running.passes([], walled=walled)


def test_without_walls_nine_in_ten_of_those_tried_must_fall() -> None:
    assert running.passes(outcomes(*[FELL] * 9, "held", "left out"), walled=False)
    assert not running.passes(outcomes(*[FELL] * 8, "held"), walled=False)


def test_expectations_that_do_not_hold_fall() -> None:
    expectations: list[Callable[[], None]] = [
        lambda: same(1, 2), lambda: one_of(1, (2, 3)), lambda: at_most(2, 1), lambda: at_most(float("nan"), 1),
        lambda: holds(False, "no"),
    ]  # fmt: skip
    for expectation in expectations:
        with pytest.raises(Fell):
            expectation()
    same(1, 1)
    one_of(1, (1, 2))
    at_most(1, 1)
    holds(True, "no")


def test_variants_have_names_and_numbers_of_their_own() -> None:
    suite = Suite("class")
    seen: list[tuple[object, ...]] = []

    @suite.probe_each("P2", {"P3 one": "a", "two": ("b", "c")}, tried="try {}", expected="e", wall="files")
    def attack(_target: Target, *values: object) -> None:
        seen.append(values)

    assert [(each.id, each.name, each.tried) for each in suite] == [
        ("P3", "class.attack[one]", "try one"),
        ("P2", "class.attack[two]", "try two"),
    ]
    with Target("unwalled") as target:
        for each in suite:
            each.attack(target)
    assert seen == [("a",), ("b", "c")]


def doctor(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fumehood", "doctor", *words], capture_output=True, text=True, check=False, timeout=100
    )


def test_the_command_prints_a_table_and_a_verdict() -> None:
    shown = doctor("--probes", "--only", "P13")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stdout.split()[:5] == ["probe", "tried", "expectation", "outcome", "wall"]
    assert "held (" in shown.stdout
    assert "The walls hold." in shown.stdout
    assert "\x1b" not in shown.stdout


def test_the_command_tells_json_with_a_list_of_probes() -> None:
    report = json.loads(doctor("--probes", "--only", "P13", "--json").stdout)
    assert report["passed"] is True
    assert {each["way"] for each in report["probes"]} >= {"cold"}
    assert set(report["probes"][0]) >= {"id", "name", "way", "wall", "tried", "expected", "verdict", "seen", "seconds"}


def test_without_walls_the_command_says_so_and_that_they_fell() -> None:
    shown = doctor("--probes", "--unwalled", "--only", "P13")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "WITHOUT WALLS" in shown.stdout
    assert "fell (unwalled)" in shown.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [(("--probes", "--only", "P9999"), "no probe is called 'P9999'"), (("--unwalled",), "add --probes"), (("--only", "P1"), "add --probes")],
)  # fmt: skip
def test_a_mistake_is_named(words: tuple[str, ...], says: str) -> None:
    shown = doctor(*words)
    assert shown.returncode == 2
    assert says in shown.stderr


def test_probes_whose_process_dies_fell(tmp_path: Path) -> None:
    # A worker that cannot even start: its interpreter finds another `fumehood` first.
    (tmp_path / "fumehood").mkdir()
    (tmp_path / "fumehood" / "__init__.py").write_text("raise SystemExit(1)")
    code = (
        "import os, json\nfrom fumehood.probes import running\n"
        f"os.environ['PYTHONPATH'] = {str(tmp_path)!r}\n"
        "found = running.run(running.choose(['P13']), ['cold', 'warm'])\n"
        "print(json.dumps([outcome.as_dict() for outcome in found]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    found = json.loads(run.stdout)
    assert len(found) > 3
    assert {outcome["verdict"] for outcome in found} == {"fell"}
    assert {outcome["seen"] for outcome in found} == {"the process that was to try it died"}
