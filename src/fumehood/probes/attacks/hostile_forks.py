"""Attacks by a session on whoever forks it: by the state that it is in, and by lies about it."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from typing import TYPE_CHECKING

from ...errors import ForkRefused, SessionDead
from ..host_side import alive, end, nothing_stays
from ..suite import Suite, at_most, holds, same
from ..target import LIMITS, Target
from .forks import daemon
from .sessions import said, seen_alive

if TYPE_CHECKING:
    from typing import Any

SUITE = Suite("hostile_forks")

_LIMITS = LIMITS.replace(wall_seconds=5, cpu_seconds=60)

_HOSTILE = {
    "cannot be looked into": "import ctypes\nctypes.CDLL(None).prctl(4, 0, 0, 0, 0)",
    "blocks all signals": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))",
    "ignores all signals": "import signal\nfor each in range(1, 65):\n  try: signal.signal(each, signal.SIG_IGN)\n  except (OSError, ValueError): pass",
    "gets signals from a timer": "import signal\nsignal.signal(14, lambda *_: None)\nsignal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)",
    "gets signals from a child": "import os, signal, time\nme = os.getpid()\nsignal.signal(10, lambda *_: None)\n"
    "if os.fork() == 0:\n  until = time.monotonic() + 3\n  while time.monotonic() < until and os.getppid() == me: os.kill(me, 10); time.sleep(0.0005)\n  os._exit(0)",
    "is stopped again and again": "import os, time\nme = os.getpid()\nif os.fork() == 0:\n  until = time.monotonic() + 1\n"
    "  while time.monotonic() < until and os.getppid() == me: os.kill(me, 19); time.sleep(0.001); os.kill(me, 18); time.sleep(0.001)\n  os._exit(0)",
    "is interrupted again and again": "import os, time\nme = os.getpid()\nif os.fork() == 0:\n  until = time.monotonic() + 1\n"
    "  while time.monotonic() < until and os.getppid() == me: os.kill(me, 2); time.sleep(0.001)\n  os._exit(0)",
    "is traced by a child": "import ctypes, os, time\nlibc = ctypes.CDLL(None)\nme = os.getpid()\nlibc.prctl(0x59616d61, -1, 0, 0, 0)\n"
    "if os.fork() == 0:\n  libc.ptrace(0x4206, me, 0, 0); time.sleep(3); os._exit(0)\ntime.sleep(0.02)",
    "traces a child": "import ctypes, os, time\nlibc = ctypes.CDLL(None)\n"
    "if os.fork() == 0:\n  libc.ptrace(0, 0, 0, 0); os.kill(os.getpid(), 19); time.sleep(3); os._exit(0)",
    "filters its own calls": "import ctypes, struct\nlibc = ctypes.CDLL(None)\n"
    "code = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))\n"
    "kept = struct.pack('HxxxxxxQ', 1, ctypes.addressof(code))\nlibc.prctl(38, 1, 0, 0, 0); libc.prctl(22, 2, kept, 0, 0)",
    "filters calls that a fork needs": "import ctypes, platform, struct\nlibc = ctypes.CDLL(None)\n"
    "numbers = (56, 435, 57, 272, 9) if platform.machine() == 'x86_64' else (220, 435, 97, 222)\n"
    "rules = struct.pack('HBBI', 0x20, 0, 0, 0)\n"
    "for each in numbers: rules += struct.pack('HBBI', 0x15, 0, 1, each) + struct.pack('HBBI', 6, 0, 0, 0x50001)\n"
    "rules += struct.pack('HBBI', 6, 0, 0, 0x7fff0000)\ncode = ctypes.create_string_buffer(rules)\n"
    "kept = struct.pack('HxxxxxxQ', len(rules) // 8, ctypes.addressof(code))\nlibc.prctl(38, 1, 0, 0, 0); libc.prctl(22, 2, kept, 0, 0)",
    "keeps memory out of forks": "import mmap\nkept = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\nkept.madvise(10)",
    "has memory wiped by forks": "import mmap\nkept = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\nkept.madvise(18)",
    "shares memory": "import mmap\nkept = mmap.mmap(-1, 1 << 16)",
    "maps a file to write": "import mmap\nf = open('m', 'wb+'); f.truncate(1 << 16)\nkept = mmap.mmap(f.fileno(), 1 << 16)",
    "has a huge address space": "import mmap\nkept = []\ntry:\n  for _ in range(64): kept.append(mmap.mmap(-1, 1 << 36, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, mmap.PROT_READ))\n"
    "except (OSError, ValueError): pass",
    "has thousands of maps": "import mmap\nkept = []\ntry:\n  for n in range(6000): kept.append(mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | n % 2 * 2))\n"
    "except OSError: pass",
    "has all descriptors open": "import os\nkept = []\ntry:\n  while len(kept) < 5000: kept.append(os.open('/dev/null', os.O_RDONLY))\nexcept OSError: pass",
    "has closed all but its channel": "import os\nos.closerange(0, 63); os.closerange(64, 4096)" ,
    "has hundreds of folders of its open": "import os\nos.makedirs('d'); kept = [os.open('d', os.O_RDONLY) for _ in range(500)]",
    "has odd descriptors": "import os, select\nkept = []\n"
    "for make in (lambda: select.epoll(), lambda: os.eventfd(0), lambda: os.memfd_create('m'), lambda: os.pidfd_open(os.getpid())):\n"
    "  try: kept.append(make())\n  except OSError: pass",
    "has limits of its own": "import resource\nfor each in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_STACK):\n"
    "  resource.setrlimit(each, (128 if each == resource.RLIMIT_NOFILE else 1 << 20,) * 2)",
    "may start no process": "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (0, 0))",
    "may have little address space": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))",
    "has many threads": "import threading, time\nkept = [threading.Thread(target=time.sleep, args=(3,), daemon=True) for _ in range(24)]\n[each.start() for each in kept]",
    "has a thread that forks": "import os, threading, time\nuntil = time.monotonic() + 1\ndef work():\n  while time.monotonic() < until:\n"
    "    if os.fork() == 0: os._exit(0)\n    os.wait()\nthreading.Thread(target=work, daemon=True).start()",
    "has children that never stay": "import os, time\nuntil = time.monotonic() + 1.5\nif os.fork() == 0:\n  while time.monotonic() < until:\n"
    "    if os.fork(): os._exit(0)\n    time.sleep(0.0005)\n  os._exit(0)",
    "has a folder that is gone": "import os\nos.mkdir('g'); os.chdir('g'); os.rmdir('../g')",
    "wants to die with its parent": "import ctypes\nctypes.CDLL(None).prctl(1, 9, 0, 0, 0)",
    "adopts orphans": "import ctypes, subprocess\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\nsubprocess.run(['sh', '-c', 'sleep 3 & :'])",
    "may not read the clock": "import ctypes\nctypes.CDLL(None).prctl(26, 1, 0, 0, 0)",
    "waits in vfork": "import os, subprocess, threading, time\n"
    "threading.Thread(target=lambda: os.posix_spawn('/bin/sleep', ['sleep', '3'], {}), daemon=True).start()\ntime.sleep(0.02)",
}  # fmt: skip


@SUITE.probe_each(
    "P111", _HOSTILE,
    tried="fork a session that {}",
    expected="copies that share nothing, or a refusal after which it goes on; nothing is left", wall="forks", once=True,
)  # fmt: skip
def a_hostile_session_is_forked_or_refused(target: Target, setup: str) -> None:
    marker = secrets.token_hex(8)
    with nothing_stays(), Target(target.way) as own, own.session(limits=_LIMITS) as session:
        session.run("import os\nkept_before, home = 40, os.getcwd()")
        session.run(setup, timeout=2)
        holds(session.death is None, f"it died before it was forked: {session.death}")
        started = time.monotonic()
        copies: list[Any] = []
        try:
            copies = list(session.fork())
        except ForkRefused:
            pass
        except SessionDead:
            return  # its own doing, and said so
        try:
            at_most(time.monotonic() - started, 4)
            same([said(each, "print(kept_before + 2)") for each in (session, *copies)], ["42\n"] * (1 + len(copies)))
            for each in copies:
                each.run(f"open(home + '/{marker}', 'w').close()")
            seen = list(session.list_files())
        finally:
            for each in copies:
                each.close()
    holds(marker not in seen, "what a copy wrote came to the session")


_LIES = {
    "that process 1 is to be forked": '{"type": "still", "pid": 1, "lost": []}',
    "that a process of the host's is": '{"type": "still", "pid": HOST, "lost": []}',
    "a number that is none": '{"type": "still", "pid": -1, "lost": []}',
    "a huge number": '{"type": "still", "pid": 99999999999999999999, "lost": []}',
    "twenty thousand losses": '{"type": "still", "pid": -1, "lost": [LONG]}',
    "that its child is to be forked": '{"type": "still", "pid": CHILD, "lost": []}',
    "that it stands still, while it runs": '{"type": "still", "pid": ME, "lost": []}',
    "that it is ready": '{"type": "ready"}',
    "an event": '{"type": "clear"}',
}

# Takes the place of what answers the host's order to stand still.
_LIAR = (
    daemon("{marker}")
    + """
