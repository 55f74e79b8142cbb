"""Attacks by a session that is forked: on its copies, on the one it came from, and on whoever forks it.

Whether a wall held is read on the host's side, or from another session that must not have changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fumehood import Engine, Limits, Session
from fumehood.errors import ForkRefused, SandboxFailed, SessionDead
from fumehood.protocol.limits import MiB

LIMITS = Limits(wall_seconds=20, cpu_seconds=60, memory_bytes=512 * MiB)
NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")


@pytest.fixture(scope="module", params=["cold", "warm"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with Engine(warm_bytes=0 if request.param == "cold" else 256 * MiB) as engine:
        if request.param == "warm":
            with engine.session():
                time.sleep(1)
        yield engine


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with engine.session(limits=LIMITS) as session:
        yield session


def program_of(session: Session) -> int:
    first = session._incarnation._live.pid
    return int(Path(f"/proc/{first}/task/{first}/children").read_text(encoding="ascii").split()[0])


def value(session: Session, code: str) -> str:
    result = session.run(code)
    assert result.result is not None, (result.error, result)
    return str(result.result["text/plain"])


def test_copies_have_namespaces_and_walls_of_their_own(session: Session) -> None:
    (fork,) = session.fork()
    (deeper,) = fork.fork()
    pids = [program_of(each) for each in (session, fork, deeper)]
    # A cgroup namespace is made by each; that of user, too, though the host's user behind it is one.
    for name in NAMESPACES:
        assert len({os.readlink(f"/proc/{pid}/ns/{name}") for pid in (*pids, os.getpid())}) == 4, name
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    fork.close()
    deeper.close()


def test_copies_see_no_process_but_their_own(session: Session) -> None:
    (fork,) = session.fork()
    for each in (session, fork):
        own, *others = value(each, "import os; [os.getpid(), *(int(n) for n in os.listdir('/proc') if n.isdigit())]")[
            1:-1
        ].split(", ")
        assert others == [own]
        seen = "[n for n in range(1, 400) if n != os.getpid() and not os.system(f'kill -0 {n} 2>/dev/null')]"
        assert value(each, seen) in ("[1]", "[]")
    fork.close()


def test_the_template_lies_still_whatever_is_sent_to_it(session: Session) -> None:
    """Process 1 of a copy shares its memory with the template: it must not be read, written, nor made to run."""
    session.run("secret = 'unchanged'")
    with session.checkpoint() as checkpoint:
        attack = """
import ctypes, os, signal
done = []
for name in ('mem', 'maps', 'environ', 'fd/0', 'root/work', 'cwd', 'exe', 'auxv', 'syscall', 'ns/user'):
    for path in (f'/proc/1/{name}', f'/proc/{os.getppid()}/{name}'):
        try:
            os.close(os.open(path, os.O_RDWR if name == 'mem' else os.O_RDONLY)); done.append(path)
        except OSError:
            pass
libc = ctypes.CDLL(None, use_errno=True)
for call in (101, 310, 311, 438):  # ptrace, process_vm_readv and writev, pidfd_getfd
    if libc.syscall(call, 16, 1, 0, 0) >= 0:
        done.append(call)
for number in range(1, 65):
    try:
        if number not in (signal.SIGKILL, signal.SIGSTOP): os.kill(1, number)
    except OSError:
        pass
done
"""
        assert value(session, attack) == "[]"
        time.sleep(0.1)
        assert value(session, "secret") == "'unchanged'"
        session.restore(checkpoint)
        assert value(session, "secret") == "'unchanged'"


def test_process_1_of_a_copy_survives_or_takes_it_along(session: Session) -> None:
    (fork,) = session.fork()
    session.run("x = 1")
    fork.run("import os\nfor number in range(1, 65):\n  try: os.kill(1, number)\n  except OSError: pass")
    # The kernel drops what is sent to it from inside, SIGKILL too.
    assert value(fork, "1") == "1"
    assert value(session, "x") == "1"
    fork.close()


def test_an_ancestors_leftovers_do_not_reach_copies(session: Session) -> None:
    """Whatever ran beside the program before a fork is dead after it: in an ancestor's namespaces it would be mighty."""
    session.run("""
import os, subprocess, sys, time
code = '''
import os, signal, sys, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
if os.fork(): os._exit(0)
os.setsid()
while True:
    for name in os.listdir('/proc'):
        if name.isdigit() and int(name) not in (1, os.getpid(), int(sys.argv[1])):
            try: os.kill(int(name), 9)
            except OSError: pass
    time.sleep(0.001)
'''
subprocess.Popen([sys.executable, '-c', code, str(os.getpid())]).wait()
""")
    forks = session.fork(2)
    time.sleep(0.2)
    for each in (session, *forks):
        assert each.status == "idle"
        assert value(each, "1") == "1"
    for each in forks:
        each.close()


def test_a_fork_bomb_does_not_get_past_a_fork(session: Session) -> None:
    session.run("""
import subprocess, sys
subprocess.Popen([sys.executable, '-c', 'import os\\nwhile True:\\n  try:\\n    os.fork()\\n  except OSError: pass'])
""")
    try:
        (fork,) = session.fork()
    except (ForkRefused, SandboxFailed):
        return  # it could not be brought to a stand
    assert value(fork, "1") == "1"
    fork.close()


