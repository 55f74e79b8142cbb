"""Groups of version 1 for real where root can make them, of version 2 on a recorded tree of files."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fumehood import Engine, ExecutionRequest, Limits
from fumehood.protocol.limits import MiB
from fumehood.sandbox.cgroup import Cgroup, sweep

LIMITS = Limits(memory_bytes=64 * MiB, pids=10)


def recorded_v2(root: Path, handed_on: str) -> Path:
    """Lay out what a user's delegated slice looks like, and return the membership file of a process in it."""
    slice_ = root / "user.slice" / "app.slice"
    (slice_ / "shell.scope").mkdir(parents=True)
    for folder in (root, root / "user.slice", slice_, slice_ / "shell.scope"):
        (folder / "cgroup.subtree_control").write_text("")
    (slice_ / "cgroup.subtree_control").write_text(handed_on)
    membership = root / "membership"
    membership.write_text("0::/user.slice/app.slice/shell.scope\n")
    return membership


def test_v2_takes_the_nearest_group_that_hands_on_both_controllers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership = recorded_v2(tmp_path, "cpu memory pids\n")
    mkdir = os.mkdir

    def mkdir_as_the_kernel_does(path: str) -> None:
        mkdir(path)
        for name, text in {"memory.max": "", "memory.oom.group": "", "pids.max": "", "memory.peak": "4096\n",
                           "memory.events": "low 0\noom 2\noom_kill 1\n", "cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
                           "cpu.idle": "0"}.items():  # fmt: skip
            Path(path, name).write_text(text)

    monkeypatch.setattr(os, "mkdir", mkdir_as_the_kernel_does)
    group = Cgroup.open(LIMITS, root=str(tmp_path), membership=str(membership))
    assert group is not None
    (folder,) = group.entrances
    assert Path(folder).parent == tmp_path / "user.slice" / "app.slice"
    assert Path(folder, "memory.max").read_text() == str(64 * MiB)
    assert Path(folder, "memory.oom.group").read_text() == "1"
    assert Path(folder, "pids.max").read_text() == "11"
    assert (group.oom_kills, group.peak_bytes(), group.cpu_seconds) == (1, 4096, 2.5)
    assert group.stand_back()
    assert Path(folder, "cpu.idle").read_text() == "1"


def test_v2_without_delegation_is_none(tmp_path: Path) -> None:
    assert Cgroup.open(LIMITS, root=str(tmp_path), membership=str(recorded_v2(tmp_path, "cpu\n"))) is None


def test_no_membership_is_none(tmp_path: Path) -> None:
    assert Cgroup.open(LIMITS, root=str(tmp_path), membership=str(tmp_path / "nothing")) is None


@pytest.fixture
def real() -> Cgroup:
    group = Cgroup.open(LIMITS)
    if group is None:
        pytest.skip("no cgroup with memory and pids can be made here (an ordinary user, or no controllers)")
    return group


def test_a_real_group_has_its_limits_and_goes_away(real: Cgroup) -> None:
    folders = [Path(entrance) if Path(entrance).is_dir() else Path(entrance).parent for entrance in real.entrances]
    texts = {path.name: path.read_text().strip() for folder in folders for path in folder.glob("*.max")}
    assert texts.get("pids.max") == "11"
    assert real.oom_kills == 0
    real.close()
    assert not any(folder.exists() for folder in folders)


def test_each_group_has_one_small_share_of_the_processors(real: Cgroup) -> None:
    shares = [Path(entrance).parent / "cpu.shares" for entrance in real.entrances if "/cpu/" in entrance]
    weights = [Path(entrance) / "cpu.weight" for entrance in real.entrances if Path(entrance).is_dir()]
    said = {path.name: path.read_text().strip() for path in shares + weights if path.exists()}
    real.close()
    if not said and not Path("/sys/fs/cgroup/cpu").exists():
        pytest.skip("no controller shares processors by groups here")
    assert said in ({"cpu.shares": "256"}, {"cpu.weight": "25"})


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_a_program_and_what_it_forks_into_sessions_of_their_own_share_one_group(real: Cgroup, start: str) -> None:
    real.close()
    code = "import os, time\nfor _ in range(6):\n  if os.fork() == 0: os.setsid(); time.sleep(2); os._exit(0)\ntime.sleep(2)"
    with Engine(warm_bytes=0 if start == "cold" else 256 * MiB) as engine, ThreadPoolExecutor(1) as caller:
        if start == "warm":
            engine.prepare("python")
        held = caller.submit(engine.execute, ExecutionRequest(code=code))
        groups, until = set[str](), time.monotonic() + 1.5
        while time.monotonic() < until:
            groups |= {
                path.parent.name
                for path in Path("/sys/fs/cgroup/cpu").glob(f"**/fumehood-{os.getpid()}-*/cgroup.procs")
                if len(path.read_text().split()) > 6
            }
            time.sleep(0.05)
        assert held.result().ok
    if not Path("/sys/fs/cgroup/cpu").exists():
        pytest.skip("no controller of version 1 shares processors here")
    assert len(groups) == 1, groups


def test_a_real_group_counts_what_waits_in_sockets_and_the_time_of_processors(real: Cgroup) -> None:
    limits = [Path(path).parent / "memory.kmem.tcp.limit_in_bytes" for path in real.entrances]
    assert {int(limit.read_text()) for limit in limits if limit.exists()} <= {64 * MiB}
    assert real.cpu_seconds in (None, 0.0)


def test_groups_of_a_dead_maker_are_swept(real: Cgroup) -> None:
    folders = [Path(entrance) if Path(entrance).is_dir() else Path(entrance).parent for entrance in real.entrances]
    real.close()
    dead = [folder.with_name("fumehood-4194304-dead") for folder in folders]
    for folder in dead:
        folder.mkdir()
    sweep()
    assert not any(folder.exists() for folder in dead)
