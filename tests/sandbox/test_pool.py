"""The pool under load and under fire: every caller gets its own output, and nothing is left, whoever is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pytest

import fumehood
from fumehood import Engine, ExecutionRequest, ExecutionResult, Limits
from fumehood.errors import SandboxFailed
from fumehood.sandbox import kernel
from tests.testing.leftovers import assert_nothing_is_left, groups, settled

# It counts, or kills, what belongs to this process: nothing else may come and go meanwhile.
pytestmark = pytest.mark.alone


def run(engine: Engine, code: str, **fields: object) -> ExecutionResult:
    return engine.execute(ExecutionRequest(code=code, **fields))  # type: ignore[arg-type]  # the callers' own


LOAD = int(os.environ.get("FUMEHOOD_TEST_LOAD", "1500"))


@pytest.mark.timeout(900)
def test_64_callers_get_their_own_output_and_nothing_is_left() -> None:
    """With FUMEHOOD_TEST_LOAD=10000 this is the long run of `scripts/load`."""
    before = settled()
    with Engine() as engine:
        engine.prepare("python")

        def call(number: int) -> int:
            code = f"import sys; print({number}); print(-{number}, file=sys.stderr); open('f', 'w').write('{number}')"
            result = run(engine, code)
            assert (result.stdout, result.stderr) == (f"{number}\n", f"-{number}\n")
            assert [(file.path, file.data) for file in result.files] == [("f", str(number).encode())]
            return number

        with ThreadPoolExecutor(64) as callers:
            assert sorted(callers.map(call, range(1, LOAD + 1))) == list(range(1, LOAD + 1))
    assert_nothing_is_left(before)


class Load:
    """Programs that come one after another from several threads, and what became of them."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._stop = engine, threading.Event()
        self.ok, self.failed, self.wrong = 0, list[Exception](), list[ExecutionResult]()
        self._threads = [threading.Thread(target=self._call) for _ in range(4)]

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                result = run(self._engine, "import time; time.sleep(0.02); print(1)")
            except SandboxFailed as error:
                self.failed.append(error)
                continue
            if result.stdout == "1\n" and result.ok:
                self.ok += 1
            else:
                self.wrong.append(result)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self) -> bool:
        """Whether programs end well again within some seconds."""
        wanted, until = self.ok + 20, time.monotonic() + 10
        while self.ok < wanted and time.monotonic() < until:
            time.sleep(0.02)
        return self.ok >= wanted


def _below(pid: int) -> dict[int, tuple[int, int]]:
    """Return every process that descends from this one: how many pid namespaces below the host's it lives, its number there."""
    found: dict[int, tuple[int, int]] = {}
    pending = [pid]
    while pending:
        # Whoever is looked at may end meanwhile.
        with contextlib.suppress(OSError):
            for task in list(Path(f"/proc/{pending.pop()}/task").glob("*/children")):
                pending += (children := [int(word) for word in task.read_text().split()])
                for child in children:
                    lines = Path(f"/proc/{child}/status").read_text().splitlines()
                    numbers = next(line for line in lines if line.startswith("NSpid")).split()[1:]
                    found[child] = len(numbers) - 1, int(numbers[-1])
    return found


VICTIMS: dict[str, Callable[[int, int], bool]] = {
    "zygote": lambda depth, number: depth == 1 and number == 1,
    "maker": lambda depth, number: depth == 1 and number > 1,
    "process_1": lambda depth, number: depth == 2 and number == 1,
    "program": lambda depth, number: depth == 2 and number > 1,
    "launcher": lambda depth, _number: depth == 0,
}


@pytest.mark.parametrize("is_victim", VICTIMS.values(), ids=VICTIMS.keys())
def test_kill_9_in_the_middle_of_load_leaves_nothing_and_work_goes_on(
    is_victim: Callable[[int, int], bool],
) -> None:
    before = settled()
    with Engine() as engine:
        engine.prepare("python")
        own = min(depth for depth, _number in _below(os.getpid()).values())
        with Load(engine) as load:
            assert load.goes_on()
            for _ in range(3):
                family = _below(os.getpid())
                victims = [pid for pid, (depth, number) in family.items() if is_victim(depth - own, number)]
                for victim in victims[:1]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                assert load.goes_on()
        # The victims' callers were told, once each; nobody got a wrong result for it.
        assert [result for result in load.wrong if result.reason != "signalled"] == []
        assert len(load.failed) + len(load.wrong) <= 12
        engine.prepare("python")
        assert run(engine, "print(1)").warm
    assert_nothing_is_left(before)


def test_a_maker_that_is_killed_at_any_moment_leaves_nothing() -> None:
    before = settled()
    with Engine() as engine:
        engine.prepare("python")
        assert engine._pool is not None
        (stock,) = engine._pool._stocks.values()
        assert stock.zygote is not None
        family = set(_below(os.getpid()))
        for number in range(200):
            live = stock.zygote.fork(Limits())
            time.sleep(number * 0.00003)
            kernel.send_signal(live.maker, signal.SIGKILL)
            stock.zygote.release(live)
        assert set(_below(os.getpid())) <= family
    assert_nothing_is_left(before)


def test_the_victims_of_a_dead_zygote_get_a_typed_error_once() -> None:
    with Engine() as engine:
        engine.prepare("python")
        with ThreadPoolExecutor(1) as caller:
            future = caller.submit(run, engine, "import time; time.sleep(30)")
            time.sleep(0.3)
            family = _below(os.getpid())
            own = min(depth for depth, _number in family.values())
            zygotes = [pid for pid, (depth, number) in family.items() if (depth, number) == (own + 1, 1)]
            for zygote in zygotes:
                os.kill(zygote, signal.SIGKILL)
            with pytest.raises(fumehood.errors.ZygoteDied, match="run it again"):
                future.result(10)
            assert caller.submit(run, engine, "print(1)").result(10).stdout == "1\n"


def test_kill_9_of_the_engine_leaves_nothing(tmp_path: Path) -> None:
    script = tmp_path / "engine.py"
    script.write_text(
        "import fumehood, threading, sys\n"
        "engine = fumehood.Engine(); engine.prepare('python')\n"
        "def work():\n"
        "    while True: engine.execute(fumehood.ExecutionRequest(code='import time; time.sleep(0.05)'))\n"
        "for _ in range(4): threading.Thread(target=work).start()\n"
        "print('up', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.read(2) == b"up"
        time.sleep(0.5)
        family = _below(process.pid)
        assert len(family) > 5
        process.kill()
        process.wait()
    until = time.monotonic() + 5
    while time.monotonic() < until and (_alive(family) or groups(process.pid)):
        time.sleep(0.05)
    assert _alive(family) == []
    assert groups(process.pid) == []


def _alive(pids: Iterable[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]
