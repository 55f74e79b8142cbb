"""Attacks with memory and disk: of the program's own, of the kernel's, of files, and of what others share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...protocol.limits import MiB
from ..suite import LeftOut, Suite, at_most, holds, one_of, same
from ..target import LIMITS

if TYPE_CHECKING:
    from ..target import Target

SUITE = Suite("memory")


@SUITE.probe("P48", tried="touch 300 MB, the limit being 96 MiB", expected="out of memory", wall="memory")
def touching_memory_beyond_the_limit_is_out_of_memory(target: Target) -> None:
    result = target.run("""
        import time
        kept = []
        for _ in range(30):
            kept.append(bytearray(os.urandom(1)) * (10 << 20))
            time.sleep(0.01)
        print("all 300 MB")
    """)
    same((result.reason, result.exit_code, result.stdout), ("out_of_memory", 137, ""))


@SUITE.probe("P48", tried="touch 60 MB in each of five children", expected="out of memory", wall="memory")
def children_share_one_limit(target: Target) -> None:
    result = target.run("""
        import time
        for _ in range(5):
            if os.fork() == 0:
                kept = [bytearray(b"x") * (1 << 20) for _ in range(60) if time.sleep(0.005) is None]
                time.sleep(0.4)
                os._exit(0)
        failed = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(5)]
        sys.exit(any(failed))
    """)
    same(result.reason, "out_of_memory")


@SUITE.probe("P49", tried="write 300 MB to memory files", expected="it does not come to that", wall="memory")
def memory_files_are_bounded(target: Target) -> None:
    result = target.run("""
        import time
        files = []
        for _ in range(30):
            files.append(os.memfd_create("flood"))
            for _ in range(10):
                os.write(files[-1], bytes(1 << 20))
            time.sleep(0.01)
        print("all 300 MB")
    """)
    holds("all 300 MB" not in result.stdout, "all of it was written")


@SUITE.probe("P50", tried="make a System V shared memory segment", expected="EPERM", wall="seccomp")
def shared_segments_that_outlive_a_process_are_refused(target: Target) -> None:
    result = target.run("""
        key = libc.shmget(0, 1 << 20, 0o1600)
        print("refused" if key < 0 else "made")
        if key >= 0:
            libc.shmctl(key, 0, None)
    """)
    same(result.stdout, "refused\n")


@SUITE.probe_each(
    "P29", {"P29 .": ".", "P29 /tmp": "/tmp", "P51 /dev/shm": "/dev/shm"},
    tried="write 64 MB to a file in {}, the limit being 16 MiB", expected="ENOSPC", wall="disk",
)  # fmt: skip
def a_disk_flood_ends_at_the_limit(target: Target, folder: str) -> None:
    result = target.run(f"""
        place = os.path.join({folder!r}, f"flood-{{os.getpid()}}")
        def flood():
            with open(place, "wb", buffering=0) as file:
                for _ in range(64):
                    file.write(bytes(1 << 20))
        print(tried(flood), os.path.getsize(place) >> 20)
        os.unlink(place)
    """)
    outcome, written = result.stdout.split()
    one_of(outcome, ("ENOSPC", "EFBIG"))
    at_most(int(written), LIMITS.disk_bytes // MiB)


@SUITE.probe("P29", tried="write 12 MB in each of three folders", expected="one limit for all", wall="disk")
def three_folders_share_one_limit(target: Target) -> None:
    result = target.run("""
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
    at_most(int(result.stdout), LIMITS.disk_bytes // MiB)


@SUITE.probe_each(
    "P19",
    {
        "empty files": "os.close(os.open(f'thing-{made}', os.O_CREAT))",
        "folders": "os.mkdir(f'thing-{made}')",
        "links": "os.symlink('nowhere', f'thing-{made}')",
        "names of one file": "os.link('one', f'thing-{made}')",
        "pipes": "os.mkfifo(f'thing-{made}')",
        "sockets": "socket.socket(socket.AF_UNIX).bind(f'thing-{made}')",
        "files without a name": "kept.append(os.open('.', os.O_TMPFILE | os.O_RDWR))",
    },
    tried="make 1200 {}, the limit being 1000", expected="ENOSPC", wall="disk",
)  # fmt: skip
def a_flood_of_entries_ends_at_the_limit(target: Target, action: str) -> None:
    result = target.run(f"""
        import resource
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        open("one", "w").close()
        made, kept = 0, []
        try:
            for made in range(1200):
                {action}
        except OSError as error:
            print(errno.errorcode[error.errno], end=" ")
        else:
            print("done", end=" ")
        print(made)
    """)
    outcome, made = result.stdout.split()
    # What has no name needs a descriptor, of which there may be fewer.
    one_of(outcome, ("ENOSPC", "EMFILE"))
    at_most(int(made), LIMITS.disk_files - 1)


@SUITE.probe("P52", tried="make 1200 pipes, 120 of them of 1 MiB", expected="at most 512, 64 of them", wall="limits")
def pipes_cannot_grow_without_bound(target: Target) -> None:
    result = target.run("""
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
    at_most(pipes, 512)
    at_most(large, 64)


@SUITE.probe("P55", tried="lock a mebibyte into memory", expected="refused", wall="limits")
def memory_cannot_be_locked(target: Target) -> None:
    result = target.run("""
        block = ctypes.create_string_buffer(1 << 20)
        print("locked" if libc.mlock(block, 1 << 20) == 0 else "refused")
        libc.mmap.restype = ctypes.c_void_p
        place = libc.mmap(None, ctypes.c_size_t(1 << 20), 3, 0x2022, -1, ctypes.c_long(0))  # MAP_LOCKED
        print("refused" if place == ctypes.c_void_p(-1).value else "locked")
    """)
    same(result.stdout, "refused\nrefused\n")


@SUITE.probe("P17", tried="raise the limits for core files and message queues", expected="both are 0", wall="limits")
def no_core_file_can_be_made(target: Target) -> None:
    result = target.run("""
        import resource
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
        except (OSError, ValueError):
            pass
        print(resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1])
    """)
    same(result.stdout, "(1, 1) 0\n")


@SUITE.probe(
    "P48", tried="fill 24 MB, and have eight forks write over the pages that they share", expected="out of memory",
    wall="memory",
)  # fmt: skip
def pages_that_forks_write_over_count(target: Target) -> None:
    result = target.run("""
        import mmap, time
        block = mmap.mmap(-1, 24 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block.write(b"x" * (24 << 20))
        for _ in range(8):
            if os.fork() == 0:
                for at in range(0, 24 << 20, 4096):
                    block[at] = 121
                time.sleep(0.3)
                os._exit(0)
        failed = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(8)]
        print("all 216 MB" if not any(failed) else failed)
    """)
    same((result.reason, result.stdout), ("out_of_memory", ""))


@SUITE.probe(
    "P48", tried="raise the limit of the stack to 256 MiB, and fill 150 MB of it", expected="it does not grow so far",
    wall="limits",
)  # fmt: skip
def the_stack_cannot_grow_without_bound(target: Target) -> None:
    result = target.run("""
        import resource
        try:
            resource.setrlimit(resource.RLIMIT_STACK, (256 << 20, 256 << 20))
        except (OSError, ValueError):
            pass
        fill = "import ctypes; start = [line for line in open('/proc/self/maps') if '[stack]' in line][0]"
        fill += "; print('began', flush=True); ctypes.memset(int(start.split('-')[0], 16) - (150 << 20), 1, 150 << 20)"
        # The limit counts from the next program on.
        os.execv(sys.executable, [sys.executable, "-c", fill + "; print('all 150 MB')"])
    """)
    same(result.stdout, "began\n")
    one_of((result.reason, result.signal), (("signalled", "SIGSEGV"), ("out_of_memory", "SIGKILL")))


@SUITE.probe_each(
    "P51",
    {
        "through a mapping": "import mmap; os.ftruncate(file, 8 << 20); block = mmap.mmap(file, 8 << 20); block.write(bytes(8 << 20))",
        "by asking for room": "os.posix_fallocate(file, 0, 8 << 20)",
        "and leave it without a name": "os.write(file, bytes(8 << 20))",
    },
    tried="fill eight files of 8 MB in /dev/shm {}, the limit being 16 MiB", expected="ENOSPC, or death by SIGBUS",
    wall="disk",
)  # fmt: skip
def shared_memory_ends_at_the_limit(target: Target, fill: str) -> None:
    result = target.run(f"""
        done = 0
        def flood():
            global done
            for done in range(8):
                file = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)
                {fill}
            done = 8
        print(tried(flood), done)
    """)
    if (result.reason, result.signal) != ("signalled", "SIGBUS"):
        outcome, done = result.stdout.split()
        same(outcome, "ENOSPC")
        at_most(int(done), LIMITS.disk_bytes // (8 * MiB))


@SUITE.probe_each(
    "P49",
    {
        "by asking for room": "os.posix_fallocate(file, 0, 10 << 20); kept.append(file)",
        "on their way through a socket": "os.write(file, bytes(10 << 20)); send(file)",
    },
    tried="fill 300 MB of memory files that nobody maps, {}", expected="it does not come to that", wall="memory",
)  # fmt: skip
def memory_files_that_nobody_maps_are_bounded(target: Target, fill: str) -> None:
    result = target.run(f"""
        import array, time
        kept = []
        one, other = socket.socketpair()
        def send(file):
            one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))])
            os.close(file)
        for _ in range(30):
            file = os.memfd_create("flood")
            {fill}
            time.sleep(0.01)
        print("all 300 MB")
    """)
    holds("all 300 MB" not in result.stdout, "all of it was filled")
    holds(result.reason == "out_of_memory" or "memfd_create" in result.stderr, f"it failed otherwise: {result.stderr}")


@SUITE.probe_each(
    "P55", {"a mapping": "mapped()", "a memory file": "os.memfd_create('large', os.MFD_HUGETLB)"},
    tried="take {} of the host's large pages, which no limit of memory counts", expected="refused", wall="seccomp",
)  # fmt: skip
def large_pages_of_the_hosts_cannot_be_taken(target: Target, action: str) -> None:
    result = target.run(f"""
        libc.mmap.restype = ctypes.c_void_p
        def mapped():
            ctypes.set_errno(0)
            place = libc.mmap(None, ctypes.c_size_t(2 << 20), 3, 0x40022, -1, ctypes.c_long(0))  # MAP_HUGETLB
            if place == ctypes.c_void_p(-1).value:
                raise OSError(ctypes.get_errno(), "no")
        print(tried(lambda: {action}))
    """)
    # ENOMEM only says that the host keeps none at this moment.
    one_of(result.stdout, ("EPERM\n", "EINVAL\n", "ENOSYS\n", "EOPNOTSUPP\n"))


@SUITE.probe(
    "P17", tried="crash with the limit for core files at each value that can be had", expected="no core is dumped",
    wall="limits",
)  # fmt: skip
def no_crash_dumps_a_core(target: Target) -> None:
    # Where the host pipes cores to a program of its own, that limit does not count: core(5). The kernel tells whoever waits.
    result = target.run("""
        import resource, signal
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        # Where one is dumped after all, it holds no memory.
        tried(lambda: open("/proc/self/coredump_filter", "w").write("0"))
        dumped = []
        for limit in (hard, 1, 0):
            try:
                resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
            except (OSError, ValueError):
                pass
            if os.fork() == 0:
                os.kill(os.getpid(), signal.SIGQUIT)
            dumped.append(os.WCOREDUMP(os.wait()[1]))
        print(dumped, [name for name in os.listdir(".") if name.startswith("core")])
    """)
    same(result.stdout, "[False, False, False] []\n")


@SUITE.probe(
    "P19", tried="hang 2.6 MB of attributes on 900 files, the limit being 1000 entries", expected="refused, or ENOSPC",
    wall="disk",
)  # fmt: skip
def attributes_of_files_count(target: Target) -> None:
    result = target.run("""
        hung = 0
        def hang():
            global hung
            for number in range(900):
                open(f"hook-{number}", "w").close()
                os.setxattr(f"hook-{number}", "user.weight", bytes(3000))
                hung += 3000
        print(tried(hang), hung)
    """)
    outcome, hung = result.stdout.split()
    one_of(outcome, ("ENOSPC", "EOPNOTSUPP", "ENOTSUP", "EPERM", "ENOSYS"))
    at_most(int(hung), LIMITS.disk_files * 1024)


@SUITE.probe(
    "P60",
    tried="write 8 MB to files and have the kernel write them back",
    expected="nothing goes to a disk",
    wall="disk",
)
def nothing_is_written_to_a_disk(target: Target) -> None:
    result = target.run("""
        for place in (".", "/tmp"):
            file = os.open(os.path.join(place, f"dirty-{os.getpid()}"), os.O_CREAT | os.O_RDWR)
            os.write(file, bytes(4 << 20))
            os.fsync(file)
            os.unlink(os.path.join(place, f"dirty-{os.getpid()}"))
        print([line for line in open("/proc/self/io") if line.startswith("write_bytes")])
    """)
    same(result.stdout, "['write_bytes: 0\\n']\n")


@SUITE.probe(
    "P61", tried="ask the kernel to put 8 MB of memory out to swap, where no limit counts it", expected="none is swapped",
    wall="memory",
)  # fmt: skip
def memory_cannot_be_put_out_to_swap(target: Target) -> None:
    if len(Path("/proc/swaps").read_text(encoding="utf-8").splitlines()) < 2:
        raise LeftOut("this host has no swap")
    result = target.run("""
        import mmap
        block = mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block.write(os.urandom(8 << 20))
        tried(lambda: block.madvise(21))  # MADV_PAGEOUT
        print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSwap")])
    """)
    same(result.stdout, "['0']\n")
