"""Attacks by lies about how a program ended: what decides is what the kernel says, never what the program does or writes."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
from typing import TYPE_CHECKING

from ...protocol.limits import Limits
from ..host_side import alive, end, inheritable, victim
from ..suite import Suite, at_most, holds, same

if TYPE_CHECKING:
    from ..target import Target

SUITE = Suite("forgery")


@SUITE.probe("P47", tried="say that memory ran out, and end with 137", expected="exited, 137", wall="results")
def an_exit_code_does_not_decide_the_reason(target: Target) -> None:
    result = target.run("print('Killed: out of memory'); sys.exit(137)")
    same((result.reason, result.exit_code), ("exited", 137))


@SUITE.probe("P47", tried="kill itself", expected="signalled, SIGKILL", wall="results")
def a_signal_to_oneself_is_not_out_of_memory(target: Target) -> None:
    result = target.run("os.kill(os.getpid(), 9)")
    same((result.reason, result.signal), ("signalled", "SIGKILL"))


@SUITE.probe(
    "P47",
    tried="print the kernel's words about memory and a result of its own, then kill itself",
    expected="signalled, SIGKILL",
    wall="results",
)
def words_of_the_kernel_do_not_make_it_out_of_memory(target: Target) -> None:
    result = target.run("""
        sys.stderr.write("Out of memory: Killed process 1 (python3)\\n")
        sys.stdout.write('{"reason": "exited", "exit_code": 0}\\n')
        os.execv("/bin/sh", ["sh", "-c", "kill -9 $$"])
    """)
    same((result.reason, result.exit_code, result.signal), ("signalled", 137, "SIGKILL"))


@SUITE.probe(
    "P47",
    tried="write a report of its end to every descriptor, then abort",
    expected="nobody hears it; signalled, SIGABRT",
    wall="results",
)
def a_forged_report_finds_no_channel(target: Target) -> None:
    host, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with host, inheritable(theirs.detach()):
        host.settimeout(0.2)
        result = target.run("""
            # "Ended", status 0 and no time used, as the sandbox's own first process would say it.
            for number in range(3, 1024):
                if tried(lambda: os.write(number, b"E" + bytes(36))) == "done":
                    print("told", number)
            os.abort()
        """)
        heard = b""
        try:
            heard = host.recv(100)
        except TimeoutError:
            pass
    same(heard, b"")
    same((result.reason, result.signal, result.stdout), ("signalled", "SIGABRT", ""))


# Named by the host where there are no walls: there, others' descriptors must be left alone.
_THROUGH_PROC = """
    first, last, *pids = map(int, sys.argv[1:])
    for pid in {1, os.getppid(), *pids} if len(pids) == 0 else pids:
        for number in range(first, last + 1):
            try:
                os.write(os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_NONBLOCK), b"E" + bytes(36))
            except OSError:
                pass
    os.kill(os.getpid(), 9)
"""
_BY_PIDFD = """
    first, last, *pids = map(int, sys.argv[1:])
    for pid in {1, os.getppid(), *pids} - {0} if len(pids) == 0 else pids:
        pidfd = tried(lambda: globals().update(kept=os.pidfd_open(pid))) == "done" and kept
        for number in range(first, last + 1):
            theirs = libc.syscall(ctypes.c_long(438), ctypes.c_long(pidfd), ctypes.c_long(number), ctypes.c_long(0))
            if theirs >= 0:
                tried(lambda: os.write(theirs, b"E" + bytes(36)))
    os.kill(os.getpid(), 9)
