"""Live fork: copies of a session begin with all that it held, share nothing from then on, and can be gone back to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from fumehood import Engine, Limits, Session
from fumehood.errors import ForkRefused, FumehoodError, InvalidRequest, SessionBusy, SessionDead
from fumehood.protocol.limits import MiB
from fumehood.sandbox import usage

# It counts, or kills, what belongs to this process: nothing else may come and go meanwhile.
pytestmark = pytest.mark.alone

LIMITS = Limits(wall_seconds=20, cpu_seconds=60, memory_bytes=512 * MiB)


@pytest.fixture(scope="module", params=["cold", "warm"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with Engine(warm_bytes=0 if request.param == "cold" else 256 * MiB) as engine:
        if request.param == "warm":
            with engine.session():
                time.sleep(1)  # the first one starts cold and has the zygote made
        yield engine


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with engine.session(limits=LIMITS) as session:
        yield session


def value(session: Session, code: str) -> str:
    result = session.run(code)
    assert result.result is not None, (result.error, result)
    return str(result.result["text/plain"])


def test_copies_begin_with_the_same_state_and_do_not_see_what_comes_after(session: Session) -> None:
    session.run("x = {'n': [1]}\ndef f(): return sum(x['n'])\nopen('a', 'w').write('before')")
    forks = session.fork(3)
    try:
        for number, each in enumerate((session, *forks)):
            assert value(each, f"x['n'].append({number}); open('a', 'a').write('{number}'); f()") == str(1 + number)
            each.run(f"open('own', 'w').write('{number}')")
        for number, each in enumerate((session, *forks)):
            assert value(each, "x") == f"{{'n': [1, {number}]}}"
            assert each.get_file("a") == f"before{number}".encode()
            assert each.get_file("own") == str(number).encode()
        assert len({each.id for each in (session, *forks)}) == 4
    finally:
        for each in forks:
            each.close()
    assert value(session, "f()") == "1"


def test_a_fork_succeeds_however_slowly_its_caller_gets_on_while_the_session_prints(session: Session) -> None:
    session.run(
        "import os, threading, time\n"
        "def prints():\n  while True: os.write(1, b'x'); time.sleep(0.001)\n"
        "threading.Thread(target=prints, daemon=True).start()"
    )

    def slowly(frame: FrameType, _event: str, _argument: object) -> Any:
        if "incarnation" not in frame.f_code.co_filename or threading.current_thread().name == "fumehood-session":
            return None
        time.sleep(0.002)
        return slowly

    threading.settrace(slowly)
    try:
        (copy,) = session.fork(1)
    finally:
        threading.settrace(None)
    copy.close()
    assert value(session, "1 + 1") == "2"


def helpers(engine: Engine) -> list[int]:
    """Return the processes that wait for the next order to copy, and those beside them: forks of the launcher, in its own namespaces."""
    launcher = engine._launcher
    assert launcher is not None
    assert launcher._process is not None
    found, pending = [], [launcher._process.pid]
    ours = Path(f"/proc/{launcher._process.pid}/cmdline").read_bytes(), os.readlink("/proc/self/ns/pid")
    while pending:
        pid = pending.pop()
        with contextlib.suppress(OSError):
            pending += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            facts = Path(f"/proc/{pid}/cmdline").read_bytes(), os.readlink(f"/proc/{pid}/ns/pid")
            found += [pid] if facts == ours and pid != launcher._process.pid else []
    return found


def traces(tracer: int) -> bool:
    """Whether a process holds another."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if f"TracerPid:\t{tracer}\n" in status.read_text(encoding="utf-8", errors="replace"):
                return True
        except OSError:
            continue
    return False


def wait_for_helpers(engine: Engine) -> tuple[int, int]:
    """Return the process that waits for the next order, and the one beside it."""
    until = time.monotonic() + 10
    # One that still holds what it copied sleeps too, now and then; if it is killed, so is that.
    while len(found := helpers(engine)) != 2 or any("S" not in usage.states(pid) or traces(pid) for pid in found):
        assert time.monotonic() < until, f"{found} wait for an order to copy"
        time.sleep(0.01)
    copier, furnisher = found
    return copier, furnisher


