"""Attacks with what a program says: floods, pipes held open, and lies about how it ended."""

from __future__ import annotations

import socket

from fumehood import Limits
from fumehood.protocol.limits import MiB

from .conftest import Attack


def test_p104_an_output_flood_is_cut_and_ended(attack: Attack) -> None:
    result = attack("for _ in range(40): sys.stdout.write('x' * (1 << 20))", limits=Limits(output_bytes=1 * MiB))
    assert result.reason == "output_limit"
    assert len(result.stdout_bytes) == 1 * MiB


def test_p104_a_flood_on_standard_error_is_cut_and_ended(attack: Attack) -> None:
    result = attack("for _ in range(40): sys.stderr.write('x' * (1 << 20))", limits=Limits(output_bytes=1 * MiB))
    assert result.reason == "output_limit"
    assert len(result.stderr_bytes) == 1 * MiB


def test_p104_a_child_that_holds_the_pipe_delays_nobody(attack: Attack) -> None:
    result = attack("""
        import time
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
    """)
    assert result.duration_seconds < 2


def test_p104_one_endless_line_is_cut_and_ended(attack: Attack) -> None:
    result = attack("[os.write(1, b'x' * 65536) for _ in range(1600)]", limits=Limits(output_bytes=4 * MiB))
    assert result.reason == "output_limit"
    assert len(result.stdout_bytes) == 4 * MiB


def test_p104_closing_its_output_hides_nothing_from_the_clock(attack: Attack) -> None:
    result = attack(
        """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for number in (0, 1, 2):
            os.close(number)
        time.sleep(2)
        """,
        limits=Limits(wall_seconds=0.4),
    )
    assert result.reason == "timeout"
    assert result.duration_seconds < 1.5


def test_p47_an_exit_code_does_not_decide_the_reason(attack: Attack) -> None:
    result = attack("print('Killed: out of memory'); sys.exit(137)")
    assert (result.reason, result.exit_code) == ("exited", 137)


def test_p47_a_signal_to_oneself_is_not_out_of_memory(attack: Attack) -> None:
    result = attack("os.kill(os.getpid(), 9)")
    assert (result.reason, result.signal) == ("signalled", "SIGKILL")


def test_p47_words_of_the_kernel_do_not_make_it_out_of_memory(attack: Attack) -> None:
    result = attack("""
        sys.stderr.write("Out of memory: Killed process 1 (python3)\\n")
        sys.stdout.write('{"reason": "exited", "exit_code": 0}\\n')
        os.execv("/bin/sh", ["sh", "-c", "kill -9 $$"])
    """)
    assert (result.reason, result.exit_code, result.signal) == ("signalled", 137, "SIGKILL")


def test_p47_a_forged_report_finds_no_channel(attack: Attack) -> None:
    host, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with host, theirs:
        theirs.set_inheritable(True)
        host.settimeout(0.2)
        result = attack("""
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
    assert heard == b""
    assert (result.reason, result.signal, result.stdout) == ("signalled", "SIGABRT", "")
