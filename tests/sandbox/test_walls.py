"""Walls are seen, not assumed: where one is missing nothing runs, and the user is told how to mend it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fumehood import Engine, ExecutionRequest
from fumehood.errors import InvalidRequest, SandboxUnavailable
from fumehood.sandbox import canary, walls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fumehood.sandbox.live import Spawn

FUMEHOOD = [sys.executable, "-m", "fumehood"]


def inside_a_host_without_user_namespaces(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where the kernel hands out no further user namespace, as in most containers."""
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", *FUMEHOOD, *arguments]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_without_user_namespaces_nothing_runs_and_the_remedy_is_named(tmp_path: Path) -> None:
    answer = inside_a_host_without_user_namespaces(tmp_path, "run", "-c", "print('it ran')")
    assert answer.returncode == 125
    assert "it ran" not in answer.stdout
    assert "max_user_namespaces" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_doctor_says_which_wall_is_down_and_why(tmp_path: Path) -> None:
    answer = inside_a_host_without_user_namespaces(tmp_path, "doctor", "--json")
    assert answer.returncode == 125
    found = json.loads(answer.stdout)
    assert not found["runs"]
    assert "sysctl -w user.max_user_namespaces" in found["walls"][0]["remedy"]


def test_here_every_wall_is_up() -> None:
    with Engine() as engine:
        probes = canary.probe(engine.spawn)
    assert [probe.wall for probe in probes] == list(walls.WALLS)
    assert [probe.wall for probe in probes if not probe.up] == []


def _without(engine: Engine, wall: str) -> Spawn:
    """Return a way to fork on which the wall is silently missing, as on a host that lacks it."""
    return lambda spec, *rest: engine.spawn(spec.replace(without=frozenset([wall])), *rest)


@pytest.mark.parametrize("wall", ["landlock", "seccomp", "proc"])
def test_a_missing_wall_is_seen_and_refused_unless_it_was_given_up(
    wall: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with Engine(without=[wall]) as engine:
        found = canary.probe(engine.spawn, frozenset([wall]))
        probes = {probe.wall: probe.up for probe in found}
        assert walls.missing(found, frozenset([wall])) == []
        assert not probes[wall]
        # Without /proc the canary cannot read what the kernel says of capabilities.
        if wall != "proc":
            assert [name for name, up in probes.items() if not up] == [wall]
        with pytest.raises(SandboxUnavailable, match=wall):
            Engine(spawn=_without(engine, wall)).execute(ExecutionRequest(code="print(1)"))


def test_only_some_walls_can_be_given_up() -> None:
    with pytest.raises(InvalidRequest, match="'pid-namespace'.*landlock"):
        Engine(without=["pid-namespace"])


def test_a_verdict_is_remembered_for_this_boot_and_user(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [*FUMEHOOD, "run", "-c", "print(1)"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    remembered = (tmp_path / "fumehood" / "walls").read_text()
    assert remembered.count("\n") == 1
    assert Path("/proc/sys/kernel/random/boot_id").read_text().strip() in remembered
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert (tmp_path / "fumehood" / "walls").read_text() == remembered


def test_a_home_that_cannot_be_written_costs_a_canary_and_nothing_else(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    environment = {**os.environ, "XDG_CACHE_HOME": str(blocked)}
    answer = subprocess.run(
        [*FUMEHOOD, "run", "-c", "print(1)"], env=environment, check=True, capture_output=True, text=True
    )
    assert answer.stdout == "1\n"


def test_the_error_names_the_wall_and_the_next_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def no_spawn(*_arguments: object) -> tuple[int, int]:
        raise OSError(1, "clone3: Operation not permitted")

    with Engine(spawn=no_spawn) as engine, pytest.raises(SandboxUnavailable, match="user-namespace.*fumehood doctor"):
        engine.execute(ExecutionRequest(code="print(1)"))