"""


def _through_another(target: Target, code: str) -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    try:
        args = ["3", "255"] if target.walled else [str(write), str(write), str(os.getpid())]
        result = target.run(code, args=args)
        os.close(write)
        same(os.read(read, 100), b"")
    finally:
        os.close(read)
    same((result.reason, result.signal), ("signalled", "SIGKILL"))


@SUITE.probe(
    "P47",
    tried="write a report through /proc/PID/fd of whoever started it",
    expected="nobody hears it; signalled, SIGKILL",
    wall="pid-namespace",
)
def a_forged_report_finds_no_way_through_proc(target: Target) -> None:
    _through_another(target, _THROUGH_PROC)


@SUITE.probe(
    "P47",
    tried="take the descriptors of whoever started it by pidfd_getfd, and write a report",
    expected="nobody hears it; signalled, SIGKILL",
    wall="pid-namespace",
    only_root=True,
)
def a_forged_report_finds_no_way_by_a_pidfd(target: Target) -> None:
    _through_another(target, _BY_PIDFD)


@SUITE.probe(
    "P47",
    tried="end with 16 exit codes, those that commands use for timeouts, signals and lack of memory among them",
    expected="exited, with each as it is",
    wall="results",
)
def exit_codes_come_as_they_are(target: Target) -> None:
    codes = (0, 1, 2, 64, 99, 122, 124, 125, 126, 127, 128, 134, 137, 139, 143, 255)
    seen = {code: target.run("os._exit(int(sys.argv[1]))", args=[str(code)]) for code in codes}
    wrong = {code: (each.reason, each.exit_code, each.signal) for code, each in seen.items()}
    same({code: each for code, each in wrong.items() if each != ("exited", code, None)}, {})


_SIGNALS = {
    "SIGHUP": 1, "SIGINT": 2, "SIGQUIT": 3, "SIGILL": 4, "SIGTRAP": 5, "SIGABRT": 6, "SIGBUS": 7, "SIGFPE": 8, "SIGKILL": 9,
    "SIGUSR1": 10, "SIGSEGV": 11, "SIGPIPE": 13, "SIGALRM": 14, "SIGTERM": 15, "SIGXCPU": 24, "SIGXFSZ": 25,
    "SIGVTALRM": 26, "SIGPROF": 27, "SIGIO": 29, "SIGPWR": 30, "SIGSYS": 31,
}  # fmt: skip


@SUITE.probe(
    "P47",
    tried="end by each fatal signal, those of used-up time and size and of a refused call among them",
    expected="signalled, by that signal",
    wall="results",
)
def fatal_signals_come_as_they_are(target: Target) -> None:
    code = "import signal; n = int(sys.argv[1]); n == 9 or signal.signal(n, signal.SIG_DFL); os.kill(os.getpid(), n)"
    seen = {name: target.run(code, args=[str(number)]) for name, number in _SIGNALS.items()}
    wrong = {name: (each.reason, each.signal) for name, each in seen.items()}
    same({name: each for name, each in wrong.items() if each != ("signalled", name)}, {})


@SUITE.probe_each(
    "P47",
    {
        "in an exit hook": "import atexit; atexit.register(os.kill, os.getpid(), 9); sys.exit(0)",
        "in a stream's flush": "class S:\n"
        "    def write(self, text): pass\n"
        "    def flush(self): os.kill(os.getpid(), 9)\n"
        "sys.stdout = S()",
        "from a thread while the first one ends": "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), os.kill(os.getpid(), 9))).start()",
        "after its channel to the world is closed": "os.closerange(0, 4096); os.kill(os.getpid(), 9)",
        "as another program": "os.execv('/bin/sh', ['fumehood: exited 0', '-c', 'kill -9 $$'])",
    },
    tried="end as if in good order, but by a signal {}", expected="signalled, SIGKILL", wall="results",
)  # fmt: skip
def a_late_signal_is_seen(target: Target, code: str) -> None:
    result = target.run(code)
    same((result.reason, result.exit_code, result.signal), ("signalled", 137, "SIGKILL"))


@SUITE.probe(
    "P47",
    tried="end the first thread and go on in another",
    expected="it has not ended: timeout",
    wall="time",
)
def a_first_thread_that_ends_is_no_end(target: Target) -> None:
    result = target.run(
        """
        import threading, time
        threading.Thread(target=lambda: time.sleep(2)).start()
        time.sleep(0.02)
        libc.syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
        """,
        limits=Limits(wall_seconds=0.4),
    )
    same(result.reason, "timeout")
    at_most(result.duration_seconds, 1.5)


@SUITE.probe(
    "P47",
    tried="fork, end at once with 0, and go on in the child",
    expected="exited, and the child is dead",
    wall="processes",
)
def a_program_that_goes_on_in_a_child_has_ended(target: Target) -> None:
    marker = secrets.token_hex(8)
    result = target.run(
        """
        os.dup2(os.open(os.devnull, os.O_RDWR), 1), os.dup2(1, 2)
        work = "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(3)"
        os.execv(sys.executable, [sys.executable, "-c", work, sys.argv[1]])
        """,
        args=[marker],
    )
    left = alive(marker)
    end(left)
    same(left, [])
    same((result.reason, result.exit_code), ("exited", 0))


@SUITE.probe(
    "P47",
    tried="send every signal to process 1, to its parent and to a number of the host's, then end with 7",
    expected="exited, 7; nobody is hurt",
    wall="pid-namespace",
)
def signals_to_whoever_reports_change_nothing(target: Target) -> None:
    with victim() as process:
        pids = [str(process.pid), *(["1"] if target.walled else [])]
        result = target.run(
            """
            pids = {int(each) for each in sys.argv[1:]}
            if 1 in pids:
                pids.add(os.getppid())
            for pid in pids - {0, os.getpid()}:
                for number in range(1, 65):
                    tried(lambda: os.kill(pid, number))
            sys.exit(7)
            """,
            args=pids,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
        holds(process.poll() is None, "a process of the host's was killed")
    same((result.reason, result.exit_code), ("exited", 7))


@SUITE.probe(
    "P47",
    tried="say that the disk is full and that time is up, with nothing used, and be killed by its child",
    expected="signalled, SIGKILL",
    wall="results",
)
def words_about_other_limits_decide_nothing(target: Target) -> None:
    result = target.run("""
        import errno
        sys.stderr.write(os.strerror(errno.ENOSPC) + "\\ntimeout: sending signal KILL\\noutput limit reached\\n")
        sys.stderr.flush()
        parent = os.getpid()
        if os.fork() == 0:
            os.kill(parent, 9)
            os._exit(124)
        os.wait()
    """)
    same((result.reason, result.exit_code, result.signal), ("signalled", 137, "SIGKILL"))


_ODD = (
    bytes(range(256))
    + "\ud7ff\ue000\ufffe\uffff\U0001f4a9\U0010ffff\u2028\u2029".encode()
    + b"\xed\xa0\x80\xf4\x90\x80\x80\xc0\x80"
)


@SUITE.probe(
    "P20",
    tried="print every byte, half characters and a line of 1 MB, and leave files with such names and contents",
    expected="the result is JSON that reads back, bytes as they were, each file under a name of its own",
    wall="results",
)
def odd_bytes_do_not_break_the_result(target: Target) -> None:
    result = target.run(f"""
        odd = {_ODD!r}
        os.write(1, odd); os.write(2, odd[::-1])
        for number, name in enumerate((b"\\xff", b"\\xfe", b"\\xed\\xa0\\x80", b'"}},"a', b"\\n", b"\\x1b[2J")):
            open(name, "wb").write(odd + b"%d" % number)
        sys.stdout.flush()
        os.write(1, b"x" * 1000000)
    """)
    same(result.stdout_bytes, _ODD + b"x" * 1000000)
    same(result.stderr_bytes, _ODD[::-1])
    for readable in (True, False):
        text = json.dumps(result.as_json(), ensure_ascii=readable)
        same(json.loads(text.encode("utf-8")), json.loads(json.dumps(result.as_json())))
    same(len({each["path"] for each in result.as_json()["files"]}), 6)


@SUITE.probe(
    "P20",
    tried="name a file with an odd byte, and another one like what that byte is shown as",
    expected="each has a name of its own in the result's JSON",
    wall="results",
)
def two_files_do_not_come_under_one_name(target: Target) -> None:
    result = target.run(r"""
        for name in (b"\xff", b"\\xff", b"\\udcff", b"\xef\xbf\xbd"):
            open(name, "wb").write(name)
    """)
    same(len({each["path"] for each in result.as_json()["files"]}), 4)
