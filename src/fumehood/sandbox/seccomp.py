"""Compiles the table of `syscalls.py` into a BPF filter, for x86-64 and arm64, without libseccomp.

libseccomp takes 0.7 to 1.5 ms to build such a filter and is not on every host. This runs when the table changes:
`scripts/filters` writes what it makes to `filters/`, and a test holds those files against the table
(docs/decisions/0005-seccomp-filters.md). Promised: another processor mode or the x32
numbers kill the process, as do the calls that only attacks make; what the table does not name gets ENOSYS. Not promised:
anything about what a call that is allowed does with pointers, which a filter cannot see.
"""

from __future__ import annotations

import errno
import struct

from .syscall_numbers import NUMBERS
from .syscalls import ALLOWED, HOSTILE, PROFILES, REFUSED, UNSUPPORTED

# From include/uapi/linux/bpf_common.h and filter.h: class, size, mode and jump codes, put together.
_LOAD, _RETURN, _JUMP, _AND = 0x20, 0x06, 0x05, 0x54
_IF_EQUAL, _IF_GREATER_EQUAL, _IF_ANY_BIT = 0x15, 0x35, 0x45
# Offsets into struct seccomp_data.
_NUMBER, _ARCH, _ARGS = 0, 4, 16

KILL = 0x80000000  # SECCOMP_RET_KILL_PROCESS
ALLOW = 0x7FFF0000
# SECCOMP_RET_TRACE: ENOSYS, unless the host holds the process by ptrace and makes the call itself (`tracing`).
TRACE = 0x7FF00000
REFUSE = 0x00050000  # SECCOMP_RET_ERRNO, and the number
NOTIFY = 0x7FC00000  # SECCOMP_RET_USER_NOTIF

# From include/uapi/linux/audit.h
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

# Every CLONE_NEW*: cgroup, uts, ipc, user, pid, net, ns, time.
_NAMESPACE_FLAGS = 0x7E020080
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_TYPE_MASK = 0xF
# What programs ask of descriptors: terminal state and size, bytes waiting, close-on-exec, blocking. Not TIOCSTI,
# TIOCLINUX, TIOCSETD, TIOCSCTTY, nor any device's own.
_IOCTLS = (0x5401, 0x5402, 0x5403, 0x5404, 0x540B, 0x540F, 0x5410, 0x5411, 0x5413, 0x5414, 0x541B, 0x5421, 0x5429,
           0x5450, 0x5451, 0x5452, 0x8910, 0x8912, 0x8913, 0x8915, 0x8927, 0x8933)  # fmt: skip
# Names, death signals, timer slack, no_new_privs, transparent huge pages, subreaper, names of mappings, and queries; giving up
# capabilities for good (24, 28), which takes one that no program has.
_PRCTLS = (1, 2, 3, 7, 15, 16, 21, 23, 24, 27, 28, 29, 30, 36, 37, 38, 39, 41, 42, 0x53564D41)
_PR_SET_DUMPABLE = 4
_RLIMIT_CORE = 4
_SCHEDULING = ("sched_setscheduler", "sched_setparam", "sched_setattr", "sched_setaffinity")
_MAP_HUGETLB, _MFD_HUGETLB = 0x40000, 4
_OPEN_FILE_LOCKS = (36, 37, 38)  # F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW
# By level: filters of SOL_SOCKET; joining of groups for IP and IPv6.
_SOCKET_OPTIONS = {1: (26, 50, 51, 52), 0: (35, 39, 42, 46), 41: (20, 42, 46, 48)}

_Code = list[tuple[int, int, int, int]]