LIES = {
    "process_1": "still(1)",
    "a_child_that_runs": "child = os.fork()\nif not child:\n    while True: pass\nstill(child)",
    "nobody": "still(31000)",
    "negative": "still(-1)",
    "no_number": "channel.send({'type': 'still', 'pid': 'x', 'lost': []})",
    "no_list": "channel.send({'type': 'still', 'pid': 2, 'lost': 'x'})",
    "itself_but_it_runs_on": "still(os.getpid())\nwhile True: pass",
    "itself_with_a_native_thread": (
        "import _thread\n_thread.start_new_thread(time.sleep, (100,))\nstill(os.getpid())\nctypes.CDLL(None).pause()\n"
        "channel.send({'type': 'ready'})"
    ),
    "without_its_channel": "still(os.getpid())\nos.close(63)\nctypes.CDLL(None).pause()",
    "another_socket_for_its_channel": """
still(os.getpid())
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
socket.send_fds(b, [b'x'], [0, 0, 0, 0])
os.dup2(a.fileno(), 63)
ctypes.CDLL(None).pause()
""",
    "a_socket_that_says_nothing": """
still(os.getpid())
a, b = socket.socketpair()
os.dup2(a.fileno(), 63)
ctypes.CDLL(None).pause()
""",
    "no_descriptor_left": """
still(os.getpid())
try:
    while True: os.dup(0)
except OSError: pass
ctypes.CDLL(None).pause()
""",
}


_TAKEOVER = """
import ctypes, os, signal, socket, sys, time
def still(pid):
    channel.send({'type': 'still', 'pid': pid, 'lost': []})
def lie(channel_, shell):
    global channel
    channel = channel_
    exec(%r, globals())
frame = sys._getframe()
while 'hold' not in frame.f_globals or 'serve' not in frame.f_globals: frame = frame.f_back
frame.f_globals['hold'] = lie
"""


def test_sessions_that_lie_about_standing_still_hurt_themselves_alone() -> None:
    """The guest owns its program: it may say anything in that program's name. Others go on, and the caller gets a typed error."""

    def lie(own: Engine, text: str) -> None:
        with own.session(limits=LIMITS) as liar:
            assert liar.run(_TAKEOVER % text).ok
            with pytest.raises((ForkRefused, SandboxFailed, SessionDead)):
                liar.fork()

    with Engine(warm_bytes=0) as own, own.session(limits=LIMITS) as neighbour, ThreadPoolExecutor(16) as liars:
        neighbour.run("x = 1")
        told = {name: liars.submit(lie, own, text) for name, text in LIES.items()}
        assert {name: each.exception() for name, each in told.items()} == dict.fromkeys(LIES)
        (fork,) = neighbour.fork()
        assert value(fork, "x") == "1"
        fork.close()


def test_pipes_from_before_a_fork_connect_no_copies(session: Session) -> None:
    session.run("import os, socket, select; r, w = os.pipe(); a, b = socket.socketpair(); e = os.eventfd(0)")
    (fork,) = session.fork()
    for code in ("os.write(w, b'x')", "a.send(b'x')", "os.eventfd_write(e, 1)"):
        assert session.run(code).error is not None
    kinds = value(
        fork,
        "[os.readlink(f'/proc/self/fd/{n}').split(':')[0] for n in range(3, 63) if os.path.lexists(f'/proc/self/fd/{n}')]",
    )
    assert "pipe" not in kinds
    assert "socket" not in kinds
    assert "anon_inode" not in kinds
    fork.close()


def test_a_copy_that_uses_up_its_processes_leaves_others_theirs(session: Session) -> None:
    (fork,) = session.fork()
    if session._incarnation._live.cgroup is None:
        pytest.skip("where nothing but a limit of the kernel's counts processes, a session and its copies share it")
    code = """
import threading, time
started = 0
try:
    while True:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start(); started += 1
except RuntimeError:
    pass
started > 100, started < 130
"""
    assert value(fork, code) == "(True, True)"
    assert value(session, code) == "(True, True)"
    fork.close()


def test_disks_are_bounded_in_copies_too(session: Session) -> None:
    (fork,) = session.fork()
    result = fork.run("open('big', 'wb').write(bytes(200 << 20))")
    assert result.error is not None
    assert session.run("open('small', 'wb').write(b'x')").ok
    fork.close()


def test_nothing_outside_its_folders_can_be_written_in_a_session(session: Session) -> None:
    """Landlock does not guard files in a session that can be forked, so mounts alone must."""
    (fork,) = session.fork()
    attack = """
import os
written = []
for folder in ('/', '/etc', '/usr', '/usr/bin', '/usr/lib', '/dev', '/proc', '/proc/self', '/bin', '/lib', '/opt', '/var', '/home'):
    try:
        os.close(os.open(folder + '/new', os.O_CREAT | os.O_WRONLY)); written.append(folder)
    except OSError:
        pass
for file in ('/etc/passwd', '/usr/bin/env', '/etc/hosts', '/usr/bin/python3'):
    try:
        os.close(os.open(file, os.O_WRONLY)); written.append(file)
    except OSError:
        pass
written
"""
    for each in (session, fork):
        assert value(each, attack) == "[]"
    fork.close()
