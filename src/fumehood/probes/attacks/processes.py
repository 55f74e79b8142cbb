"""Attacks with processes and time: bombs, survivors, signals, priorities, deadlines."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from ...protocol.limits import Limits
from ..host_side import alive, end, inheritable, victim
from ..suite import Fell, LeftOut, Suite, at_most, holds, same
from ..target import LIMITS

if TYPE_CHECKING:
    from ..target import Target

SUITE = Suite("processes")

_BOMBS = {
    "P31 of children": "pid = os.fork()\n    if pid == 0: time.sleep(1); os._exit(0)",
    "P31 of children that have ended, which nobody asks after": "pid = os.fork()\n    if pid == 0: os._exit(0)",
    "P31 of children in sessions of their own": "pid = os.fork()\n    if pid == 0: os.setsid(); time.sleep(1); os._exit(0)",
    "P31 of children that ignore signals": "pid = os.fork()\n    if pid == 0: signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); "
    "time.sleep(1); os._exit(0)",
    "P31 of grandchildren whose parents are gone": "pid = os.fork()\n"
    "    if pid == 0: os._exit(0 if orphan() else 1)\n    if os.waitpid(pid, 0)[1]: break",
    "P39 of threads": "threading.Thread(target=time.sleep, args=(1,), daemon=True).start()",
    "P39 of threads in children": "pid = os.fork()\n    if pid == 0: threads()",
}


@SUITE.probe_each(
    "P31", _BOMBS, tried="start 300 processes: a bomb {}", expected="it stops at the limit", wall="processes"
)
def a_bomb_stops_at_the_limit(target: Target, step: str) -> None:
    result = target.run(_bomb(step) + "print(made, flush=True)\nos._exit(0)")
    at_most(int(result.stdout), LIMITS.pids)


@SUITE.probe("P32", tried="start 300 processes, whoever started the service", expected="it stops, as a user of its own", wall="own-user")  # fmt: skip
def a_bomb_stops_whoever_started_the_service(target: Target) -> None:
    mapped = "print(made, open('/proc/self/uid_map').read().split()[1] != '0', flush=True)\nos._exit(0)"
    result = target.run(_bomb(_BOMBS["P31 of children"]) + mapped)
    made, own_user = result.stdout.split()
    at_most(int(made), LIMITS.pids)
    same(own_user, "True")


def _bomb(step: str) -> str:
    return f"""
import signal, threading, time
def threads():
    try:
        for _ in range(3):
            threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
        time.sleep(1)
    finally:
        os._exit(0)
def orphan():
    try:
        if os.fork() == 0:
            time.sleep(1)
            os._exit(0)
    except OSError:
        return False
    return True
made = 0
for _ in range(300):
  try:
    {step}
  except (OSError, RuntimeError):
    break
  made += 1
"""


# What a survivor does with itself once it has said that it is there; it ends by itself in 20 seconds.
_SURVIVORS = {
    "P33 in a session of its own": "",
    "P34 with every signal ignored and blocked": "[signal.signal(n, signal.SIG_IGN) for n in set(range(1, 65)) - {9, 19, 32, 33}]; "
    "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))",
    "P34 that has stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "P34 that waits to be traced": "libc.ptrace(0, 0, 0, 0); os.kill(os.getpid(), signal.SIGSTOP)",
    "P34 whose child came by vfork and never runs a program": "clone(0x4100 | 17)",
    "P38 that takes in orphans": "libc.prctl(36, 1, 0, 0, 0); os.fork() or os.fork() or time.sleep(20)",
    "P33 that moves from process to process": "move()",
    "P33 in a group of its own, as if in the background": "os.setpgid(0, 0) if os.getsid(0) != os.getpid() else None",
}

_SURVIVOR = """
import ctypes, os, platform, signal, sys, time
libc = ctypes.CDLL(None)
libc.syscall.restype = ctypes.c_long
def clone(flags):
    number = {"x86_64": 56, "aarch64": 220}[platform.machine()]
    return libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in (flags, 0, 0, 0, 0)])
def move():
    over = time.monotonic() + 3
    while time.monotonic() < over:
        if os.fork():
            os._exit(0)
        time.sleep(0.05)
def say():
    os.write(int(sys.argv[2]), b"x")
    os.close(int(sys.argv[2]))
