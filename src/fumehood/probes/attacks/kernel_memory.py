"""Attacks with memory that is the kernel's: page tables, shared pages that nobody maps, timers, watches, descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...protocol.limits import Limits, MiB
from ..host_side import bystander, inotify_instance, refused_meanwhile
from ..suite import Suite, at_most, holds, same
from ..target import LIMITS

if TYPE_CHECKING:
    from ...protocol.execution import ExecutionResult
    from ..target import Target

SUITE = Suite("kernel_memory")

_SMALL = Limits(wall_seconds=10, memory_bytes=64 * MiB, pids=48)
_NEEDS_A_CGROUP = {"sampled": "no sample sees this memory"}


@SUITE.probe_each(
    "P49", {"anonymous memory": "-1", "/dev/zero": "os.open('/dev/zero', os.O_RDWR)"},
    tried="fill 300 MB of shared pages of {}, and let go of them one by one", expected="out of memory", wall="memory",
    open_in=_NEEDS_A_CGROUP,
)  # fmt: skip
def shared_pages_that_were_let_go_still_count(target: Target, source: str) -> None:
    # The pages leave the process's tables, and with them what /proc calls its memory, but stay allocated.
    result = target.run(
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
        limits=_SMALL,
    )
    same((result.reason, result.stdout), ("out_of_memory", ""))


@SUITE.probe(
    "P56", tried="fill 240 MB of page tables, by reading one byte in every 2 MiB", expected="out of memory",
    wall="memory",
)  # fmt: skip
def page_tables_count(target: Target) -> None:
    # Reading maps the page of zeros, which is nobody's, by tables that are somebody's.
    result = target.run(
        """
        pages = 60_000
        libc.mmap.restype = ctypes.c_void_p
        place = libc.mmap(None, ctypes.c_size_t(pages << 21), 1, 0x4022, -1, ctypes.c_long(0))
        libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(pages << 21), 15)
        import time
        for page in range(pages):
            ctypes.c_char.from_address(place + (page << 21)).value
            if page % 3000 == 0:
                time.sleep(0.01)
        print("all 240 MB")
        """,
        limits=_SMALL,
    )
    same((result.reason, result.stdout), ("out_of_memory", ""))


@SUITE.probe(
    "P52", tried="leave 200 MB waiting in Unix sockets", expected="out of memory", wall="memory",
    open_in=_NEEDS_A_CGROUP,
)  # fmt: skip
def what_waits_in_sockets_counts(target: Target) -> None:
    result = target.run(
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
        limits=_SMALL,
    )
    same((result.reason, result.stdout), ("out_of_memory", ""))


@SUITE.probe("P54", tried="use up the watchers that one user may have", expected="the host's own go on", wall="seccomp")
def a_flood_of_watchers_leaves_the_host_its_own(target: Target) -> None:
    with refused_meanwhile(inotify_instance) as refused:
        target.run("""
            import resource, time
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 9000), min(hard, 9000)))
            for _ in range(8000):
                if libc.inotify_init() < 0:
                    break
            time.sleep(0.3)
        """)
    holds(not refused, "the host was refused a watcher")


@SUITE.probe_each(
    "P54",
    {
        "events": "os.eventfd(0)",
        "pipes": "os.pipe()",
        "epoll instances": "kept.append(select.epoll())",
        "sockets": "kept.append(socket.socket())",
        "open files": "os.open('/dev/null', os.O_RDONLY)",
        "timers": "timer()",
    },
    tried="make 2500 {}", expected="no more than about 1000", wall="limits",
)  # fmt: skip
def a_flood_of_kernel_objects_ends(target: Target, action: str) -> None:
    result = target.run(f"""
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
    at_most(int(result.stdout), 1025)


