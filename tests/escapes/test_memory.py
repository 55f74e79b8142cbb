"""Attacks with memory and disk: of the program's own, of the kernel's, of files, and of what others share."""

from __future__ import annotations

import pytest

from fumehood.protocol.limits import MiB

from .conftest import LIMITS, Attack


def test_p48_touching_memory_beyond_the_limit_is_out_of_memory(attack: Attack) -> None:
    result = attack("""
        import time
        kept = []
        for _ in range(30):
            kept.append(bytearray(os.urandom(1)) * (10 << 20))
            time.sleep(0.01)
        print("all 300 MB")
    """)
    assert (result.reason, result.exit_code) == ("out_of_memory", 137)
    assert result.stdout == ""


def test_p48_children_share_one_limit(attack: Attack) -> None:
    result = attack("""
        import time
        for _ in range(5):
            if os.fork() == 0:
                kept = [bytearray(b"x") * (1 << 20) for _ in range(60) if time.sleep(0.005) is None]
                time.sleep(1)
                os._exit(0)
        failed = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(5)]
        sys.exit(any(failed))
    """)
    assert result.reason == "out_of_memory"


def test_p49_memory_files_are_bounded(attack: Attack) -> None:
    result = attack("""
        import time
        files = []
        for _ in range(30):
            files.append(os.memfd_create("flood"))
            for _ in range(10):
                os.write(files[-1], bytes(1 << 20))
            time.sleep(0.01)
        print("all 300 MB")
    """)
    assert "all 300 MB" not in result.stdout


def test_p50_shared_segments_that_outlive_a_process_are_refused(attack: Attack) -> None:
    result = attack("""
        key = libc.shmget(0, 1 << 20, 0o1600)
        print("refused" if key < 0 else "made")
        if key >= 0:
            libc.shmctl(key, 0, None)
    """)
    assert result.stdout == "refused\n"


@pytest.mark.parametrize("folder", [".", "/tmp", "/dev/shm"], ids=["p29_work", "p29_tmp", "p51_shm"])
def test_a_disk_flood_ends_at_the_limit(attack: Attack, folder: str) -> None:
    result = attack(f"""
        place = os.path.join({folder!r}, f"flood-{{os.getpid()}}")
        def flood():
            with open(place, "wb", buffering=0) as file:
                for _ in range(64):
                    file.write(bytes(1 << 20))
        print(tried(flood), os.path.getsize(place) >> 20)
        os.unlink(place)
    """)
    outcome, written = result.stdout.split()
    assert outcome in ("ENOSPC", "EFBIG")
    assert int(written) <= LIMITS.disk_bytes // MiB


def test_p29_three_folders_share_one_limit(attack: Attack) -> None:
    result = attack("""
        total = 0
        for folder in (".", "/tmp", "/dev/shm"):
            place = os.path.join(folder, "share")
            try:
                with open(place, "wb", buffering=0) as file:
                    for _ in range(12):
                        total += file.write(bytes(1 << 20))
            except OSError:
                pass
        for folder in (".", "/tmp", "/dev/shm"):
            os.unlink(os.path.join(folder, "share"))
        print(total >> 20)
    """)
    assert int(result.stdout) <= LIMITS.disk_bytes // MiB


def test_p19_a_flood_of_empty_files_ends_at_the_limit(attack: Attack) -> None:
    result = attack("""
        made = 0
        try:
            for made in range(5000):
                os.close(os.open(f"empty-{made}", os.O_CREAT))
        except OSError as error:
            print(errno.errorcode[error.errno], end=" ")
        print(made)
    """)
    outcome, made = result.stdout.split()
    assert outcome == "ENOSPC"
    assert int(made) < LIMITS.disk_files


def test_p52_pipes_cannot_grow_without_bound(attack: Attack) -> None:
    result = attack("""
        import fcntl, resource
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        pipes = large = 0
        try:
            for pipes in range(1200):
                read, write = os.pipe()
                if pipes < 120 and tried(lambda: fcntl.fcntl(write, 1031, 1 << 20)) == "done":
                    large += 1
        except OSError:
            pass
        print(pipes, large)
    """)
    pipes, large = map(int, result.stdout.split())
    assert pipes <= 512
    assert large <= 64


def test_p55_memory_cannot_be_locked(attack: Attack) -> None:
    result = attack("""
        block = ctypes.create_string_buffer(1 << 20)
        print("locked" if libc.mlock(block, 1 << 20) == 0 else "refused")
        libc.mmap.restype = ctypes.c_void_p
        place = libc.mmap(None, ctypes.c_size_t(1 << 20), 3, 0x2022, -1, ctypes.c_long(0))  # MAP_LOCKED
        print("refused" if place == ctypes.c_void_p(-1).value else "locked")
    """)
    assert result.stdout == "refused\nrefused\n"


def test_p17_no_core_file_can_be_made(attack: Attack) -> None:
    result = attack("""
        import resource
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
        except (OSError, ValueError):
            pass
        print(resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1])
    """)
    assert result.stdout == "(0, 0) 0\n"