def test_a_killed_copier_is_replaced(engine: Engine, session: Session) -> None:
    session.fork(1)[0].close()
    copier, _furnisher = wait_for_helpers(engine)
    os.kill(copier, signal.SIGKILL)
    session.run("x = 1")
    time.sleep(0.1)
    (copy,) = session.fork(1)
    assert value(copy, "x") == "1"
    copy.close()
    assert copier not in wait_for_helpers(engine)


def test_a_fork_whose_mounts_nobody_can_put_up_is_refused_and_the_session_goes_on(
    engine: Engine, session: Session
) -> None:
    session.run("x = 1")
    session.fork(1)[0].close()
    _copier, furnisher = wait_for_helpers(engine)
    os.kill(furnisher, signal.SIGKILL)
    with pytest.raises(ForkRefused):
        session.fork(1)
    assert value(session, "x") == "1"
    (copy,) = session.fork(1)
    assert value(copy, "x") == "1"
    copy.close()


GENERATORS = {
    "random": "import random; draw = random.random",
    "own": "import random; generator = random.Random(7); draw = generator.random",
    "in_a_list": "import random; kept = [random.Random(7)]; draw = kept[0].random",
    "ssl": "import ssl; draw = lambda: ssl.RAND_bytes(8)",
    "uuid": "import uuid; draw = uuid.uuid1",
    "tempfile": "import tempfile, os; draw = lambda: (os.getpid(), tempfile.mktemp())",
}


@pytest.mark.parametrize("setup", GENERATORS.values(), ids=GENERATORS)
def test_generators_draw_anew(session: Session, setup: str) -> None:
    session.run(f"{setup}\ndraw()")
    forks = session.fork(2)
    drawn = [value(each, "draw()") for each in (session, *forks)]
    for each in forks:
        each.close()
    assert len(set(drawn)) == 3


def test_generators_of_numpy_draw_anew_and_figures_and_data_stay(engine: Engine) -> None:
    setup = """
import numpy as np, pandas as pd, matplotlib.pyplot as plt
np.random.seed(1); own = np.random.default_rng(1)
frame = pd.DataFrame({'a': range(1000)})
"""
    with engine.session("python-data", limits=LIMITS) as session:
        assert session.run(setup).ok
        forks = session.fork(2)
        for draw in ("np.random.random()", "own.random()", "np.random.default_rng().random()"):
            assert len({value(each, draw) for each in (session, *forks)}) == 3, draw
        for each in forks:
            assert value(each, "frame.a.sum()") in ("499500", "np.int64(499500)")
            shown = each.run("plt.plot([1, 2]); plt.show()")
            assert any("image/png" in display.data for display in shown.displays), shown
            each.close()


def test_a_memory_file_is_copied(engine: Engine, session: Session) -> None:
    if not session.run("import os; m = os.memfd_create('m'); os.write(m, b'both')").ok:
        return  # refused where memory is sampled
    (fork,) = session.fork()
    session.run("os.pwrite(m, b'mine', 0)")
    assert value(fork, "os.pread(m, 9, 0)") == "b'both'"
    fork.close()


def test_open_files_stay_open_and_are_the_copys_own(session: Session) -> None:
    setup = """
import os, tempfile
open('a', 'w').write('0123456789')
reading = open('a'); reading.read(3)
writing = open('b', 'w+'); writing.write('one'); writing.flush()
nameless = tempfile.TemporaryFile(); nameless.write(b'secret'); nameless.seek(2)
os.mkdir('sub'); os.chdir('sub'); folder = os.open('.', os.O_RDONLY)
"""
    assert session.run(setup).ok
    (fork,) = session.fork()
    for number, each in enumerate((session, fork)):
        assert value(each, "reading.read(2), nameless.read(), os.getcwd()") == "('34', b'cret', '/work/sub')"
        each.run(f"writing.write('{number}'); writing.flush(); nameless.write(b'{number}')")
        each.run(f"os.close(os.open('in{number}', os.O_CREAT | os.O_WRONLY, dir_fd=folder))")
    for number, each in enumerate((session, fork)):
        assert each.get_file("b") == f"one{number}".encode()
        assert value(each, "nameless.seek(0), nameless.read(), os.listdir(folder)") == (
            f"(0, b'secret{number}', ['in{number}'])"
        )
    fork.close()