@SUITE.probe("P54", tried="raise each limit of a process's once more", expected="refused", wall="limits")
def limits_once_lowered_stay_low(target: Target) -> None:
    result = target.run("""
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
    same(result.stdout, "tried\n")


@SUITE.probe_each(
    "P52",
    {
        "a stream on the loopback": "tcp()",
        "datagrams on the loopback": "udp()",
    },
    tried="leave 200 MB waiting in {}, the limit being 64 MiB", expected="no more than the limit", wall="memory",
    open_in=_NEEDS_A_CGROUP,
)  # fmt: skip
def what_waits_in_the_network_counts(target: Target, send: str) -> None:
    result = target.run(
        f"""
        kept = []
        def drained(into):
            size = 0
            into.setblocking(False)
            while True:
                try:
                    piece = into.recv(1 << 20)
                except BlockingIOError:
                    return size
                if not piece:
                    return size
                size += len(piece)
        def tcp():
            server, sent = socket.create_server(("127.0.0.1", 0)), 0
            while sent < 200 << 20 and len(kept) < 450:
                kept.append(socket.create_connection(server.getsockname()))
                kept.append(server.accept()[0])
                kept[-2].setblocking(False)
                try:
                    while True:
                        sent += kept[-2].send(bytes(65536))
                except BlockingIOError:
                    pass
            return sent
        def udp():
            out, sent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0
            while sent < 200 << 20 and len(kept) < 900:
                kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                kept[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
                kept[-1].bind(("127.0.0.1", 0))
                for _ in range(kept[-1].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 66000 + 1):
                    sent += out.sendto(bytes(60000), kept[-1].getsockname())
            # What found no room was dropped, and nobody told the sender.
            return sum(map(drained, kept))
        print({send} >> 20)
        """,
        limits=_SMALL,
    )
    # A little is on its way, outside of both sockets.
    _is_bounded(result, 80)


@SUITE.probe(
    "P54", tried="hold 110000 locks on parts of files, 20 MB of the kernel's, the limit being 20 MiB",
    expected="it does not come to that", wall="memory",
)  # fmt: skip
def locks_on_files_are_bounded(target: Target) -> None:
    result = target.run(
        """
        import fcntl
        held = 0
        try:
            for name in range(110):
                file = os.open(f"locked-{name}", os.O_CREAT | os.O_RDWR)
                # Backwards, with a gap between each two: none is merged, and none is looked for.
                for at in range(1000, 0, -1):
                    fcntl.lockf(file, fcntl.LOCK_EX, 1, 2 * at)
                    held += 1
        except OSError:
            pass
        print(held)
        """,
        limits=Limits(wall_seconds=10, memory_bytes=20 * MiB, pids=16),
    )
    _is_bounded(result, 100_000)


@SUITE.probe(
    "P54", tried="give 900 folders two lists of 8000 rights each, 110 MB of the kernel's, the limit being 64 MiB",
    expected="it does not come to that", wall="memory",
)  # fmt: skip
def lists_of_rights_are_bounded(target: Target) -> None:
    # acl(5) in the form of posix_acl_xattr.h: owner, the same user 8000 times, group, mask, others.
    result = target.run(
        """
        import struct
        def entries(tag, rights, who=0xFFFFFFFF, count=1):
            return struct.pack("<HHI", tag, rights, who) * count
        rights = struct.pack("<I", 2) + entries(1, 7) + entries(2, 7, os.geteuid(), 8000)
        rights += entries(4, 5) + entries(16, 7) + entries(32, 5)
        held = 0
        # Without walls /tmp may be on a disk, whose lists are short.
        base = "." if os.getcwd() == "/work" else "/dev/shm"
        places = [os.path.join(base, f"rights-{os.getpid()}-{number}") for number in range(900)]
        try:
            for place in places:
                os.mkdir(place)
                for kind in ("access", "default"):
                    os.setxattr(place, f"system.posix_acl_{kind}", rights)
                    held += len(rights)
        except OSError:
            pass
        for place in places:
            if os.path.isdir(place):
                os.rmdir(place)
        print(held >> 20)
        """,
        limits=_SMALL,
    )
    _is_bounded(result, 64)


@SUITE.probe(
    "P56", tried="cut the address space of five processes into 65000 mappings each, 64 MB of the kernel's",
    expected="out of memory", wall="memory", open_in=_NEEDS_A_CGROUP,
)  # fmt: skip
def mappings_count(target: Target) -> None:
    result = target.run(
        """
        import time
        libc.mmap.restype = ctypes.c_void_p
        for _ in range(5):
            if os.fork() == 0:
                place = libc.mmap(None, ctypes.c_size_t(65_000 << 12), 0, 0x4022, -1, ctypes.c_long(0))
                for page in range(0, 64_000, 2):
                    libc.mprotect(ctypes.c_void_p(place + (page << 12)), ctypes.c_size_t(4096), 1)
                time.sleep(0.3)
                os._exit(0)
        print([os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(5)])
        """,
        limits=Limits(wall_seconds=10, memory_bytes=48 * MiB, pids=16),
    )
    same((result.reason, result.stdout), ("out_of_memory", ""))


_PIPES = """
import fcntl, os
kept = []
for _ in range(100):
    kept += os.pipe()
    try:
        fcntl.fcntl(kept[-1], 1031, 1 << 20)
    except OSError:
        pass
"""


_ONE_USER = {"user": "an ordinary user's sandboxes have that user's own number, by which the kernel counts"}


@SUITE.probe(
    "P52", tried="use up the pipe memory that one user may have", expected="others' pipes stay whole", wall="own-user",
    open_in=_ONE_USER,
)  # fmt: skip
def a_neighbours_pipes_stay_whole(target: Target) -> None:
    look = "import fcntl, os\nprint(fcntl.fcntl(os.pipe()[1], 1032))"
    with target.session(limits=LIMITS) as session:
        session.run(_PIPES)
        same(bystander(look), "65536\n")
        same(target.run(look).stdout, "65536\n")


_SEND = """
import array, errno, socket
one, other = socket.socketpair()
try:
    one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1]))])
    print("sent")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
