"""Attacks with processes and time: bombs, survivors, signals, priorities, deadlines."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fumehood import Limits

from .conftest import LIMITS, Attack, alive, end

BOMB = """
    import time
    made = 0
    for _ in range(300):
        try:
            pid = os.fork()
        except OSError:
            break
        if pid == 0:
            time.sleep(2)
            os._exit(0)
        made += 1
    print(made)
"""


def test_p31_a_fork_bomb_stops_at_the_limit(attack: Attack) -> None:
    result = attack(BOMB)
    assert int(result.stdout) <= LIMITS.pids


def test_p32_a_fork_bomb_stops_whoever_started_the_service(attack: Attack) -> None:
    result = attack(BOMB + "    print(open('/proc/self/uid_map').read().split()[1] != '0')")
    made, own_user = result.stdout.split()
    assert int(made) <= LIMITS.pids
    assert own_user == "True"


def test_p39_a_thread_bomb_stops_at_the_limit(attack: Attack) -> None:
    result = attack("""
        import threading, time
        made = 0
        for _ in range(300):
            try:
                threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
            except RuntimeError:
                break
            made += 1
        print(made, flush=True)
        os._exit(0)
    """)
    assert int(result.stdout) <= LIMITS.pids


def test_p33_a_daemon_does_not_outlive_its_execution(attack: Attack) -> None:
    marker = secrets.token_hex(8)
    attack(f"""
        import subprocess
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                null = os.open(os.devnull, os.O_RDWR)
                for number in (0, 1, 2):
                    os.dup2(null, number)
                os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(20)", "{marker}"])
            os._exit(0)
        import time
        time.sleep(0.3)
    """)
    time.sleep(0.2)
    left = alive(marker)
    end(left)
    assert left == []


def test_p34_a_program_that_ignores_all_signals_dies_at_its_deadline(attack: Attack) -> None:
    marker = secrets.token_hex(8)
    result = attack(
        """
        import signal
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            pass
        """,
        args=[marker],
        limits=Limits(wall_seconds=0.5),
    )
    end(alive(marker))
    assert result.reason == "timeout"
    assert result.exit_code == 124


SIGNALS = {
    "kill": "os.kill(victim, 9)",
    "killpg": "os.killpg(victim, 9)",
    "tgkill": "sys.exit(raw(234, 131, victim, victim, 9))",
    "pidfd": "import signal; signal.pidfd_send_signal(os.pidfd_open(victim), 9)",
    "rlimit": "import resource; resource.prlimit(victim, resource.RLIMIT_CPU, (0, 0))",
}


@pytest.mark.parametrize("action", SIGNALS.values(), ids=SIGNALS.keys())
def test_p35_a_process_of_the_hosts_cannot_be_signalled(attack: Attack, action: str) -> None:
    # It works, so that a limit of its processor time would end it as well.
    code = "import time\nend = time.monotonic() + 10\nwhile time.monotonic() < end: pass"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as victim:
        result = attack(f"victim = {victim.pid}\n{action}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            victim.wait(1.2 if "rlimit" in action else 0.1)
        survived = victim.poll() is None
        victim.kill()
    assert survived
    assert result.exit_code != 0


def test_p35_killing_everybody_ends_nobody_outside(attack: Attack) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim:
        result = attack(
            """
            if os.readlink("/proc/self/ns/pid") == sys.argv[1]:
                sys.exit("no namespace: this must not be done")
            tried(lambda: os.kill(-1, 9))
            print("done to all that can be reached")
            """,
            args=[str(Path("/proc/self/ns/pid").readlink())],
        )
        survived = victim.poll() is None
        victim.kill()
    assert survived
    assert (result.reason, result.stdout) == ("exited", "done to all that can be reached\n")


def test_p37_a_child_given_to_our_process_dies_with_the_rest(attack: Attack) -> None:
    marker = secrets.token_hex(8)
    result = attack(f"""
        me = os.getpid()
        answer = raw(56, 220, 0x8000 | 17, 0, 0, 0, 0)  # CLONE_PARENT
        if os.getpid() != me:
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            os.setsid()
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(20)", "{marker}"])
        import time
        time.sleep(0.3)
        print(answer)
    """)
    left = alive(marker)
    end(left)
    assert result.exit_code == 0
    assert left == []


def test_p35_killing_process_1_from_inside_changes_nothing(attack: Attack) -> None:
    result = attack(
        """
        import signal
        if os.readlink("/proc/self/ns/pid") == sys.argv[1]:
            sys.exit("no pid namespace")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGCHLD):
            tried(lambda: os.kill(1, number))
        print("still here")
    """,
        args=[str(Path("/proc/self/ns/pid").readlink())],
    )
    assert result.stdout == "still here\n"
    assert result.reason == "exited"


def test_p36_no_process_of_the_hosts_is_seen(attack: Attack) -> None:
    result = attack("print(sum(name.isdigit() for name in os.listdir('/proc')))")
    assert int(result.stdout) <= 2


def test_p40_spinning_threads_use_up_their_cpu_time(attack: Attack) -> None:
    result = attack(
        "pids = [os.fork() for _ in range(2)]\nwhile True: pass", limits=Limits(wall_seconds=4, cpu_seconds=0.5)
    )
    assert result.reason == "timeout"
    assert result.duration_seconds < 3


def test_p41_sleeping_past_the_deadline_is_ended(attack: Attack) -> None:
    result = attack("import time; time.sleep(30)", limits=Limits(wall_seconds=0.3))
    assert result.reason == "timeout"


def test_p44_no_priority_over_others_can_be_had(attack: Attack) -> None:
    # Without walls root may have all of them, anybody else the last.
    result = attack("""
        print({
            tried(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)),
            tried(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
            raw(251, 30, 1, 0, 1 << 13),
            raw(251, 30, 1, 0, 2 << 13),
        } <= {"EPERM", "EACCES"})
    """)
    assert result.stdout == "True\n"


def test_p45_there_is_no_terminal_to_type_into(attack: Attack) -> None:
    result = attack("""
        for path in ("/dev/ptmx", "/dev/tty", "/dev/tty0", "/dev/console"):
            print(tried(lambda: os.open(path, os.O_RDWR | os.O_NOCTTY)))
    """)
    assert result.stdout == "ENOENT\n" * 4


def test_p45_a_leaked_terminal_cannot_be_typed_into(attack: Attack) -> None:
    master, terminal = os.openpty()
    os.set_inheritable(terminal, True)
    os.set_blocking(master, False)
    try:
        attack("""
            import fcntl
            for number in range(3, 1024):
                try:
                    if os.isatty(number):
                        tried(lambda: fcntl.ioctl(number, 0x5412, b"x"))  # TIOCSTI
                        os.write(number, b"typed")
                except OSError:
                    pass
        """)
        with pytest.raises(BlockingIOError):
            os.read(master, 100)
    finally:
        os.close(master)
        os.close(terminal)
