"""A warm program is told from a cold one by its speed alone, and shares nothing with those forked from the same zygote."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fumehood import Engine, ExecutionRequest, ExecutionResult, Limits, Session
from fumehood.errors import InvalidRequest, SandboxFailed
from fumehood.protocol.limits import MiB
from fumehood.sandbox.live import _pid_of


@pytest.fixture(scope="module")
def warm() -> Iterator[Engine]:
    with Engine() as engine:
        engine.prepare("python")
        yield engine


@pytest.fixture(scope="module")
def cold() -> Iterator[Engine]:
    with Engine(warm_bytes=0) as engine:
        yield engine


def run(engine: Engine, code: str, **fields: object) -> ExecutionResult:
    return engine.execute(ExecutionRequest(code=code, **fields))  # type: ignore[arg-type]  # the callers' own


ALIKE = {
    "main_module": "print(sorted(globals()), __name__, __file__, __doc__, __package__, __spec__, __loader__.__class__, __builtins__)",
    "frames": "import inspect, sys\nprint(len(inspect.stack()), sys._getframe().f_back)",
    "traceback": "import json\ndef f(): json.loads('{')\nf()",
    "exception_chain": "try: 1/0\nexcept Exception as e: raise ValueError('x') from e",
    "syntax_error": "print(1)\nprint(",
    "tab_error": "if 1:\n\tx = 1\n        y = 2",
    "null_byte": "print(1)\0",
    "encoding": "# -*- coding: latin-1 -*-\nprint('h\\xe4')",
    "exit_number": "import sys; sys.exit(7)",
    "exit_text": "import sys; sys.exit('words')",
    "exit_nothing": "import sys; print('x', end=''); sys.exit()",
    "exit_big": "raise SystemExit(2 ** 40)",
    "exit_from_nested": "def f():\n    try: raise SystemExit(4)\n    finally: print('finally')\nf()",
    "os_exit": "import os; print('lost'); os._exit(9)",
    "interrupt": "raise KeyboardInterrupt",
    "interrupt_by_signal": "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT); time.sleep(1)",
    "terminated": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    "abort": "import os; os.abort()",
    "broken_pipe": "import os\nr, w = os.pipe(); os.close(r)\nos.write(w, b'x')",
    "file_too_big": "open('f', 'wb').truncate(1 << 40)",
    "exit_functions": "import atexit\natexit.register(print, 'first')\natexit.register(print, 'second')\natexit.register(lambda: 1/0)",
    "finalizers": "class A:\n    def __del__(self): print('gone', __name__)\na = A(); a.me = a\nb = A()\nimport sys; sys.kept = A()",
    "finalizer_of_exit": "class A:\n    def __del__(self): print('gone')\na = A()\nraise SystemExit(3)",
    "finalizer_at_the_end": "class A:\n    def __del__(self): print('gone')\na = A()",
    "finalizer_of_a_cycle": "class A:\n    def __del__(self): print('gone')\na = A(); a.me = a\ndef f(x=A()): pass",
    "finalizer_after_a_traceback": "class A:\n    def __del__(self): print('gone')\na = A()\n1/0",
    "finalizer_that_imports": "class A:\n    def __del__(self):\n        try: import colorsys\n        except ImportError as e: print(e)\na = A()",
    "finalizer_after_streams_were_replaced": "import io, sys\nclass A:\n    def __del__(self): print('gone')\na = A()\nsys.stdout = io.StringIO()",
    "finalizer_of_what_was_thawed": "import gc\nclass A:\n    def __del__(self): print('gone')\na = A(); a.me = a\ngc.freeze(); gc.unfreeze(); del a",
    "finalizer_of_old_garbage": "import gc\nclass A:\n    def __del__(self): print('gone')\na = A(); a.me = a; gc.collect(); del a\nb = A(); b.me = b; gc.collect(0); del b",
    "no_module_of_ours": "import sys; print('array' in sys.modules, [n for n in sys.modules if 'fumehood' in n])",
    "thread_outlives_main": "import threading, time\ndef f(): time.sleep(0.05); print('thread')\nthreading.Thread(target=f).start(); print('main')",
    "daemon_thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint(threading.active_count())",
    "main_thread_at_exit": "import atexit, threading\nt = threading.main_thread()\natexit.register(lambda: print(t.is_alive()))\nthreading._register_atexit(lambda: print('first', t.is_alive()))\nprint(t.is_alive(), threading._main_thread._tstate_lock.locked() if hasattr(t, '_tstate_lock') else '')",
    "thread_raises": "import threading\nthreading.Thread(target=lambda: 1/0, name='T').start()",
    "main_thread": "import threading\nt = threading.main_thread(); print(t.name, t is threading.current_thread(), t.native_id, threading.enumerate())",
    "stdout_closed": "import sys; print('x'); sys.stdout.close()",
    "stdout_replaced": "import sys, io; sys.stdout = io.StringIO(); print('lost')",
    "stdout_broken": "import os, sys; os.close(1); print('x')",
    "stdout_gone": "import sys; sys.stdout = None; print('x')",
    "streams": "import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr):\n    print(s.name, s.mode, s.encoding, s.errors, s.isatty(), s.seekable(), s.line_buffering, s.write_through, type(s.buffer))",
    "flags": "import sys; print(sys.flags, sys.orig_argv, sys.argv, sys.path, sys.executable, sys.prefix, sys.warnoptions, sys.dont_write_bytecode)",
    "process": "import os\nprint(os.getpid(), os.getppid(), os.getsid(0), os.getpgid(0), os.getuid(), os.getgid(), os.getgroups(), os.getcwd(), os.umask(0), os.nice(0))",
    "environment": "import os; print(list(os.environ.items()))",
    "descriptors": "import os\nfor n in sorted(os.listdir('/proc/self/fd')):\n    try: print(n, os.readlink('/proc/self/fd/' + n).partition(':')[0])\n    except OSError: pass",
    "status": "print([l for l in open('/proc/self/status') if l.startswith(('Name', 'Umask', 'Tgid', 'PPid', 'TracerPid', 'Uid', 'Gid', 'Groups', 'NStgid', 'NSpgid', 'NSsid', 'Threads', 'ShdPnd', 'Cap', 'NoNew', 'Seccomp'))])",
    # The C library keeps 32 and 33 to itself.
    "signal_masks": "print([int(l.split()[1], 16) & 0x7fffffff for l in open('/proc/self/status') if l.startswith(('SigI', 'SigC', 'SigB'))])",
    "signals": "import signal\nprint([(s, signal.getsignal(s)) for s in sorted(signal.valid_signals())], signal.pthread_sigmask(signal.SIG_BLOCK, []))",
    "limits": "import resource\nprint([(n, resource.getrlimit(getattr(resource, n))) for n in sorted(dir(resource)) if n.startswith('RLIMIT') and n != 'RLIMIT_NPROC'])",
    "disk": "import os\nfor p in ('/work', '/tmp', '/dev/shm'):\n    s = os.statvfs(p); print(p, s.f_blocks, s.f_files, s.f_flag, oct(os.stat(p).st_mode), os.stat(p).st_uid)\nprint(sorted(os.listdir('/')), sorted(os.listdir('/dev')), os.listdir('/tmp'), os.listdir('/work'), os.listdir('/dev/shm'))",
    "tree": "import os\nfor top in ('/etc', '/opt', '/proc'):\n    for d, _, f in os.walk(top):\n        if d.count('/') < 3 and '/proc/' not in d: print(d, sorted(f))",
    "namespaces": "import os, socket\nprint(socket.gethostname(), socket.if_nameindex(), open('/proc/self/uid_map').read().split()[0], len(os.listdir('/proc/self/task')))",
    "network": "import socket\ntry: socket.create_connection(('192.0.2.9', 80), 1)\nexcept OSError as e: print(e)\ns = socket.create_server(('127.0.0.1', 8000)); socket.create_connection(s.getsockname()); print(s.accept()[1][0])",
    "subprocess": "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'import os; print(os.getppid())'], capture_output=True, text=True))",
    "shell": "import os\nprint(os.system('echo $$ $0; exit 3'), os.popen('env | sort').read())",
    "fork": "import os\npid = os.fork()\nif pid == 0: print('child', os.getppid())\nelse: print(os.waitpid(pid, 0))",
    "fork_handlers": "import os\nos.register_at_fork(after_in_child=lambda: print('mine'))\nif os.fork() == 0: os._exit(0)\nos.wait()",
    "multiprocessing": "import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n    with m.Pool(2) as p: print(p.map(f, range(5)))",
    "futures": "from concurrent.futures import ThreadPoolExecutor, ProcessPoolExecutor\ndef f(x): return x + 1\nif __name__ == '__main__':\n    for P in (ThreadPoolExecutor, ProcessPoolExecutor):\n        with P(2) as p: print(list(p.map(f, [1, 2])))",
    "asyncio": "import asyncio\nasync def f(): await asyncio.sleep(0); return 5\nprint(asyncio.run(f()))",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(1, 2)\nimport io\nprint(unittest.TextTestRunner(stream=io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromTestCase(T)))",
    "pickle": "import pickle\nclass A: pass\nprint(pickle.loads(pickle.dumps(A())).__class__, A.__module__)",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass P: x: int = 1\nprint(P())",
    "doctest": "'''\n>>> 1 + 1\n3\n'''\nimport doctest; print(doctest.testmod())",
    "excepthook": "import sys\nsys.excepthook = lambda *a: print('hook', a[1])\n1/0",
    "displayhook": "import sys\nsys.displayhook(5); print(_)",
    "warnings": "import warnings; warnings.warn('w'); warnings.warn('d', DeprecationWarning)",
    "logging": "import logging; logging.warning('w'); logging.getLogger('x').error('e')",
    "locale": "import locale, sys\nprint(locale.getpreferredencoding(), locale.setlocale(locale.LC_ALL), sys.getfilesystemencoding())",
    "decimal_context": "import decimal; print(decimal.getcontext())",
    "time_zone": "import time, datetime; print(time.tzname, time.timezone, datetime.datetime.fromtimestamp(0))",
    "files_left": "open('a', 'w').write('x'); import os; os.mkdir('d'); open('d/b', 'wb').write(bytes(9)); os.symlink('/etc/passwd', 'l')",
    "import_own": "open('mine.py', 'w').write('x = 5'); import mine; print(mine.x, mine.__file__)",
    "audit": "import sys\nsys.addaudithook(lambda event, values: print(event))",
    "gc": "import gc; print(gc.isenabled(), gc.get_threshold(), gc.garbage, gc.callbacks)",
    "hooks": "import sys; print(sys.meta_path, sys.path_hooks, sys.gettrace(), sys.getprofile(), sys.getswitchinterval(), sys.getrecursionlimit(), threading_ok := True)",
    "memory_error": "x = bytearray(1 << 50)",
    "endless_stdin": "import sys; print(sys.stdin.readline(), sys.stdin.read(), input.__name__)",
    "large_output": "print('x' * 300_000)",
    "unicode": "print('\\U0001f600', '\\udc80'.encode('utf-8', 'surrogateescape'))",
    "surrogate_printed": "print('\\udc80')",
    "comm": "print(open('/proc/self/comm').read(), open('/proc/1/comm').read() != '')",
}  # fmt: skip


@pytest.mark.parametrize("code", ALIKE.values(), ids=ALIKE.keys())
def test_a_warm_program_is_as_a_cold_one(warm: Engine, cold: Engine, code: str) -> None:
    fields: dict[str, object] = {
        "stdin": "line\nrest",
        "args": ("a", "b c"),
        "env": {"X": "1"},
        "files": {"given/f.txt": "t"},
    }
    one, other = run(warm, code, **fields), run(cold, code, **fields)
    assert one.warm
    assert not other.warm
    assert _seen(one) == _seen(other)


def test_two_levels_of_recursion_are_what_a_warm_start_takes(warm: Engine, cold: Engine) -> None:
    code = "def f(n):\n    global most; most = n; f(n + 1)\ntry: f(0)\nexcept RecursionError: print(most)"
    assert int(run(cold, code).stdout) - int(run(warm, code).stdout) == 2


SEEDED = {
    "random": "import random; print(random.random(), random.Random().random())",
    "state": "import random; print(hash(random.getstate()))",
    "urandom": "import os; print(os.urandom(8))",
    "secrets": "import secrets; print(secrets.token_hex())",
    "uuid": "import uuid; print(uuid.uuid4())",
    "uuid1": "import uuid; print(uuid.uuid1())",
    "tempfile": "import tempfile; print(tempfile.mktemp())",
    "ssl": "import ssl; print(ssl.RAND_bytes(8))",
}


@pytest.mark.parametrize("code", SEEDED.values(), ids=SEEDED.keys())
def test_no_two_programs_draw_the_same(warm: Engine, code: str) -> None:
    drawn = [run(warm, code).stdout for _ in range(8)]
    assert len(set(drawn)) == len(drawn)
    assert "" not in drawn


def test_one_zygote_gives_one_hash_seed_to_all(warm: Engine) -> None:
    # Documented: a fresh interpreter has one of its own. Who needs that, or a known one, sets PYTHONHASHSEED.
    drawn = {run(warm, "print(hash('x'))").stdout for _ in range(3)}
    assert len(drawn) == 1
    known = run(warm, "print(hash('x'))", env={"PYTHONHASHSEED": "0"})
    assert not known.warm
    assert known.stdout == run(warm, "print(hash('x'))", env={"PYTHONHASHSEED": "0"}).stdout


COLD = {
    "settled_variable": {"env": {"PYTHONOPTIMIZE": "1"}},
    "locale": {"env": {"LC_ALL": "C"}},
    "home": {"env": {"HOME": "/work"}},
    "file_that_hides_a_module": {"files": {"random.py": "x = 1"}},
    "folder_that_hides_a_module": {"files": {"json/__init__.py": ""}},
    "other_language": {"language": "bash"},
}


@pytest.mark.parametrize("fields", COLD.values(), ids=COLD.keys())
def test_what_a_warm_start_cannot_take_starts_cold(warm: Engine, fields: dict[str, object]) -> None:
    result = run(warm, "", **fields)
    assert result.ok
    assert not result.warm


def test_a_file_that_hides_a_module_is_found_as_in_a_cold_start(warm: Engine) -> None:
    assert run(warm, "import random; print(random.x)", files={"random.py": "x = 1"}).stdout == "1\n"


def test_a_file_that_is_no_module_hides_none(warm: Engine) -> None:
    result = run(warm, "import json; print(json.loads(open('json.txt').read()))", files={"json.txt": "[1]"})
    assert result.warm
    assert result.stdout == "[1]\n"


def test_a_warm_program_takes_what_a_request_can_hold(warm: Engine, cold: Engine) -> None:
    code = "import os, sys, time; print(sys.argv, __file__, os.environ['TZ'], time.tzname, len(open('big').read()))"
    fields: dict[str, object] = {
        "name": "other name.py", "args": ["x", ""], "env": {"TZ": "Asia/Tokyo"}, "files": {"big": "y" * 3_000_000},
    }  # fmt: skip
    one, other = run(warm, code, **fields), run(cold, code, **fields)
    assert one.warm
    assert one.stdout == other.stdout
    assert "JST" in one.stdout


def test_limits_of_ones_own_are_kept_warm_too(warm: Engine) -> None:
    limits = Limits(disk_bytes=2 * MiB, disk_files=100, pids=9, cpu_seconds=3, wall_seconds=5)
    code = (
        "import os, resource; s = os.statvfs('/work'); print(s.f_blocks * s.f_frsize, s.f_files, resource.getrlimit(0))"
    )
    result = run(warm, code, limits=limits)
    assert result.warm
    assert result.stdout == f"{2 * MiB} 100 (3, 3)\n"


def test_a_program_that_executes_another_gives_up_its_memory(warm: Engine, cold: Engine) -> None:
    # The maker of a warm sandbox would hold it, and what both need together is more than the limit.
    again = "import time; time.sleep(0.5); held = b'x' * (70 << 20); print(len(held))"
    code = f"import os, sys\nheld = b'x' * (70 << 20)\nos.execv(sys.executable, [sys.executable, '-c', {again!r}])"
    limits = Limits(memory_bytes=120 * MiB)
    one, other = run(warm, code, limits=limits), run(cold, code, limits=limits)
    assert one.warm
    assert one.stdout == other.stdout == f"{70 << 20}\n"
    # At the limit the kernel would end whoever holds most, which may be the maker.
    assert (one.peak_memory_bytes or 0) < 100 * MiB


@pytest.fixture
def session(warm: Engine) -> Iterator[Session]:
    until = time.monotonic() + 20
    while True:
        # The first starts cold, and has the zygote made.
        with warm.session() as session:
            if session._incarnation._live.maker >= 0:
                yield session
                return
        assert time.monotonic() < until
        time.sleep(0.1)


def test_while_a_warm_program_runs_nothing_of_ours_has_rights_or_runs(session: Session) -> None:
    live = session._incarnation._live
    first, maker = _status(live.pid), _status(_pid_of(live.maker))
    program = _status(live.program_pid or 0)
    for each in (first, maker, program):
        assert {each[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert each["NoNewPrivs"] == "1"
    assert maker["State"].startswith("T")
    assert maker["Seccomp"] == program["Seccomp"] == "2"
    # Process 1 is no fork of an interpreter: it has a page or two.
    assert first["Name"] == "reaper"
    assert first["PPid"] == maker["Pid"]
    assert program["PPid"] == first["Pid"]
    assert int(first["VmRSS"].split()[0]) < 64
    if os.geteuid() == 0:  # others may not look into it
        assert sorted(os.listdir(f"/proc/{live.pid}/fd")) == ["0", "1"]


def test_a_sandbox_lives_on_without_its_maker(session: Session) -> None:
    session.run("x = 5")
    os.kill(_pid_of(session._incarnation._live.maker), signal.SIGKILL)
    code = "import threading\nt = threading.Thread(target=print, args=(x,)); t.start(); t.join()"
    assert session.run(code).stdout == "5\n"


def test_a_waiting_program_that_is_killed_is_no_ones_answer(warm: Engine) -> None:
    warm.prepare("python")
    assert warm._pool is not None
    waiting = [
        live for stock in warm._pool._stocks.values() for shelf in stock.shelves.values() for live in shelf.ready
    ]
    assert waiting
    for live in waiting:
        os.kill(live.program_pid or 0, signal.SIGKILL)
        assert live.is_dead(5)
    assert run(warm, "print(1)").stdout == "1\n"


def test_the_fewest_processes_start_cold(warm: Engine) -> None:
    alone = run(warm, "print(1)", limits=Limits(pids=1))
    assert (alone.stdout, alone.warm) == ("1\n", False)
    two = "import os\nif os.fork() == 0: os._exit(0)\nos.wait()\nprint(1)"
    assert run(warm, two, limits=Limits(pids=2)).stdout == "1\n"
    with pytest.raises(SandboxFailed, match="pids of 2"):
        warm.prepare("python", Limits(pids=1))


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {name: value.strip() for name, _colon, value in (line.partition(":") for line in lines)}


def test_cpu_time_is_the_programs_own(warm: Engine) -> None:
    idle = run(warm, "pass")
    busy = run(warm, "import time\nwhile time.process_time() < 0.5: pass")
    assert idle.cpu_seconds < 0.05
    assert busy.cpu_seconds > 0.3


def test_prepare_says_what_has_no_warm_sandboxes(cold: Engine) -> None:
    with pytest.raises(InvalidRequest, match="keeps nothing warm"):
        cold.prepare("python")
    with Engine() as engine, pytest.raises(InvalidRequest, match="bash.*cannot be forked"):
        engine.prepare("bash")


def test_an_engine_forked_by_its_program_keeps_to_itself() -> None:
    with Engine() as engine:
        engine.prepare("python")
        pid = os.fork()
        if pid == 0:
            own = run(engine, "print(5)")
            engine.prepare("python")
            kept = run(engine, "print(7)")
            engine.close()
            os._exit(0 if (own.stdout, own.warm, kept.stdout, kept.warm) == ("5\n", False, "7\n", True) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        after = run(engine, "print(6)")
        assert (after.stdout, after.warm) == ("6\n", True)


DATA_ALIKE = {
    "versions": "import numpy, pandas, matplotlib; print(numpy.__version__, pandas.__version__, matplotlib.get_backend())",
    "seeded": "import numpy as np; np.random.seed(3); print(np.random.rand(), np.random.default_rng(5).random())",
    "arrays": "import numpy as np; a = np.arange(9.0).reshape(3, 3); print(a, a @ a, np.linalg.norm(a), np.geterr(), np.get_printoptions())",
    "frames": "import pandas as pd; d = pd.DataFrame({'a': [1, 2, 1], 'b': [1.5, 2, None]}); print(d, d.groupby('a').sum(), d.dtypes)",
    "options": "import pandas as pd; print(pd.get_option('display.max_rows'), pd.options.mode.copy_on_write)",
    "large_product": "import numpy as np; a = np.ones((600, 600)); print((a @ a).sum())",
    "solve": "import numpy as np, scipy.linalg as l; print(l.solve(np.eye(300) * 2, np.ones(300)).sum())",
    "threads": "import numpy, threadpoolctl; print([(i['internal_api'], i['num_threads']) for i in threadpoolctl.threadpool_info()])",
    "figure": "import matplotlib.pyplot as plt; plt.plot([1, 3, 2]); plt.title('t'); plt.savefig('p.png', metadata={'Software': None}); print(plt.get_fignums())",
    "regression": "from sklearn.linear_model import LinearRegression as L; print(L().fit([[1.0], [2.0]], [2.0, 4.0]).coef_.round(6))",
    "error": "import pandas as pd; pd.DataFrame({'a': [1]})['b']",
    "executors": "from concurrent.futures import ThreadPoolExecutor as T\nimport threading\nprint(threading.main_thread().is_alive())\np = T(2); print(list(p.map(abs, [-1])))",
    "processes": "import numpy as np, multiprocessing as m\ndef f(n): return float(np.ones(n).sum())\nif __name__ == '__main__':\n    with m.Pool(2) as p: print(p.map(f, [1, 2, 3]))",
}  # fmt: skip


@pytest.fixture(scope="module")
def warm_data(warm: Engine) -> Engine:
    warm.prepare("python-data")
    return warm


@pytest.mark.parametrize("code", DATA_ALIKE.values(), ids=DATA_ALIKE.keys())
def test_a_warm_data_program_is_as_a_cold_one(warm_data: Engine, cold: Engine, code: str) -> None:
    one, other = run(warm_data, code, language="python-data"), run(cold, code, language="python-data")
    assert one.warm
    assert not other.warm
    assert _seen(one) == _seen(other)


DATA_SEEDED = {
    "global": "import numpy as np; print(np.random.rand())",
    "generator": "import numpy as np; print(np.random.default_rng().random())",
    "random_state": "import numpy as np; print(np.random.RandomState().rand())",
    "held_by_a_package": "import numpy.random.mtrand as m; print(m._rand.rand())",
    "sample_of_a_frame": "import pandas as pd; print(list(pd.Series(range(10_000)).sample(5)))",
    "sympy": "import sympy.core.random as r; print(r.rng.random())",
    "plain": "import random, numpy; print(random.random())",
}


@pytest.mark.parametrize("code", DATA_SEEDED.values(), ids=DATA_SEEDED.keys())
def test_no_two_data_programs_draw_the_same(warm_data: Engine, code: str) -> None:
    results = [run(warm_data, code, language="python-data") for _ in range(5)]
    drawn = [result.stdout for result in results]
    assert len(set(drawn)) == len(drawn), results[0].stderr
    assert all(result.warm for result in results)


def _seen(result: ExecutionResult) -> dict[str, object]:
    measured = {"id", "duration_seconds", "cpu_seconds", "peak_memory_bytes", "warm"}
    values = {name: value for name, value in result.as_dict().items() if name not in measured}
    # Addresses in texts, and the order in which two processes print, are any start's own.
    lines = sorted(result.stdout.splitlines())
    return values | {
        "stdout_bytes": [_without_addresses(line) for line in lines],
        "stderr_bytes": _without_addresses(result.stderr),
    }


def _without_addresses(line: str) -> str:
    return re.sub(r"0x[0-9a-f]{6,}|\b\d{14,15}\b", "…", line)
