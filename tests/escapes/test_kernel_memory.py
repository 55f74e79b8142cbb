"""Attacks with memory that is the kernel's: page tables, shared pages that nobody maps, timers, watches, descriptors."""

from __future__ import annotations

import ctypes
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fumehood import Limits
from fumehood.protocol.limits import MiB

from .conftest import Attack

SMALL = Limits(wall_seconds=10, memory_bytes=64 * MiB, pids=48)


@pytest.fixture
def needs_a_cgroup(tier: str, request: pytest.FixtureRequest) -> None:
    """Mark memory that no sample sees: where no cgroup counts it, it is not bounded yet."""
    if tier == "sampled":
        request.applymarker(pytest.mark.xfail(strict=True, reason="no sample sees this memory"))


SOURCES = {"anonymous": "-1", "dev_zero": "os.open('/dev/zero', os.O_RDWR)"}


@pytest.mark.usefixtures("needs_a_cgroup")
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_p49_shared_pages_that_were_let_go_still_count(attack: Attack, source: str) -> None:
    # The pages leave the process's tables, and with them what /proc calls its memory, but stay allocated.
    result = attack(
        f"""
        import mmap, time
        kept = []
        for _ in range(30):
            kept.append(mmap.mmap({source}, 10 << 20))
            for start in range(0, 10 << 20, 1 << 20):
                kept[-1][start:start + (1 << 20)] = b"x" * (1 << 20)
                kept[-1].madvise(mmap.MADV_DONTNEED)
            time.sleep(0.01)
        print("all 300 MB" if all(block[at] == 120 for block in kept for at in range(0, 10 << 20, 1 << 20)) else "lost")
        """,
        limits=SMALL,
    )
    assert (result.reason, result.stdout) == ("out_of_memory", "")


@pytest.mark.usefixtures("needs_a_cgroup")
def test_p56_page_tables_count(attack: Attack) -> None:
    # Reading one byte in every two mebibytes maps the page of zeros, which is nobody's, by tables that are somebody's.
    result = attack(
        """
        pages = 60_000
        libc.mmap.restype = ctypes.c_void_p
        place = libc.mmap(None, ctypes.c_size_t(pages << 21), 1, 0x4022, -1, ctypes.c_long(0))
        libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(pages << 21), 15)
        for page in range(pages):
            ctypes.c_char.from_address(place + (page << 21)).value
        print("all 240 MB")
        """,
        limits=SMALL,
    )
    assert (result.reason, result.stdout) == ("out_of_memory", "")


@pytest.mark.usefixtures("needs_a_cgroup")
def test_p52_what_waits_in_sockets_counts(attack: Attack) -> None:
    result = attack(
        """
        import time
        sent, kept = 0, []
        while sent < 200 << 20 and len(kept) < 400:
            kept.append(socket.socketpair())
            kept[-1][0].setblocking(False)
            kept[-1][0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            try:
                while True:
                    sent += kept[-1][0].send(bytes(65536))
            except BlockingIOError:
                pass
        time.sleep(0.2)
        print(sent >> 20)
        """,
        limits=SMALL,
    )
    assert (result.reason, result.stdout) == ("out_of_memory", "")


def test_p54_a_flood_of_watchers_leaves_the_host_its_own(attack: Attack) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    refused, over = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            instance = libc.inotify_init()
            if instance < 0:
                refused.set()
            else:
                os.close(instance)

    with ThreadPoolExecutor(1) as host:
        host.submit(watch)
        attack("""
            import resource, time
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 9000), min(hard, 9000)))
            for _ in range(8000):
                if libc.inotify_init() < 0:
                    break
            time.sleep(0.3)
        """)
        over.set()
    assert not refused.is_set()


FLOODS = {
    "p54_events": "os.eventfd(0)",
    "p54_pipes": "os.pipe()",
    "p54_epoll": "kept.append(select.epoll())",
    "p54_sockets": "kept.append(socket.socket())",
    "p54_files": "os.open('/dev/null', os.O_RDONLY)",
    "p54_timers": "timer()",
}


@pytest.mark.parametrize("action", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_of_kernel_objects_ends(attack: Attack, action: str) -> None:
    result = attack(f"""
        import resource, select
        kept = []
        def timer():
            if libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p())) != 0:
                raise OSError(ctypes.get_errno(), "no more")
        for limit in (resource.RLIMIT_NOFILE, 11):  # 11 is RLIMIT_SIGPENDING
            hard = resource.getrlimit(limit)[1]
            resource.setrlimit(limit, (hard, hard))
        made = 0
        try:
            for made in range(1, 2501):
                {action}
        except OSError:
            pass
        for thing in kept:
            thing.close()
        print(made)
    """)
    assert int(result.stdout) <= 1025


def test_p54_limits_once_lowered_stay_low(attack: Attack) -> None:
    result = attack("""
        import resource
        numbers = {"FSIZE": 1, "STACK": 3, "CORE": 4, "NPROC": 6, "NOFILE": 7, "MEMLOCK": 8, "SIGPENDING": 11,
                   "MSGQUEUE": 12, "NICE": 13, "RTPRIO": 14}
        for name, number in numbers.items():
            soft, hard = resource.getrlimit(number)
            if soft != hard or hard == resource.RLIM_INFINITY:
                print(name, "is not bounded")
            try:
                resource.setrlimit(number, (soft, hard + 1))
                print(name, "was raised")
            except (OSError, ValueError):
                pass
        print("tried")
    """)
    assert result.stdout == "tried\n"