def test_files_are_copied_as_they_are(session: Session) -> None:
    setup = """
import asyncio
import os
os.makedirs('d/e'); open('d/e/f', 'w').write('x'); os.chmod('d/e/f', 0o640); os.link('d/e/f', 'hard'); os.symlink('d/e/f', 'soft')
with open('hole', 'wb') as f: f.seek(50 << 20); f.write(b'end')
os.mkfifo('pipe'); os.utime('hard', (1, 2)); open('/tmp/t', 'w').write('t'); open('/dev/shm/s', 'w').write('s')
os.mkdir('closed'); open('closed/in', 'w').write('i'); os.chmod('closed', 0o500)
"""
    assert session.run(setup).ok
    (fork,) = session.fork()
    look = """
(os.stat('hard').st_ino == os.stat('d/e/f').st_ino, oct(os.stat('hard').st_mode), os.stat('hard').st_mtime, os.readlink('soft'),
 os.stat('hole').st_size, os.stat('hole').st_blocks < 100, open('/tmp/t').read(), open('/dev/shm/s').read(),
 open('closed/in').read(), oct(os.stat('closed').st_mode), sorted(os.listdir()))
"""
    assert value(fork, look) == value(session, look)
    assert "True, '0o100640', 2.0, 'd/e/f', 52428803, True, 't', 's', 'i', '0o40500'" in value(fork, look)
    fork.close()


def test_what_cannot_be_taken_along_is_closed_and_told(session: Session) -> None:
    setup = """
import os, socket, subprocess, threading, time
pair = socket.socketpair(); read, write = os.pipe(); number = pair[0].fileno()
thread = threading.Thread(target=time.sleep, args=(1000,), name='ticker', daemon=True); thread.start()
child = subprocess.Popen(['sleep', '1000'])
"""
    assert session.run(setup).ok
    (fork,) = session.fork()
    for each in (session, fork):
        assert "thread ticker" in each.lost
        assert "1 other process" in each.lost
        assert "2 socket" in each.lost[-1]
        assert "2 pipe" in each.lost[-1]
        assert (
            value(each, "threading.active_count(), thread.is_alive(), child.poll() is not None") == "(1, False, True)"
        )
        failed = each.run("os.write(write, b'x')")
        assert failed.error is not None
        assert failed.error.name == "OSError"
        # The number is not free: what is opened next must not take the socket's place.
        assert value(each, "os.open('/dev/null', os.O_RDONLY) != number") == "True"
    fork.close()


ODD = {
    "timer": "import signal; signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)",
    "all descriptors closed": "import os; os.closerange(3, 63); os.close(0)",
    "streams closed": "import os; os.close(1); os.close(2)",
    "no descriptor left": "import os\nk = []\ntry:\n  while True: k.append(os.open('/dev/null', 0))\nexcept OSError: [os.close(each) for each in k[-20:]]",
    "deep folders": "import os\nfor _ in range(900): os.mkdir('d'); os.chdir('d')",
    "odd names": "import os\nfor n in (b'\\xff', b'a\\nb', b'-rf', b'x' * 255): open(n, 'w').write('1')",
    "closed files": "import os; open('a', 'w').write('1'); os.chmod('a', 0); os.mkdir('z'); open('z/q', 'w').write('2'); os.chmod('z', 0)",
    "full disk": "f = open('b', 'wb')\ntry: f.write(bytes(200 << 20))\nexcept OSError: pass",
    "folder gone": "import os; os.mkdir('g'); os.chdir('g'); os.rmdir('../g')",
    "signals blocked": "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))",
    "own handlers": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "low recursion": "import sys; sys.setrecursionlimit(50)",
}


@pytest.mark.parametrize("setup", ODD.values(), ids=ODD)
def test_odd_states_are_taken_along(session: Session, setup: str) -> None:
    assert session.run(setup).ok
    (fork,) = session.fork()
    for each in (session, fork):
        assert value(each, "40 + 2") == "42"
        assert each.run("import subprocess; subprocess.run(['true'], check=True)").ok
    fork.close()