def compile_filter(machine: str, profile: str = "plain", *, sampled: bool = False) -> bytes:
    """Return the filter for `machine` ("x86_64" or "aarch64") as an array of struct sock_filter.

    `profile` is one of `PROFILES`, by which runtimes differ. `sampled`: no cgroup counts memory, so memory that no
    sample can see (a memfd that nobody maps) is refused.
    """
    column = list(_AUDIT_ARCH).index(machine)
    actions = {
        number: action for name, action in _actions(profile).items() if (number := NUMBERS[name][column]) is not None
    }
    if sampled:
        actions[_number("memfd_create", column)] = _refuse(errno.ENOSYS)
    tree = _tree(_intervals(actions))
    head: _Code = [
        (_LOAD, 0, 0, _ARCH),
        (_IF_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        head += [(_IF_GREATER_EQUAL, 0, 1, _X32_BIT), (_RETURN, 0, 0, KILL)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in head + tree)


def notifying(program: bytes) -> bytes:
    """Return a filter that asks its listener wherever this one refuses or kills: what `decide` says is then the answer.

    A missing clone3, after which C libraries take clone, is no news and stays as it is.
    """
    code = []
    for operation, if_true, if_false, value in struct.iter_unpack("=HBBI", program):
        asks = operation == _RETURN and (value == KILL or value & ~0xFFFF == REFUSE)
        missing = operation == _RETURN and value == TRACE
        code.append((operation, if_true, if_false, NOTIFY if asks else REFUSE | errno.ENOSYS if missing else value))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def decide(program: bytes, arch: int, number: int, arguments: tuple[int, ...]) -> int:
    """Run a filter over one call, as the kernel's BPF machine does; return its verdict."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *arguments)
    code = list(struct.iter_unpack("=HBBI", program))
    place, accumulator = 0, 0
    while True:
        operation, if_true, if_false, value = code[place]
        place += 1
        if operation == _LOAD:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif operation == _RETURN:
            return int(value)
        elif operation == _JUMP:
            place += value
        elif operation == _AND:
            accumulator &= value
        else:
            truth = {
                _IF_EQUAL: accumulator == value,
                _IF_GREATER_EQUAL: accumulator >= value,
                _IF_ANY_BIT: bool(accumulator & value),
            }[operation]
            place += if_true if truth else if_false


def _number(name: str, column: int) -> int:
    number = NUMBERS[name][column]
    if number is None:
        raise ValueError(f"{name} has no number on this processor")
    return number


def _actions(profile: str) -> dict[str, _Code]:
    allow, refuse = [(_RETURN, 0, 0, ALLOW)], _refuse(errno.EPERM)
    actions = {name: allow for _reason, names in (*ALLOWED, *PROFILES[profile]) for name in names.split()}
    actions |= {name: refuse for _reason, names in REFUSED for name in names.split()}
    actions |= {name: [(_RETURN, 0, 0, KILL)] for _reason, names in HOSTILE for name in names.split()}
    return actions | {
        **{name: _refuse(errno.EOPNOTSUPP) for _reason, names in UNSUPPORTED for name in names.split()},
        "clone": [(_LOAD, 0, 0, _ARGS), (_IF_ANY_BIT, 0, 1, _NAMESPACE_FLAGS), *refuse, *allow],
        # Its flags lie behind a pointer; C libraries fall back to clone.
        "clone3": [(_RETURN, 0, 0, TRACE)],
        "ioctl": _argument_in(1, _IOCTLS, errno.ENOTTY),
        "prctl": _prctl(),
        # 0xffffffff asks; 0 is the ordinary personality.
        "personality": _argument_in(0, (0, 0xFFFFFFFF), errno.EPERM),
        # Another's limits may not be touched: pid 1 is ours.
        "prlimit64": _then(_argument_in(0, (0,), errno.EPERM)[:-1], _unless(1, _RLIMIT_CORE, _if_no_pointer(2))),
        "setrlimit": _unless(0, _RLIMIT_CORE, refuse),
        **{name: _argument_not_in(0, (1,), errno.EPERM) for name in _SCHEDULING},
        # PRIO_USER, then a process or group by its number.
        "setpriority": _then(_argument_in(0, (0, 1), errno.EPERM)[:-1], _argument_not_in(1, (1,), errno.EPERM)),
        "setsockopt": _setsockopt(),
        "mmap": [(_LOAD, 0, 0, _ARGS + 8 * 3), (_IF_ANY_BIT, 0, 1, _MAP_HUGETLB), *_refuse(errno.EINVAL), *allow],
        "memfd_create": [(_LOAD, 0, 0, _ARGS + 8), (_IF_ANY_BIT, 0, 1, _MFD_HUGETLB), *_refuse(errno.EINVAL), *allow],
        "fcntl": _argument_not_in(1, _OPEN_FILE_LOCKS, errno.EINVAL),
        "socketpair": _argument_in(0, (_AF_UNIX,), errno.EAFNOSUPPORT),
        "socket": _socket(),
    }


def _argument_not_in(index: int, values: tuple[int, ...], answer: int) -> _Code:
    """Allow unless the low 32 bits of the argument are one of `values`."""
    code: _Code = [(_LOAD, 0, 0, _ARGS + 8 * index)]
    code += [(_IF_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [*code, (_RETURN, 0, 0, ALLOW), *_refuse(answer)]


def _unless(index: int, value: int, then: _Code) -> _Code:
    """Allow unless the argument is `value`; what becomes of that call `then` decides."""
    return [(_LOAD, 0, 0, _ARGS + 8 * index), (_IF_EQUAL, 1, 0, value), (_RETURN, 0, 0, ALLOW), *then]


def _if_no_pointer(index: int) -> _Code:
    """Allow where the argument is a null pointer, in both halves."""
    refuse = _refuse(errno.EPERM)
    return [
        (_LOAD, 0, 0, _ARGS + 8 * index), (_IF_EQUAL, 1, 0, 0), *refuse,
        (_LOAD, 0, 0, _ARGS + 8 * index + 4), (_IF_EQUAL, 1, 0, 0), *refuse, (_RETURN, 0, 0, ALLOW),
    ]  # fmt: skip


def _setsockopt() -> _Code:
    code: _Code = []
    for level, options in _SOCKET_OPTIONS.items():
        rest = _argument_not_in(2, options, errno.EPERM)
        code += [(_LOAD, 0, 0, _ARGS + 8), (_IF_EQUAL, 0, len(rest), level), *rest]
    return [*code, (_RETURN, 0, 0, ALLOW)]


def _prctl() -> _Code:
    load, *others = _argument_in(0, _PRCTLS, errno.EINVAL)
    return [load, (_IF_EQUAL, 0, 1, _PR_SET_DUMPABLE), (_RETURN, 0, 0, TRACE), *others]


def _socket() -> _Code:
    # Streams and datagrams of three families, by TCP and UDP alone: no raw, netlink, packet, vsock, SCTP or ALG.
    family = _argument_in(0, (_AF_UNIX, _AF_INET, _AF_INET6), errno.EAFNOSUPPORT)[:-1]
    kind = _argument_in(1, (1, 2, 5), errno.EPROTONOSUPPORT, mask=_SOCK_TYPE_MASK)[:-1]
    protocol = _argument_in(2, (0, 6, 17), errno.EPROTONOSUPPORT)
    return _then(_then(family, kind), protocol)


def _argument_in(index: int, values: tuple[int, ...], otherwise: int, mask: int = 0) -> _Code:
    """Allow where the low 32 bits of the argument are one of `values`, all that the kernel reads of these."""
    code: _Code = [(_LOAD, 0, 0, _ARGS + 8 * index)]
    if mask:
        code.append((_AND, 0, 0, mask))
    code += [(_IF_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [*code, *_refuse(otherwise), (_RETURN, 0, 0, ALLOW)]


def _then(first: _Code, second: _Code) -> _Code:
    # `first` lacks its last instruction, so its jumps to "allowed" land on the start of `second`.
    return [*first, *second]


def _refuse(number: int) -> _Code:
    return [(_RETURN, 0, 0, REFUSE | number)]


def _intervals(actions: dict[int, _Code]) -> list[tuple[int, _Code]]:
    """Return (first number, action) of each run of numbers that share one, from 0 up."""
    unknown = _refuse(errno.ENOSYS)
    runs: list[tuple[int, _Code]] = []
    for number in range(max(actions) + 2):
        action = actions.get(number, unknown)
        if not runs or runs[-1][1] != action:
            runs.append((number, action))
    return runs


def _tree(runs: list[tuple[int, _Code]]) -> _Code:
    if len(runs) == 1:
        return runs[0][1]
    middle = len(runs) // 2
    low, high = _tree(runs[:middle]), _tree(runs[middle:])
    # A conditional jump reaches 255 instructions, an unconditional one any.
    return [(_IF_GREATER_EQUAL, 0, 1, runs[middle][0]), (_JUMP, 0, 0, len(low)), *low, *high]
