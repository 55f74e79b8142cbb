"""Attacks with processes and time: bombs, survivors, signals, priorities, deadlines."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from pathlib import Path

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


def test_p35_a_process_of_the_hosts_cannot_be_signalled(attack: Attack) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim:
        result = attack(f"print(tried(lambda: os.kill({victim.pid}, 9)))")
        time.sleep(0.1)
        survived = victim.poll() is None
        victim.kill()
    assert survived
    assert result.stdout in ("ESRCH\n", "EPERM\n")


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
        import fcntl
        def type_into():
            master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        print(tried(type_into))
    """)
    assert result.stdout == "ENOENT\n"