import os, sys, time
child = subprocess.Popen(["sleep", "6"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid
def lies(*_arguments):
    text = {lie!r}.replace("ME", str(os.getpid())).replace("CHILD", str(child)).replace("LONG", ",".join(["1"] * 20000))
    for each in (text, *{then}):
        try: os.write(63, b"1 0 " + each.encode())
        except OSError: pass
        time.sleep(0.1)
frame = sys._getframe()
while frame.f_back: frame = frame.f_back
frame.f_globals["hold"] = lies
"""
)


@SUITE.probe_each(
    "P111", _LIES,
    tried="answer the order to stand still with a lie: {}",
    expected="a copy, a refusal or the session's typed end, in time; nothing is left", wall="forks", once=True,
)  # fmt: skip
def a_lie_about_standing_still_harms_nobody(target: Target, lie: str) -> None:
    at_most(_lied_to(target, lie, ('{"type": "ready"}',)), 4)


@SUITE.probe(
    "P111",
    once=True,
    tried="say that it stands still, and never go on",
    expected="a copy, a refusal or the session's typed end, in time; nothing is left",
    wall="forks",
)
def a_session_that_never_goes_on_harms_nobody(target: Target) -> None:
    at_most(_lied_to(target, _LIES["that process 1 is to be forked"], ()), 10)


def _lied_to(target: Target, lie: str, then: tuple[str, ...]) -> float:
    """Fork a session that lies; return how many seconds that took."""
    marker = secrets.token_hex(8)
    with nothing_stays(), Target(target.way) as own, own.session(limits=_LIMITS) as other:
        other.run("mine = 'as it was'")
        with own.session(limits=_LIMITS) as session:
            session.run(_LIAR.format(lie=lie.replace("HOST", str(os.getpid())), marker=marker, then=then))
            seen_alive(marker)
            started = time.monotonic()
            copies: list[Any] = []
            try:
                with contextlib.suppress(ForkRefused, SessionDead):
                    copies = list(session.fork())
                for each in copies:
                    each.run("1", timeout=0.3)
            finally:
                for each in copies:
                    each.close()
            took = time.monotonic() - started
        same(said(other, "print(mine)"), "as it was\n")
        left = alive(marker)
        end(left)
    same(left, [])
    return took
