"""Attacks that try to stay: after an execution nothing of it may be left on the host."""

from __future__ import annotations

import secrets
from pathlib import Path

from ...protocol.limits import Limits, MiB
from ..host_side import alive, end, nothing_stays, taken_from_host
from ..suite import Suite, same
from ..target import Target

SUITE = Suite("leftovers")

# Leaves three daemons that ignore what they can and hold memory, a file, a socket and, if they may, a mount.
_STAY = '''
import subprocess, time
stay = """
import ctypes, mmap, signal, socket, time
libc = ctypes.CDLL(None)
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
held = mmap.mmap(-1, 1 << 20), open("held", "w"), socket.socket(socket.AF_UNIX)
libc.unshare(0x20000)
libc.mount(b"none", b"/tmp", b"tmpfs", ctypes.c_ulong(0), None)
time.sleep(15)
"""
for _ in range(3):
    subprocess.Popen([sys.executable, "-c", stay, sys.argv[1]], start_new_session=True,
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
time.sleep(0.2)
'''

_LIMITS = Limits(wall_seconds=1.5, memory_bytes=96 * MiB, output_bytes=1 * MiB)


@SUITE.probe_each(
    "P33",
    {
        "P33 by itself": "",
        "P33 with an error": "raise SystemExit(3)",
        "P33 by a signal": "os.kill(os.getpid(), 11)",
        "P34 at its deadline": "time.sleep(60)",
        "P104 by its output": "for _ in range(400): os.write(1, bytes(65536))",
        "P48 by its memory": "kept = [bytearray(b'x') * (1 << 20) for _ in range(200) if time.sleep(0.002) is None]",
    },
    tried="leave three daemons that ignore all signals, and end {}",
    expected="no process, cgroup or mount is left, nor once the engine is closed", wall="leftovers",
)  # fmt: skip
def nothing_is_left_whichever_way_it_ends(target: Target, ending: str) -> None:
    _nothing_is_left(target, _STAY + ending)


# Their output goes nowhere, so that nobody waits for its end.
_START = """
import subprocess, time
def start(*command):
    subprocess.Popen([*command, sys.argv[1]], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                     start_new_session=True)
"""


@SUITE.probe_each(
    "P33",
    {
        "stopped": "start(sys.executable, '-c', 'import os; os.kill(os.getpid(), 19)')",
        "their first thread gone": "start(sys.executable, '-c', 'import ctypes, platform, threading, time\\n"
        "threading.Thread(target=time.sleep, args=(5,)).start()\\n"
        'ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)\')\n'
        "start('sh', '-c', 'sleep 5; :')",
        "never the same for long": "start(sys.executable, '-c', 'import os, time\\nuntil = time.monotonic() + 3\\n"
        "while time.monotonic() < until:\\n  if os.fork(): os._exit(0)\\n  time.sleep(0.005)')",
        "under a reaper of the program's": "libc.prctl(36, 1, 0, 0, 0)\n"
        "start('sh', '-c', 'sleep 5 & sleep 5 & wait')",
        "in a chain of sessions": "start(sys.executable, '-c', 'import os, time\\n"
        "for _ in range(8):\\n  if os.fork(): break\\n  os.setsid()\\ntime.sleep(5)')",
        "traced by one another": "start(sys.executable, '-c', 'import ctypes, os, time\\nlibc = ctypes.CDLL(None)\\n"
        "if os.fork() == 0:\\n  libc.ptrace(0, 0, 0, 0); os.kill(os.getpid(), 19)\\n  time.sleep(5)\\ntime.sleep(5)')",
        "waiting in vfork": "start(sys.executable, '-c', 'import os\\n"
        'os.posix_spawn("/bin/sleep", ["sleep", "5"], {}); os.wait()\')',
    },
    tried="leave processes that are {}",
    expected="no process, cgroup or mount is left, nor once the engine is closed", wall="leftovers",
)  # fmt: skip
def no_odd_process_is_left(target: Target, leave: str) -> None:
    _nothing_is_left(target, f"{_START}{leave}\ntime.sleep(0.2)\nos._exit(0)\n")


def _nothing_is_left(target: Target, code: str) -> None:
    marker = secrets.token_hex(8)
    # Its own: what an engine keeps warm for the next program goes with it.
    with nothing_stays(), Target(target.way) as own:
        result = own.run(code, args=[marker], limits=_LIMITS)
        left = alive(marker)
        end(left)
        same(left, [])
        same(result.warm, target.way == "warm")


@SUITE.probe(
    "P28",
    tried="leave a file in /tmp and /dev/shm and a segment of shared memory for the next program",
    expected="it finds none",
    wall="leftovers",
)
def the_next_execution_finds_nothing_of_the_last(target: Target) -> None:
    marker = secrets.token_hex(8)
    target.run(f"""
        for folder in ("/tmp", "/dev/shm"):
            open(os.path.join(folder, "{marker}"), "w").close()
        key = libc.shmget(0x{marker[:7]}, 4096, 0o1666)
    """)
    result = target.run(f"""
        key = libc.shmget(0x{marker[:7]}, 4096, 0)
        print([f for f in ("/tmp", "/dev/shm") if os.path.exists(os.path.join(f, "{marker}"))], key < 0)
        if key >= 0:
            libc.shmctl(key, 0, None)
    """)
    taken_from_host(*(Path(folder, marker) for folder in ("/tmp", "/dev/shm")))
    same(result.stdout, "[] True\n")


@SUITE.probe(
    "P28",
    tried="leave a message queue, a lock, a half-read pipe, and files in /work and /var/tmp for the next program",
    expected="it finds none",
    wall="leftovers",
)
def the_next_execution_meets_no_message_of_the_last(target: Target) -> None:
    marker = secrets.token_hex(8)
    route = f"""
        found = []
        for place in {{"/work", "/var/tmp", "/tmp", "/dev/shm", "/run/lock", os.path.expanduser("~")}}:
            path = os.path.join(place, "{marker}")
            if os.path.lexists(path):
                found.append(path)
            tried(lambda: os.mkfifo(path))
        queue = libc.msgget(0x{marker[:7]}, 0)
        if queue >= 0:
            found.append("a queue")
        libc.msgget(0x{marker[:7]}, 0o1666)
        print(found)
    """
    target.run(route)
    result = target.run(route)
    _clean(marker)
    same(result.stdout, "[]\n")


def _clean(marker: str) -> None:
    places = ("/work", "/tmp", "/var/tmp", "/dev/shm", "/run/lock", str(Path.home()))
    taken_from_host(*(Path(place, marker) for place in places))
    import ctypes  # noqa: PLC0415 - for this alone

    libc = ctypes.CDLL(None)
    queue = libc.msgget(int(marker[:7], 16), 0)
    if queue >= 0:
        libc.msgctl(queue, 0, None)