def test_a_session_with_threads_can_be_forked_again_and_again(session: Session) -> None:
    session.run("import threading, time\nkept = 1")
    for _turn in range(3):
        session.run("threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()")
        (fork,) = session.fork()
        assert value(fork, "kept, threading.active_count()") == "(1, 1)"
        fork.close()


def test_top_level_await_works_before_and_after(session: Session) -> None:
    assert session.run("import asyncio\nawait asyncio.sleep(0.01)").ok
    (fork,) = session.fork()
    for each in (session, fork):
        assert value(each, "await asyncio.sleep(0.01, 'awake')") == "'awake'"
    fork.close()


def test_a_checkpoint_can_be_gone_back_to(session: Session) -> None:
    session.run("tries = []; open('log', 'w').write('begun')")
    with session.checkpoint() as checkpoint:
        for number in range(10):
            assert value(session, f"tries.append({number}); tries") == f"[{number}]"
            session.run("open('log', 'a').write(' and changed')")
            session.restore(checkpoint)
        assert value(session, "tries") == "[]"
        assert session.get_file("log") == b"begun"
        session.run("import os; os._exit(1)")
        assert session.status == "dead"
        session.restore(checkpoint)
        assert value(session, "tries") == "[]"
        session.run("tries = 'last'")
    assert value(session, "tries") == "'last'"


def test_a_checkpoint_outlives_its_session_and_serves_another(engine: Engine, session: Session) -> None:
    session.run("x = 'kept'")
    with session.checkpoint() as checkpoint:
        session.close()
        with pytest.raises(SessionDead):
            session.run("x")
        with engine.session(limits=LIMITS) as other:
            other.restore(checkpoint)
            assert value(other, "x") == "'kept'"


def test_a_checkpoint_is_of_one_language(engine: Engine, session: Session) -> None:
    with session.checkpoint() as checkpoint, engine.session("bash", limits=LIMITS) as other:
        with pytest.raises(InvalidRequest, match="bash cannot go back to a checkpoint of python"):
            other.restore(checkpoint)
        assert other.run("echo on").stdout == "on\n"


def test_copies_can_be_interrupted_and_die_with_their_reasons(session: Session) -> None:
    session.run("x = 1")
    forks = session.fork(4)
    slow = forks[0].run("import time\ntime.sleep(30)", timeout=0.3)
    assert (slow.ended, slow.error is not None and slow.error.name) == ("timeout", "KeyboardInterrupt")
    assert value(forks[0], "x") == "1"
    endings = {1: ("import os; os._exit(3)", "exited"), 2: ("import ctypes; ctypes.string_at(0)", "crashed")}
    endings[3] = ("b = bytearray(600 << 20)\nfor i in range(0, len(b), 4096): b[i] = 1", "out_of_memory")
    for number, (code, reason) in endings.items():
        result = forks[number].run(code)
        death = forks[number].death
        if death is None:  # refused by the backstop, where memory is sampled
            assert result.error is not None
            assert result.error.name == "MemoryError"
        else:
            assert death.reason == reason, death
    assert value(session, "x") == "1"
    forks[1].restart()
    assert forks[1].run("x").error is not None
    for each in forks:
        each.close()


def test_orphans_and_children_of_a_copy_are_waited_for(session: Session) -> None:
    (fork,) = session.fork()
    code = """
import subprocess
done = subprocess.run(['sh', '-c', '(sleep 0.05; :) & exit 4'])
import time; time.sleep(0.3)
done.returncode, subprocess.run(['ps', '-e'], capture_output=True).returncode
"""
    assert value(fork, code).startswith("(4, ")
    # Nobody of ours runs in there to bury them, so the kernel must.
    assert "Z" not in _states_below(fork)
    fork.close()


def _states_below(session: Session) -> set[str]:
    first = session._incarnation._live.pid
    children = Path(f"/proc/{first}/task/{first}/children").read_text(encoding="ascii").split()
    return {Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] for pid in children}


def test_mapped_files_are_refused_and_the_session_goes_on(session: Session) -> None:
    session.run("import mmap\nx = 1\nshared = mmap.mmap(-1, 4096)")
    with pytest.raises(ForkRefused, match="maps memory that copies would share"):
        session.fork()
    assert value(session, "x") == "1"
    session.run("shared.close()")
    (fork,) = session.fork()
    assert value(fork, "x") == "1"
    fork.close()