"""

_LEAVE_IT = """
import time
said, says = os.pipe()
os.set_inheritable(says, True)
{start}
os.close(says)
print("started" if os.read(said, 1) else "it did not start", flush=True)
time.sleep(0.05)
"""

_EXEC = """    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], sys.argv[2], str(says)])"""

_DAEMON = f"""
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
{_EXEC}
"""


def _nobody_outlives(target: Target, start: str, action: str = "") -> None:
    """Run a program that leaves somebody; fall where it is on the host when the execution has ended."""
    marker = secrets.token_hex(8)
    # It does what it does before it says so where that can be, and at once thereafter where it can speak no more.
    code = f"{_SURVIVOR}\nsay()\n{action or 'pass'}\ntime.sleep(20)"
    result = target.run(_LEAVE_IT.format(start=start), args=[code, marker])
    # Who moves on meanwhile can be missed by one look.
    left = any(alive(marker) for _ in range(5))
    missed = 0
    while left and missed < 10:
        found = alive(marker)
        end(found)
        missed = 0 if found else missed + 1
    same(result.stdout, "started\n")
    if left:
        raise Fell("a process of its own was on the host afterwards")


@SUITE.probe_each("P33", _SURVIVORS, tried="leave a process {}", expected="it is gone with the program", wall="pid-namespace")  # fmt: skip
def a_daemon_does_not_outlive_its_execution(target: Target, action: str) -> None:
    _nobody_outlives(target, _DAEMON, action)


@SUITE.probe_each(
    "P37",
    {"": 0x8000, " untraceable": 0x8000 | 0x800000, " in a session of its own": 0x8000 | 1 << 40, " by vfork": 0x8000 | 0x4000},
    tried="make a child of its own parent's{}", expected="it is gone with the program", wall="pid-namespace",
)  # fmt: skip
def a_child_given_to_our_process_dies_with_the_rest(target: Target, flags: int) -> None:
    session = "    os.setsid()\n" if flags >> 40 else ""
    start = (
        f"me = os.getpid()\nraw(56, 220, {flags & 0xFFFFFF} | 17, 0, 0, 0, 0)\nif os.getpid() != me:\n{session}{_EXEC}"
    )
    _nobody_outlives(target, start)


_STUBBORN = {
    "P34 with every signal ignored": "[signal.signal(n, signal.SIG_IGN) for n in set(range(1, 65)) - {9, 19, 32, 33}]\nwhile True: pass",
    "P34 with every signal blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
    "P34 with every signal caught": "[signal.signal(n, lambda *_: None) for n in set(range(1, 65)) - {9, 19, 32, 33}]\nwhile True: pass",
    "P34 after it has stopped itself": "os.kill(os.getpid(), signal.SIGSTOP)\nwhile True: time.sleep(1)",
    "P34 waiting for a child of vfork's": "raw(56, 220, 0x4100 | 17, 0, 0, 0, 0)\nwhile True: time.sleep(1)",
    "P34 waiting for every signal": "[signal.sigwait(range(1, 65)) for _ in range(1000)]",
    "P41 without using the processor": "time.sleep(30)",
    "P41 with its first thread gone": "import threading\nthreading.Thread(target=time.sleep, args=(30,)).start()\nraw(60, 93, 0)",
    "P41 in the kernel, at a pipe that nobody writes": "os.read(os.pipe()[0], 1)",
    "P41 after asking for its death later": "signal.alarm(20); libc.prctl(1, 9, 0, 0, 0)\nwhile True: time.sleep(1)",
    "P41 becoming another program again and again": "os.execv(sys.executable, [sys.executable, '-Sc', sys.argv[1], sys.argv[1]])",
}
_AGAIN = "import os, sys, signal\nsignal.signal(15, signal.SIG_IGN)\nos.execv(sys.executable, [sys.executable, '-ISc', sys.argv[1], sys.argv[1]])"


@SUITE.probe_each("P34", _STUBBORN, tried="go on past the deadline {}", expected="death, which is called a timeout", wall="time")  # fmt: skip
def a_program_dies_at_its_deadline(target: Target, action: str) -> None:
    result = target.run(f"import signal, time\n{action}", args=[_AGAIN], limits=Limits(wall_seconds=0.25))
    same((result.reason, result.exit_code), ("timeout", 124))
    at_most(result.duration_seconds, 2)


@SUITE.probe("P40", tried="spin in two processes for longer than the processor's time allows", expected="a timeout", wall="time")  # fmt: skip
def spinning_processes_use_up_their_cpu_time(target: Target) -> None:
    result = target.run(
        "pids = [os.fork() for _ in range(2)]\nwhile True: pass", limits=Limits(wall_seconds=4, cpu_seconds=0.5)
    )
    same(result.reason, "timeout")
    at_most(result.duration_seconds, 3)


@SUITE.probe_each(
    "P40",
    {
        "in children that end soon": "if os.fork() == 0:\n        spin(0.05)\n        os._exit(0)\n    os.wait()",
        "in orphans that end soon": "if os.fork() == 0:\n        if os.fork() == 0:\n            spin(0.05)\n        os._exit(0)\n"
        "    os.wait()\n    time.sleep(0.05)",
        "in threads": "thread = threading.Thread(target=spin, args=(0.05,))\n    thread.start()\n    thread.join()",
        "with its limit raised": "resource.setrlimit(resource.RLIMIT_CPU, (resource.getrlimit(resource.RLIMIT_CPU)[1],) * 2)\n    spin(0.05)",
    },
    tried="use more of the processor than is allowed {}", expected="a timeout", wall="time",
)  # fmt: skip
@SUITE.probe_each(
    "P40",
    {
        "in children that nobody waits for": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n    if os.fork() == 0:\n        spin(0.05)\n"
        "        os._exit(0)\n    time.sleep(0.05)",
    },
    tried="use more of the processor than is allowed {}", expected="a timeout", wall="time",
    open_in={"sampled": "their time is added to nobody's, and no group counts it: the deadline ends it"},
)  # fmt: skip
def time_of_the_processor_is_counted_wherever_it_is_spent(target: Target, step: str) -> None:
    program = f"""
