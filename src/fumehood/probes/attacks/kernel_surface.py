"""Attacks on the kernel by system call. Arguments are such that without walls the answer is another one, for root or for anyone."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from ...sandbox.syscall_numbers import NUMBERS
from ...sandbox.syscalls import ALLOWED, CHECKED, HOSTILE, PROFILES, REFUSED, UNSUPPORTED
from ..host_side import inheritable
from ..suite import LeftOut, Suite, holds, one_of, same

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..target import Target

SUITE = Suite("kernel_surface")
# Where another kernel stands between, it answers otherwise.
_WAYS = ("cold", "warm", "unwalled")

_PROGRAM = """
def cloned(flags):
    answer = raw(56, 220, flags | 17, 0, 0, 0, 0)
    if answer == "done" and os.getpid() != parent:
        os._exit(0)
    return answer
parent = os.getpid()
answer = {call}
if os.getpid() != parent:
    os._exit(0)
print(answer)
"""

#: Numbers are x86-64's and arm64's.
_REFUSED = {
    "P04 name_to_handle_at": "raw(303, 264, -100, 1, 0, 0, 0xffff)",
    "P09 mount": "raw(165, 40, 1, 1, 1, 0, 0)",
    "P09 open_tree": "raw(428, 428, -1, 0, -1)",
    "P09 mount_setattr": "raw(442, 442, -1, 0, 0xffff0000, 0, 0)",
    "P09 fsopen": "raw(430, 430, 1, 0)",
    "P09 fsconfig": "raw(431, 431, -1, 0, 0, 0, 0)",
    "P09 fsmount": "raw(432, 432, -1, 0, 0)",
    "P09 fspick": "raw(433, 433, -1, 1, 0)",
    "P09 move_mount": "raw(429, 429, -1, 1, -1, 1, 0)",
    "P10 umount": "raw(166, 39, 1, 0xffff)",
    "P10 chroot": "raw(161, 51, 1)",
    "P28 mq_open": "raw(240, 180, 0, 64, 0o600, 0)",
    "P28 mq_unlink": "raw(241, 181, 0)",
    "P28 mq_timedsend": "raw(242, 182, -1, 0, 0, 0, 0)",
    "P28 mq_timedreceive": "raw(243, 183, -1, 0, 0, 0, 0)",
    "P28 mq_notify": "raw(244, 184, -1, 0)",
    "P28 mq_getsetattr": "raw(245, 185, -1, 0, 0)",
    "P37 clone into a user namespace": "cloned(0x10000000)",
    "P37 clone into a time namespace": "cloned(0x10000000 | 0x80)",
    "P37 clone into a process namespace": "cloned(0x20000000)",
    "P37 clone into a network namespace": "cloned(0x40000000)",
    "P37 clone into a mount namespace of a new user's": "cloned(0x10000000 | 0x20000)",
    "P37 clone into a cgroup namespace of a new user's": "cloned(0x10000000 | 0x2000000)",
    "P37 clone into a host name namespace of a new user's": "cloned(0x10000000 | 0x4000000)",
    "P37 clone into an ipc namespace of a new user's": "cloned(0x10000000 | 0x8000000)",
    "P37 clone into a process namespace of a new user's": "cloned(0x10000000 | 0x20000000)",
    "P37 clone into a network namespace of a new user's": "cloned(0x10000000 | 0x40000000)",
    "P42 clock_settime": "raw(227, 112, 0, 1)",
    "P42 settimeofday": "raw(164, 170, 1, 0)",
    "P42 adjtimex": "raw(159, 171, 1)",
    "P42 clock_adjtime": "raw(305, 266, 99, 1)",
    "P44 ioprio_set": "raw(251, 30, 1, 0, (2 << 13) | 7)",
    "P50 shmget": "raw(29, 194, 0, 1, 0)",
    "P50 shmat": "raw(30, 196, -1, 0, 0)",
    "P50 shmctl": "raw(31, 195, -1, 99, 0)",
    "P50 shmdt": "raw(67, 197, 1)",
    "P50 msgget": "raw(68, 186, 0, 0)",
    "P50 msgsnd": "raw(69, 189, -1, 0, 0, 0)",
    "P50 msgrcv": "raw(70, 188, -1, 0, 0, 0, 0)",
    "P50 msgctl": "raw(71, 187, -1, 99, 0)",
    "P50 semget": "raw(64, 190, 0, 1, 0)",
    "P50 semop": "raw(65, 193, -1, 0, 0)",
    "P50 semtimedop": "raw(220, 192, -1, 0, 0, 0)",
    "P50 semctl": "raw(66, 191, -1, 0, 99, 0)",
    "P52 vmsplice": "raw(278, 75, -1, 0, 0, 0)",
    "P54 fanotify_init": "raw(300, 262, 0x200, 0)",
    "P54 fanotify_mark": "raw(301, 263, -1, 0, 0, 0, 0)",
    "P54 inotify_init1": "raw(294, 26, 0xfff)",
    "P54 inotify_add_watch": "raw(254, 27, -1, 0, 0)",
    "P54 inotify_rm_watch": "raw(255, 28, -1, 0)",
    "P55 memfd_secret": "raw(447, 447, 0xffff)",
    "P55 migrate_pages": "raw(256, 238, os.getpid(), 0, 0, 0)",
    "P55 move_pages": "raw(279, 239, 0, 0, 0, 0, 0, 0)",
    "P55 set_mempolicy": "raw(238, 237, 99, 0, 0)",
    "P55 mbind": "raw(237, 235, 1, 1, 99, 0, 0, 0)",
    "P58 add_key": "raw(248, 217, 1, 1, 0, 0, 0)",
    "P58 request_key": "raw(249, 218, 1, 1, 0, 0)",
    "P62 io_uring_setup": "raw(425, 425, 1, 0)",
    "P62 io_uring_enter": "raw(426, 426, -1, 0, 0, 0, 0, 0)",
    "P62 io_uring_register": "raw(427, 427, -1, 0, 0, 0)",
    "P63 bpf": "raw(321, 280, 0, 1, 1 << 20)",
    "P63 perf_event_open": "raw(298, 241, 1, 0, -1, -1, 0xffff)",
    "P64 userfaultfd": "raw(323, 282, 1 | 4)",
    "P65 unshare of a user namespace": "raw(272, 97, 0x10000000)",
    "P65 unshare of user, network and mounts": "raw(272, 97, 0x10000000 | 0x40000000 | 0x20000)",
    "P65 unshare of user and mounts": "raw(272, 97, 0x10000000 | 0x20000)",
    "P65 unshare of user and time": "raw(272, 97, 0x10000000 | 0x80)",
    "P65 unshare of user and cgroup": "raw(272, 97, 0x10000000 | 0x2000000)",
    "P65 unshare of user and host name": "raw(272, 97, 0x10000000 | 0x4000000)",
    "P65 unshare of user and ipc": "raw(272, 97, 0x10000000 | 0x8000000)",
    "P65 unshare of user and processes": "raw(272, 97, 0x10000000 | 0x20000000)",
    "P65 unshare of user and network": "raw(272, 97, 0x10000000 | 0x40000000)",
    "P65 unshare of files": "raw(272, 97, 0x400)",
    "P65 unshare of the current folder": "raw(272, 97, 0x200)",
    "P65 unshare of semaphores": "raw(272, 97, 0x40000)",
    "P66 setns": "raw(308, 268, -1, 0)",
    "P66 setns by a pidfd": "raw(308, 268, os.pidfd_open(os.getpid()), 0x10000000)",
    "P68 no random addresses": "raw(135, 92, 0x0040000)",
    "P68 read implies exec": "raw(135, 92, 0x0400000)",
    "P71 keyctl": "raw(250, 219, 999, 0, 0, 0, 0)",
    "P71 join a session keyring": "raw(250, 219, 1, 0, 0, 0, 0)",
    "P71 keyctl describing the user's keyring": "raw(250, 219, 0, -4, 1, 0, 0)",
    "P73 process_madvise": "raw(440, 440, -1, 0, 0, 0, 0)",
    "P73 process_mrelease": "raw(448, 448, -1, 0)",
    "P73 seccomp listener": "raw(317, 277, 1, 8, 1)",
    "P73 ptrace": "raw(101, 117, 0, 0, 0, 0)",
    "P73 ptrace to seize its parent": "raw(101, 117, 0x4206, os.getppid(), 0, 1 << 31)",
    "P73 process_vm_readv": "raw(310, 270, os.getpid(), 0, 0, 0, 0, 0)",
    "P73 process_vm_writev": "raw(311, 271, os.getpid(), 0, 0, 0, 0, 0)",
    "P73 pidfd_getfd": "raw(438, 438, -1, 0, 0)",
    "P73 kcmp": "raw(312, 272, os.getpid(), os.getpid(), 0, 0, 0)",
    "P60 write out all disks": "raw(162, 81)",
    "P60 write out one disk": "raw(306, 267, -1)",
    "P78 pivot_root": "raw(155, 41, 1, 1)",
    "P78 sethostname": "raw(170, 161, 1, 1 << 20)",
    "P78 setdomainname": "raw(171, 162, 1, 1 << 20)",
    **({"P64 modify_ldt": "raw(154, 0, 0, 0, 0)"} if platform.machine() == "x86_64" else {}),
}


@SUITE.probe_each("P78", _REFUSED, tried="call the kernel: {}", expected="EPERM", wall="seccomp", only_ways=_WAYS)
def the_call_is_refused(target: Target, call: str) -> None:
    same(target.run(_PROGRAM.format(call=call)).stdout, "EPERM\n")


@SUITE.probe_each(
    "P37",
    {
        "nothing": "raw(435, 435, 0, 0)",
        "into a new user namespace": "clone3(0x10000000)",
        "into a process namespace of a new user's": "clone3(0x30000000)",
        "into another cgroup": "clone3(1 << 33, cgroup=os.open('/', os.O_RDONLY))",
        "as a child of its parent's": "clone3(0x8000)",
        "with a number of its choice": "clone3(0, numbers=1)",
    },
    tried="clone3, whose flags no filter sees: {}", expected="ENOSYS", wall="seccomp", only_ways=_WAYS,
)  # fmt: skip
def clone3_is_not_there(target: Target, call: str) -> None:
    result = target.run(f"""
        import struct
        def clone3(flags, cgroup=0, numbers=0):
            # From include/uapi/linux/sched.h: struct clone_args, of which the ninth counts chosen numbers of processes.
            text = struct.pack("11Q", flags, 0, 0, 0, 17 if not flags & 0x8000 else 0, 0, 0, 0, numbers and 1 << 40, numbers, cgroup)
            answer = raw(435, 435, ctypes.c_char_p(text), len(text))
            if os.getpid() != parent:
                os._exit(0)
            return answer
        parent = os.getpid()
        print({call})
    """)
    same(result.stdout, "ENOSYS\n")


@SUITE.probe_each(
    "P78",
    {"P77 syslog": "raw(103, 116, 99, 0, 0)", "P42 alarm clock": "raw(283, 85, 8, 0)",},
    tried="what only root may ask of the kernel: {}", expected="EPERM", wall="seccomp", only_ways=_WAYS, only_root=True,
)  # fmt: skip
def the_machine_is_out_of_reach(target: Target, call: str) -> None:
    same(target.run(f"print({call})").stdout, "EPERM\n")


#: The arguments are of no use even to root.
_HOSTILE = {
    "P04 open_by_handle_at": "raw(304, 265, -1, 1, 0)",
    "P78 kexec_load": "raw(246, 104, 0, 1 << 20, 0, 0)",
    "P78 kexec_file_load": "raw(320, 294, -1, -1, 0, 0, 0xff00)",
    "P78 init_module": "raw(175, 105, 1, 1, 1)",
    "P78 finit_module": "raw(313, 273, -1, 1, 0)",
    "P78 delete_module": "raw(176, 106, 1, 0)",
    "P78 acct": "raw(163, 89, 1)",
    "P78 quotactl": "raw(179, 60, 0xffffffff, 1, 0, 0)",
    "P78 quotactl_fd": "raw(443, 443, -1, 0, 0, 0)",
    "P78 swapon": "raw(167, 224, 1, 0x40000000)",
    "P78 swapoff": "raw(168, 225, 1)",
    "P78 reboot": "raw(169, 142, 0, 0, 0, 0)",
    **({"P78 iopl": "raw(172, 0, 0)", "P78 ioperm": "raw(173, 0, 0, 0, 0)"} if platform.machine() == "x86_64" else {}),
}


@SUITE.probe_each(
    "P78", _HOSTILE, tried="call the kernel: {}", expected="death by SIGSYS", wall="seccomp", only_ways=_WAYS
)
def the_call_is_death(target: Target, call: str) -> None:
    result = target.run(f"print({call}, flush=True)")
    same((result.stdout, result.signal), ("", "SIGSYS"))


# Without walls only these are tried: newer calls, which answer that nothing can be done with arguments of -1.
_HARMLESS_FROM = 424
# uretprobe and uprobe of x86-64: newer kernels let them past every filter, and send SIGILL where they are not expected.
_PAST_EVERY_FILTER = {335, 336} if platform.machine() == "x86_64" else frozenset[int]()


def _numbers(names: Iterable[str], *, walled: bool) -> list[int]:
    column = ("x86_64", "aarch64").index(platform.machine())
    found = {number for name in names if (number := NUMBERS[name][column]) is not None}
    return sorted(number for number in found if walled or number >= _HARMLESS_FROM)


def _named(groups: tuple[tuple[str, str], ...]) -> set[str]:
    return {name for _reason, names in groups for name in names.split()}


@SUITE.probe(
    "P78",
    tried="every call that the table does not name, from 0 to 600",
    expected="ENOSYS",
    wall="seccomp",
    only_ways=_WAYS,
)
def what_the_table_does_not_name_is_not_there(target: Target) -> None:
    every = _named(
        (*ALLOWED, *REFUSED, *UNSUPPORTED, *HOSTILE, *(group for groups in PROFILES.values() for group in groups))
    )
    named = {*_numbers(every | set(CHECKED), walled=True), *_PAST_EVERY_FILTER}
    numbers = [number for number in range(600) if number not in named and (target.walled or number >= _HARMLESS_FROM)]
    result = target.run(f"""
        answers = {{number: raw(number, number, -1, -1, -1, -1, -1, -1) for number in {numbers}}}
        print({{number: answer for number, answer in answers.items() if answer != "ENOSYS"}})
    """)
    same(result.stdout, "{}\n")


@SUITE.probe("P78", tried="every call that the table refuses", expected="EPERM", wall="seccomp", only_ways=_WAYS)
def what_the_table_refuses_is_refused(target: Target) -> None:
    numbers = _numbers(_named(REFUSED), walled=target.walled)
    result = target.run(f"""
        answers = {{number: raw(number, number, -1, -1, -1, -1, -1, -1) for number in {numbers}}}
        print({{number: answer for number, answer in answers.items() if answer != "EPERM"}})
    """)
    same(result.stdout, "{}\n")


@SUITE.probe("P78", tried="every call that sets attributes of files", expected="as if no file system had any", wall="seccomp", only_ways=_WAYS)  # fmt: skip
def what_files_do_not_have_cannot_be_set(target: Target) -> None:
    # Its pointers lead nowhere, so that without walls nothing is set.
    numbers = _numbers(_named(UNSUPPORTED), walled=True)
    result = target.run(f"print({{raw(number, number, -1, -1, -1, -1, -1) for number in {numbers}}})")
    one_of(result.stdout, ("{'ENOTSUP'}\n", "{'EOPNOTSUPP'}\n"))


@SUITE.probe(
    "P78",
    tried="every call that only attacks make, each in a process",
    expected="SIGSYS",
    wall="seccomp",
    only_ways=_WAYS,
)
def what_only_attacks_call_is_death(target: Target) -> None:
    numbers = _numbers(_named(HOSTILE), walled=target.walled)
    result = target.run(f"""
        survived = []
        for number in {numbers}:
            child = os.fork()
            if child == 0:
                raw(number, number, -1, -1, -1, -1, -1, -1)
                os._exit(0)
            if os.waitpid(child, 0)[1] & 0x7f != 31:
                survived.append(number)
        print(survived)
    """)
    same(result.stdout, "[]\n")


_OTHER_MODES = {
    "P78 by the numbers of x32": ("raw(0x40000000 + 39, 0)", ("SIGSYS",)),
    # mov eax, 20 (getpid); int 0x80; ret. A kernel without 32-bit calls sends the other signal.
    "P78 by the gate of 32 bits": ("run(bytes.fromhex('b814000000cd80c3'))", ("SIGSYS", "SIGSEGV")),
}


@SUITE.probe_each(
    "P78",
    _OTHER_MODES,
    tried="call the kernel {}, past a filter of 64-bit numbers",
    expected="death",
    wall="seccomp",
    only_ways=_WAYS,
)
def another_mode_is_death(target: Target, call: str, signals: tuple[str, ...]) -> None:
    if platform.machine() != "x86_64":
        raise LeftOut("this processor has one way to call the kernel")
    result = target.run(f"""
        import mmap
        def run(code):
            place = mmap.mmap(-1, 4096, prot=7)
            place.write(code)
            return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(place)))()
        {call}
        print("survived")
    """)
    same(result.stdout, "")
    one_of(result.signal, signals)


@SUITE.probe_each(
    "P73",
    {
        "P73 a seccomp filter": "raw(157, 167, 22, 2, 1, 0, 0)",
        "P73 its own dispatcher of calls": "raw(157, 167, 59, 0, 0, 0, 0)",
        "P12 ambient capabilities": "raw(157, 167, 47, 4, 0, 0, 0)",
        "P63 performance counters": "raw(157, 167, 31, 0, 0, 0, 0)",
        "P78 how memory errors kill": "raw(157, 167, 33, 0, 0, 0, 0)",
        "P82 how the processor speculates": "raw(157, 167, 52, 0, 0, 0, 0)",
    },
    tried="set by prctl: {}", expected="EINVAL", wall="seccomp", only_ways=_WAYS,
)  # fmt: skip
def prctl_is_a_short_list(target: Target, call: str) -> None:
    same(target.run(f"print({call})").stdout, "EINVAL\n")


@SUITE.probe("P60", tried="call itself a part of the disk's driver, to have memory first", expected="EINVAL",
             wall="seccomp", only_ways=_WAYS, only_root=True)  # fmt: skip
def no_process_flushes_before_others(target: Target) -> None:
    same(target.run("print(raw(157, 167, 57, 0, 0, 0, 0))").stdout, "EINVAL\n")


@SUITE.probe("P68", tried="every other bit of the personality", expected="EPERM", wall="seccomp", only_ways=_WAYS)
def no_other_personality_can_be_had(target: Target) -> None:
    result = target.run("print({raw(135, 92, 1 << bit) for bit in (3, 17, *range(19, 28))})")
    same(result.stdout, "{'EPERM'}\n")


_IOCTLS = {
    "P18 flags of a file": ("os.open('mine', os.O_RDWR | os.O_CREAT)", 0x40086602),
    "P18 attributes of a file": ("os.open('mine', os.O_RDWR | os.O_CREAT)", 0x801C581F),
    "P77 where a file lies on the disk": ("os.open('mine', os.O_RDWR | os.O_CREAT)", 0xC020660B),
    "P66 the kind of a namespace": ("os.open('/proc/self/ns/user', os.O_RDONLY)", 0xB703),
    "P66 the owner of a namespace": ("os.open('/proc/self/ns/user', os.O_RDONLY)", 0xB704),
    "P70 an interface's address, to set it": ("socket.socket().detach()", 0x8916),
    "P70 an interface's flags, to set them": ("socket.socket().detach()", 0x8914),
    "P70 an interface's name, to set it": ("socket.socket().detach()", 0x8923),
    "P70 the driver of an interface": ("socket.socket().detach()", 0x8946),
    "P70 a route, to add it": ("socket.socket().detach()", 0x890B),
    "P70 a bridge, to make it": ("socket.socket().detach()", 0x89A0),
}


@SUITE.probe_each("P70", _IOCTLS, tried="ask by ioctl for {}", expected="ENOTTY", wall="seccomp", only_ways=_WAYS)
def ioctl_is_a_short_list(target: Target, descriptor: str, number: int) -> None:
    # Its third argument is no address, so that without walls nothing is changed.
    same(target.run(f"print(raw(16, 29, {descriptor}, {number}, 0))").stdout, "ENOTTY\n")


_SOCKETS = {
    "P05 virtual machines": ("40, socket.SOCK_STREAM, 0", "EAFNOSUPPORT"),
    "P70 netlink": ("16, socket.SOCK_RAW, 0", "EAFNOSUPPORT"),
    "P70 netlink: sockets": ("16, socket.SOCK_RAW, 4", "EAFNOSUPPORT"),
    "P70 netlink: audit": ("16, socket.SOCK_RAW, 9", "EAFNOSUPPORT"),
    "P70 netlink: netfilter": ("16, socket.SOCK_RAW, 12", "EAFNOSUPPORT"),
    "P100 netlink: events of devices": ("16, socket.SOCK_DGRAM, 15", "EAFNOSUPPORT"),
    "P70 netlink: generic": ("16, socket.SOCK_RAW, 16", "EAFNOSUPPORT"),
    "P70 packets": ("17, socket.SOCK_RAW, 0", "EAFNOSUPPORT"),
    "P70 the kernel's ciphers": ("38, socket.SOCK_SEQPACKET, 0", "EAFNOSUPPORT"),
    "P70 raw ICMP": ("socket.AF_INET, socket.SOCK_RAW, 1", "EPROTONOSUPPORT"),
    "P70 raw IP": ("socket.AF_INET, socket.SOCK_RAW, 255", "EPROTONOSUPPORT"),
    "P70 raw ICMPv6": ("socket.AF_INET6, socket.SOCK_RAW, 58", "EPROTONOSUPPORT"),
    "P70 ping": ("socket.AF_INET, socket.SOCK_DGRAM, 1", "EPROTONOSUPPORT"),
    "P70 TCP by several paths": ("socket.AF_INET, socket.SOCK_STREAM, 262", "EPROTONOSUPPORT"),
    "P70 UDP-Lite": ("socket.AF_INET, socket.SOCK_DGRAM, 136", "EPROTONOSUPPORT"),
    "P70 SCTP": ("socket.AF_INET, socket.SOCK_STREAM, 132", "EPROTONOSUPPORT"),
    "P70 DCCP": ("socket.AF_INET, 6, 33", "EPROTONOSUPPORT"),
    "P70 XDP": ("44, socket.SOCK_RAW, 0", "EAFNOSUPPORT"),
    "P70 TIPC": ("30, socket.SOCK_RDM, 0", "EAFNOSUPPORT"),
}


@SUITE.probe_each("P70", _SOCKETS, tried="open a socket of {}", expected="refused", wall="seccomp", only_ways=_WAYS)
def the_socket_is_refused(target: Target, arguments: str, wanted: str) -> None:
    result = target.run(f"print(tried(lambda: socket.socket({arguments})), os.path.isdir('/sys'))")
    same(result.stdout, f"{wanted} False\n")


@SUITE.probe(
    "P70", tried="open sockets of 46 families and ten types", expected="three families", wall="seccomp", only_ways=_WAYS
)
def three_families_of_sockets_are_open(target: Target) -> None:
    # Without walls only what every kernel has: a family that is tried there may load a module.
    families = tuple(range(46)) if target.walled else (1, 2, 10, 16)
    result = target.run(f"""
        for family in {families}:
            for kind in range(1, 11):
                if raw(41, 198, family, kind, 0) == "done":
                    print(family, kind)
    """)
    wanted = ["1 1", "1 2", "1 5", "2 1", "2 2", "10 1", "10 2"]
    same([line for line in result.stdout.splitlines() if line not in wanted], [])
    holds(set(result.stdout.splitlines()) >= {"1 1", "2 1"}, "the program could not open ordinary sockets either")


@SUITE.probe("P70", tried="pairs of sockets of every family", expected="Unix alone", wall="seccomp", only_ways=_WAYS)
def pairs_of_sockets_are_unixs_alone(target: Target) -> None:
    families = tuple(range(46)) if target.walled else (1, 2, 10, 16)
    result = target.run(f"""
        pair = (ctypes.c_int * 2)()
        print({{raw(53, 199, family, 1, 0, pair) for family in {families} if family != 1}}, raw(53, 199, 1, 1, 0, pair))
    """)
    same(result.stdout, "{'EAFNOSUPPORT'} done\n")


@SUITE.probe_each(
    "P70",
    {
        "a mark for routing": "socket.SOL_SOCKET, 36, 1",
        "a buffer past the limit": "socket.SOL_SOCKET, 33, 1 << 20",
        "transparent addresses": "socket.IPPROTO_IP, 19, 1",
        "repair of TCP": "socket.IPPROTO_TCP, 19, 1",
    },
    tried="set on a socket what needs a privilege: {}", expected="EPERM", wall="capabilities", only_ways=_WAYS, only_root=True,
)  # fmt: skip
def no_privileged_option_can_be_set(target: Target, option: str) -> None:
    same(target.run(f"print(tried(lambda: socket.socket().setsockopt({option})))").stdout, "EPERM\n")


@SUITE.probe("P70", tried="replace the kernel's rules for packets by setsockopt", expected="refused", wall="capabilities", only_ways=_WAYS, only_root=True)  # fmt: skip
def no_rules_for_packets_can_be_set(target: Target) -> None:
    result = target.run("print(tried(lambda: socket.socket().setsockopt(0, 64, b'x' * 200)), os.path.isdir('/sys'))")
    one_of(result.stdout, ("EPERM False\n", "ENOPROTOOPT False\n"))


@SUITE.probe(
    "P66",
    tried="enter a namespace of the host's by a leaked descriptor",
    expected="EPERM",
    wall="seccomp",
    only_ways=_WAYS,
)
def a_leaked_namespace_cannot_be_entered(target: Target) -> None:
    with inheritable(os.open("/proc/self/ns/net", os.O_RDONLY)):
        result = target.run("""
            for number in range(3, 1024):
                if os.path.exists(f"/proc/self/fd/{number}"):
                    print(number, raw(308, 268, number, 0))
            print(raw(308, 268, os.open("/proc/self/ns/user", os.O_RDONLY), 0))
        """)
    same(result.stdout, "EPERM\n")


@SUITE.probe(
    "P79",
    tried="stack rules of its own until the kernel takes no more",
    expected="15 of 16",
    wall="landlock",
    only_ways=_WAYS,
)
def rules_of_its_own_come_on_top_of_ours(target: Target) -> None:
    # The kernel stacks 16 layers of Landlock rules; ours is one of them, so 15 are left.
    result = target.run("""
        libc.prctl(38, 1, 0, 0, 0)
        rules = libc.syscall(ctypes.c_long(444), (ctypes.c_uint64 * 1)(1), ctypes.c_long(8), ctypes.c_long(0))
        layers = 0
        while layers < 20 and raw(446, 446, rules, 0) == "done":
            layers += 1
        print(layers)
    """)
    same((result.reason, result.stdout), ("exited", "15\n"))