@pytest.mark.parametrize("language", ["bash", "javascript"])
def test_other_languages_cannot_be_forked_and_go_on(engine: Engine, language: str) -> None:
    limits = LIMITS.replace(memory_bytes=1024 * MiB)
    with engine.session(language, limits=limits) as session:
        with pytest.raises(ForkRefused, match="only sessions of python"):
            session.fork()
        assert session.run("echo on" if language == "bash" else "console.log('on')").stdout == "on\n"


def test_a_number_of_copies_out_of_range_is_the_callers_fault(session: Session) -> None:
    for count in (0, -1, 1001):
        with pytest.raises(InvalidRequest, match=f"cannot be forked {count} times"):
            session.fork(count)
    assert session.run("1").ok


def test_a_session_that_runs_a_cell_is_not_forked(session: Session) -> None:
    refused: list[type[Exception]] = []

    def ask(_event: object) -> None:
        with pytest.raises(SessionBusy) as caught:
            session.fork()
        refused.append(caught.type)

    session.run("print(1, end='')", on_event=ask)
    assert refused == [SessionBusy]


def test_forks_of_forks_end_where_the_kernel_ends_them_and_go_on(session: Session) -> None:
    session.run("depth = 0")
    with pytest.raises(ForkRefused, match="32 deep"):  # noqa: PT012 - the loop is what is tried
        for _turn in range(40):
            (fork,) = session.fork()
            fork.close()
            session.run("depth += 1")
    assert int(value(session, "depth")) >= 25


def test_ctrl_c_during_a_fork_leaves_a_session_that_goes_on(session: Session) -> None:
    session.run("x = 3")
    for turn in range(12):
        forks: list[Session] = []
        with contextlib.suppress(KeyboardInterrupt):
            threading.Timer(0.004 * turn, os.kill, (os.getpid(), signal.SIGINT)).start()
            forks = session.fork()
            time.sleep(1)  # it comes now, if it has not yet
        for each in forks:
            each.close()
        assert value(session, "x") == "3"


def test_callers_in_many_threads_get_answers_or_typed_errors(session: Session) -> None:
    until = time.monotonic() + 3

    def work(seed: int) -> None:
        own = random.Random(seed)
        while time.monotonic() < until:
            with contextlib.suppress(FumehoodError):
                what = own.choice(("fork", "run", "restart", "checkpoint", "close"))
                if what == "fork":
                    for each in session.fork(2):
                        each.close()
                elif what == "checkpoint":
                    with session.checkpoint() as checkpoint:
                        session.restore(checkpoint)
                elif what == "run":
                    session.run("1 + 1")
                elif what == "restart" or own.random() < 0.1:
                    session.restart()

    with ThreadPoolExecutor(5) as callers:
        for each in [callers.submit(work, seed) for seed in range(5)]:
            each.result(60)
    session.restart()
    assert value(session, "1 + 1") == "2"


def test_clocks_run_on_after_a_fork_that_was_refused(engine: Engine) -> None:
    with engine.session(limits=LIMITS, idle_seconds=0.5) as session:
        session.run("import mmap; shared = mmap.mmap(-1, 4096)")
        with pytest.raises(ForkRefused):
            session.fork()
        until = time.monotonic() + 10
        while session.status != "dead" and time.monotonic() < until:
            time.sleep(0.05)
        assert session.death is not None
        assert session.death.reason == "idle"


def test_copies_live_on_without_the_session_they_came_from(session: Session) -> None:
    session.run("x = 6")
    (fork,) = session.fork()
    (grandchild,) = fork.fork()
    session.close()
    fork.close()
    assert value(grandchild, "x") == "6"
    grandchild.close()


def test_the_same_without_blocking_an_event_loop(session: Session) -> None:
    async def work() -> str:
        await session.arun("x = [7]")
        (fork,) = await session.afork()
        checkpoint = await fork.acheckpoint()
        await fork.arun("x.clear()")
        await fork.arestore(checkpoint)
        kept = (await fork.arun("x")).result
        await asyncio.to_thread(fork.close)
        checkpoint.close()
        return str(kept)

    assert asyncio.run(work()) == "{'text/plain': '[7]'}"