import resource, signal, threading, time
def spin(seconds):
    over = time.thread_time() + seconds
    while time.thread_time() < over:
        pass
for _ in range(30):
    {step}
"""
    result = target.run(program, limits=Limits(wall_seconds=20, cpu_seconds=0.3))
    same(result.reason, "timeout")


_SIGNALS = {
    "kill": "os.kill(victim, 9)",
    "killpg": "os.killpg(victim, 9)",
    "kill of a group by a negative number": "os.kill(-victim, 9)",
    "tkill": "sys.exit(raw(200, 130, victim, 9))",
    "tgkill": "sys.exit(raw(234, 131, victim, victim, 9))",
    "a descriptor of the process": "import signal; signal.pidfd_send_signal(os.pidfd_open(victim), 9)",
    "sigqueue": "sys.exit(raw(129, 138, victim, 9, info))",
    "sigqueue to a thread": "sys.exit(raw(297, 240, victim, victim, 9, info))",
    "a socket that belongs to it": "import fcntl; a, b = socket.socketpair(); fcntl.fcntl(a, fcntl.F_SETOWN, victim); "
    "fcntl.fcntl(a, 10, 9); fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC); b.send(b'x'); fcntl.fcntl(a, fcntl.F_GETOWN) or sys.exit(1)",
    "a limit of its processor time": "import resource; resource.prlimit(victim, resource.RLIMIT_CPU, (0, 0))",
}


@SUITE.probe_each("P35", _SIGNALS, tried="end a process of the host's by {}", expected="it lives", wall="pid-namespace")
def a_process_of_the_hosts_cannot_be_signalled(target: Target, action: str) -> None:
    # It works, so that a limit of its processor time would end it as well.
    with victim("import time\nend = time.monotonic() + 10\nwhile time.monotonic() < end: pass") as process:
        # From include/uapi/asm-generic/siginfo.h: its number, an error, and a code that says "by a queue".
        info = "import struct\ninfo = ctypes.c_char_p(struct.pack('iii', 9, 0, -1) + bytes(116))"
        result = target.run(f"victim = {process.pid}\n{info}\n{action}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.2 if "rlimit" in action else 0.1)
        survived = process.poll() is None
    holds(survived, "it died")
    holds(result.exit_code != 0, "the program was told that it did")


@SUITE.probe_each(
    "P44",
    {
        "its niceness": "os.setpriority(os.PRIO_PROCESS, victim, 7)",
        "its group's niceness": "os.setpriority(os.PRIO_PGRP, victim, 7)",
        "its processors": "os.sched_setaffinity(victim, {min(os.sched_getaffinity(0))})",
        "its scheduling": "os.sched_setscheduler(victim, os.SCHED_IDLE, os.sched_param(0))",
    },
    tried="change how a process of the host's is run: {}", expected="it stays", wall="pid-namespace",
)  # fmt: skip
def a_process_of_the_hosts_keeps_its_share(target: Target, action: str) -> None:
    if len(os.sched_getaffinity(0)) == 1 and "affinity" in action:
        raise LeftOut("this host has one processor")

    def share(pid: int) -> tuple[object, ...]:
        return os.getpriority(os.PRIO_PROCESS, pid), os.sched_getaffinity(pid), os.sched_getscheduler(pid)

    with victim() as process:
        before = share(process.pid)
        target.run(f"victim = {process.pid}\n{action}")
        same(share(process.pid), before)


@SUITE.probe("P36", tried="ask the kernel in eight ways after a process of the host's", expected="ESRCH", wall="pid-namespace")  # fmt: skip
def the_kernel_knows_no_process_of_the_hosts(target: Target) -> None:
    with victim() as process:
        result = target.run(f"""
            victim = {process.pid}
            print({{
                tried(lambda: os.kill(victim, 0)), tried(lambda: os.pidfd_open(victim)), tried(lambda: os.getpgid(victim)),
                tried(lambda: os.getsid(victim)), tried(lambda: os.sched_getscheduler(victim)),
                tried(lambda: os.sched_getaffinity(victim)), tried(lambda: os.getpriority(os.PRIO_PROCESS, victim)),
                tried(lambda: os.sched_getparam(victim)),
            }})
        """)
    same(result.stdout, "{'ESRCH'}\n")


@SUITE.probe("P35", tried="kill everybody", expected="nobody outside dies", wall="pid-namespace")
def killing_everybody_ends_nobody_outside(target: Target) -> None:
    with victim() as process:
        result = target.run(
            """
            if os.readlink("/proc/self/ns/pid") == sys.argv[1]:
                sys.exit("no namespace: this must not be done")
            tried(lambda: os.kill(-1, 9))
            print("done to all that can be reached")
            """,
            args=[str(Path("/proc/self/ns/pid").readlink())],
        )
        holds(process.poll() is None, "a process of the host's died")
    same((result.reason, result.stdout), ("exited", "done to all that can be reached\n"))


@SUITE.probe("P35", tried="kill or stop the sandbox's first process by every signal", expected="nothing changes", wall="pid-namespace")  # fmt: skip
def killing_process_1_from_inside_changes_nothing(target: Target) -> None:
    result = target.run(
        """
        if os.readlink("/proc/self/ns/pid") == sys.argv[1]:
            sys.exit("no pid namespace")
        for number in range(1, 65):
            tried(lambda: os.kill(1, number))
        if os.fork() == 0:
            os._exit(7)
        print("still here", os.waitstatus_to_exitcode(os.wait()[1]))
        """,
        args=[str(Path("/proc/self/ns/pid").readlink())],
    )
    same((result.reason, result.exit_code, result.stdout), ("exited", 0, "still here 7\n"))


@SUITE.probe("P35", tried="slow down the sandbox's first process, then sleep past the deadline", expected="a timeout", wall="time")  # fmt: skip
def a_slowed_process_1_does_not_move_the_deadline(target: Target) -> None:
    result = target.run(
        """
        import time
        if os.path.isdir("/sys"):
            sys.exit("no walls: that would be the host's first process")
        tried(lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)))
        tried(lambda: os.setpriority(os.PRIO_PROCESS, 1, 19))
        tried(lambda: os.sched_setaffinity(1, {min(os.sched_getaffinity(0))}))
        for _ in range(3):
            os.fork()
        while True:
            pass
        """,
        limits=Limits(wall_seconds=0.5, pids=48),
    )
    same(result.reason, "timeout")
    at_most(result.duration_seconds, 4)


@SUITE.probe("P36", tried="list the processes", expected="its own alone", wall="proc")
def no_process_of_the_hosts_is_seen(target: Target) -> None:
    with victim(), victim():
        result = target.run("print(sum(name.isdigit() for name in os.listdir('/proc')))")
    at_most(int(result.stdout), 2)


@SUITE.probe("P44", tried="have priority over others", expected="EPERM or EACCES", wall="seccomp")
def no_priority_over_others_can_be_had(target: Target) -> None:
    # Without walls root may have all of them, anybody else the last.
    result = target.run("""
        print({
            tried(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)),
            tried(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
            raw(251, 30, 1, 0, 1 << 13),
            raw(251, 30, 1, 0, 2 << 13),
        } <= {"EPERM", "EACCES"})
    """)
    same(result.stdout, "True\n")


@SUITE.probe_each(
    "P44",
    {
        "niceness -20": "tried(lambda: os.setpriority(os.PRIO_PROCESS, 0, -20))",
        "niceness -1 of its group": "tried(lambda: os.setpriority(os.PRIO_PGRP, 0, -1))",
        "in turns": "tried(lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(99)))",
        "by deadlines": "raw(314, 274, 0, struct.pack('=IIQiIQQQ', 48, 6, 0, 0, 0, 1 << 20, 1 << 24, 1 << 24), 0)",
        "a limit of real-time priority": "tried(lambda: resource.setrlimit(resource.RLIMIT_RTPRIO, (99, 99)))",
        "a limit of niceness": "tried(lambda: resource.setrlimit(resource.RLIMIT_NICE, (40, 40)))",
        "a limit of locked memory": "tried(lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 30, 1 << 30)))",
        "a limit of open files": "tried(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 16, 1 << 16)))",
    },
    tried="have priority over others: {}", expected="EPERM or EACCES", wall="capabilities", only_root=True,
)  # fmt: skip
def no_priority_can_be_had(target: Target, action: str) -> None:
    if not target.walled and "RLIMIT" in action and not _may_raise_limits():
        raise LeftOut("this root may not raise limits itself")
    result = target.run(f"""
        import resource, struct
        try:
            print({action})
        except ValueError:
            print("EPERM")  # so says the resource module
    """)
    holds(result.stdout in ("EPERM\n", "EACCES\n"), f"the kernel said {result.stdout.strip()}")


def _may_raise_limits() -> bool:
    # From include/uapi/linux/capability.h: CAP_SYS_RESOURCE is the 24th bit.
    status = Path("/proc/self/status").read_text("utf-8")
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> 24 & 1)


@SUITE.probe("P45", tried="open a terminal", expected="there is none", wall="files")
def there_is_no_terminal_to_type_into(target: Target) -> None:
    result = target.run("""
        for path in ("/dev/ptmx", "/dev/tty", "/dev/tty0", "/dev/console", "/dev/pts/ptmx"):
            print(tried(lambda: os.open(path, os.O_RDWR | os.O_NOCTTY)))
    """)
    same(result.stdout, "ENOENT\n" * 5)


@SUITE.probe("P45", tried="type into a terminal of the host's that was leaked", expected="nothing is typed", wall="files")  # fmt: skip
def a_leaked_terminal_cannot_be_typed_into(target: Target) -> None:
    master, terminal = os.openpty()
    os.set_blocking(master, False)
    try:
        with inheritable(terminal):
            target.run("""
                import fcntl
                for number in range(3, 1024):
                    try:
                        if os.isatty(number):
                            tried(lambda: fcntl.ioctl(number, 0x5412, b"x"))  # TIOCSTI
                            os.write(number, b"typed")
                    except OSError:
                        pass
            """)
            try:
                raise Fell(f"saw {os.read(master, 100)!r} in the terminal")
            except BlockingIOError:
                pass
    finally:
        os.close(master)


@SUITE.probe_each(
    "P45",
    {"take it for its own": (0x540E, 1), "choose its driver": (0x5423, 0), "paste by its console": (0x541C, 0)},
    tried="find a terminal of the host's among its descriptors and {}", expected="there is none", wall="files",
)  # fmt: skip
def a_leaked_terminal_cannot_be_taken(target: Target, number: int, argument: int) -> None:
    master, terminal = os.openpty()
    try:
        with inheritable(terminal):
            result = target.run(f"""
                if os.fork() == 0:
                    os.setsid()
                    for terminal in filter(os.isatty, range(3, 1024)):
                        print(terminal, raw(16, 29, terminal, {number}, {argument}), flush=True)
                    os._exit(0)
                os.wait()
                print("looked")
            """)
    finally:
        os.close(master)
    same(result.stdout, "looked\n")