_IN_FLIGHT = """
import array, socket
kept = []
try:
    for _ in range(12):
        one, other = socket.socketpair()
        kept.append(other)
        one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1] * 250))])
        one.close()
except OSError:
    pass
"""


@SUITE.probe(
    "P52", tried="have 3000 descriptors on their way through sockets, more than one user may have",
    expected="programs of the host's can send theirs, and sandboxes start", wall="own-user",
)  # fmt: skip
def a_neighbour_can_still_send_descriptors(target: Target) -> None:
    with target.session(limits=LIMITS) as session:
        session.run(_IN_FLIGHT)
        same(bystander(_SEND), "sent\n")
        # Descriptors are how a sandbox is started, too.
        same(target.run("print('started')").stdout, "started\n")


@SUITE.probe(
    "P52", tried="have 3000 descriptors on their way through sockets, more than one user may have",
    expected="another sandbox can send its own", wall="own-user", open_in=_ONE_USER,
)  # fmt: skip
def another_sandbox_can_still_send_descriptors(target: Target) -> None:
    with target.session(limits=LIMITS) as session:
        session.run(_IN_FLIGHT)
        # With a limit as the first one's, where that has none of its own.
        lower = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (512, resource.getrlimit(7)[1]))\n"
        # Without walls anybody of that user's is another sandbox; root's own may send whatever others did.
        same(target.run(lower + _SEND).stdout if target.walled else bystander(lower + _SEND), "sent\n")


@SUITE.probe(
    "P63", tried="have the kernel compile a program of 4000 instructions, as a filter of a socket", expected="EPERM",
    wall="seccomp",
)  # fmt: skip
def a_socket_cannot_bring_a_program_into_the_kernel(target: Target) -> None:
    # All users of the host together may have so much compiled (bpf_jit_limit), and no group's memory counts it.
    result = target.run("""
        import struct
        # BPF_LD | BPF_IMM 4000 times, then BPF_RET | BPF_K: linux/filter.h.
        code = struct.pack("HBBI", 0, 0, 0, 1) * 4000 + struct.pack("HBBI", 6, 0, 0, 0xFFFF)
        held = ctypes.create_string_buffer(code)
        program = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(held))
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        print({tried(lambda: one.setsockopt(socket.SOL_SOCKET, option, program)) for option in (26, 51)})
    """)
    same(result.stdout, "{'EPERM'}\n")


@SUITE.probe(
    "P54", tried="join 1500 multicast groups by one socket, in memory that no group counts", expected="refused",
    wall="memory",
)  # fmt: skip
def a_flood_of_multicast_groups_ends(target: Target) -> None:
    result = target.run("""
        import struct
        one, joined = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM), 0
        # The loopback is number 1 of every network namespace's.
        try:
            for joined in range(1501):
                group = struct.pack("!HHIII", 0xFF02, 0, 0, 7, joined)
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("I", 1))
        except OSError:
            pass
        print(joined)
    """)
    at_most(int(result.stdout), 64)


def _is_bounded(result: ExecutionResult, most: int) -> None:
    """Fall where a program got more than this, by what it printed; ending it for its memory is as good."""
    if result.reason != "out_of_memory":
        at_most(int(result.stdout), most)
