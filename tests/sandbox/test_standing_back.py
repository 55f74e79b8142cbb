"""A program that computes for long lets those go first that have just begun."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from fumehood import Engine, ExecutionRequest, Limits
from fumehood.sandbox.cgroup import Cgroup
from fumehood.sandbox.usage import shares_by_session, stand_back, tree

HAS_IDLE = bool(list(Path("/sys/fs/cgroup").glob("**/cpu.idle"))[:1]) and os.geteuid() == 0
pytestmark = pytest.mark.alone
SPINS = "import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass\n"


def idle_groups() -> list[str]:
    """Return the cpu.idle of every group of this process's sandboxes."""
    found = Path("/sys/fs/cgroup").glob(f"**/fumehood-{os.getpid()}-*/cpu.idle")
    return [path.read_text().strip() for path in found if path.exists()]


def policies() -> set[int]:
    """Return the scheduling policies of all processes below this one that compute."""
    found = set[int]()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"spinning" in (entry / "cmdline").read_bytes():
                found.add(os.sched_getscheduler(int(entry.name)))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not HAS_IDLE, reason="processors are not shared by groups that can be made idle here")
def test_a_long_program_stands_back_and_a_short_one_does_not() -> None:
    with Engine(warm_bytes=0) as engine:
        seen: list[list[str]] = []
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.05):
                seen.append(idle_groups())

        watcher = threading.Thread(target=look)
        watcher.start()
        engine.execute(ExecutionRequest(code=SPINS.format(seconds=0.2)))
        short = [value for each in seen for value in each]
        engine.execute(ExecutionRequest(code=SPINS.format(seconds=1.5)))
        over.set()
        watcher.join()
    assert "1" not in short
    assert "1" in {value for each in seen for value in each}


@pytest.mark.skipif(not HAS_IDLE, reason="processors are not shared by groups that can be made idle here")
def test_a_long_cell_stands_back_until_it_has_ended() -> None:
    with Engine(warm_bytes=0) as engine, engine.session() as session:
        thread = threading.Thread(target=lambda: session.run(SPINS.format(seconds=1.5)))
        thread.start()
        time.sleep(1.0)
        during = idle_groups()
        thread.join()
        # Other engines of this process may have groups too.
        assert (during.count("1"), idle_groups().count("1")) == (1, 0)


@pytest.mark.skipif(shares_by_session(), reason="the kernel shares processors by session here")
def test_where_memory_is_sampled_a_long_program_and_its_children_stand_back_for_good() -> None:
    marker = "spinning"
    code = f"import os, sys\nos.fork()\nos.fork()\n{SPINS.format(seconds=2)}"
    with Engine(warm_bytes=0, without=["cgroup"]) as engine:
        run = threading.Thread(
            target=lambda: engine.execute(ExecutionRequest(code=code, args=[marker], limits=Limits(wall_seconds=10)))
        )
        run.start()
        time.sleep(0.2)
        before = policies()
        until = time.monotonic() + 1.5
        while policies() != {os.SCHED_IDLE} and time.monotonic() < until:
            time.sleep(0.05)
        after = policies()
        run.join()
    assert before == {os.SCHED_OTHER}
    assert after == {os.SCHED_IDLE}


def test_a_process_that_stands_back_cannot_come_forward_again() -> None:
    code = """
import os, time
print(os.getpid(), flush=True)
until = time.monotonic() + 5
while os.sched_getscheduler(0) != os.SCHED_IDLE and time.monotonic() < until:
    time.sleep(0.01)
try:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
except OSError as error:
    print(error.errno)
"""
    with Engine(warm_bytes=0, without=["cgroup"]) as engine:

        def hold_back(_stream: str, _piece: bytes) -> None:
            for pid in tree(os.getpid()):
                if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"main.py\0"):
                    stand_back(pid)

        result = engine.execute(ExecutionRequest(code=code), on_output=hold_back)
    assert result.stdout.split()[1:] == ["1"]


def test_a_group_of_version_2_is_told_by_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "cpu.idle").write_text("0")
    group = Cgroup({"unified": str(tmp_path / "group")}, 2)
    assert group.stand_back()
    assert (tmp_path / "group" / "cpu.idle").read_text() == "1"
    assert group.stand_back(really=False)
    assert (tmp_path / "group" / "cpu.idle").read_text() == "0"


def test_a_kernel_without_idle_groups_is_no_error(tmp_path: Path) -> None:
    assert not Cgroup({"memory": str(tmp_path / "absent")}, 1).stand_back()
