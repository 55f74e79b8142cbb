"""Compiles the table of `syscalls.py` into a BPF filter, for x86-64 and arm64, without libseccomp.

libseccomp takes 0.7 to 1.5 ms to build such a filter and is not on every host. This runs when the table changes:
`scripts/filters` writes what it makes to `filters/`, and a test holds those files against the table
(docs/decisions/0005-seccomp-filters.md). Promised: another processor mode or the x32
numbers kill the process; what the table does not name gets ENOSYS. Not promised: anything about what a call that
is allowed does with pointers, which a filter cannot see.
"""

from __future__ import annotations

import errno
import struct

from .syscall_numbers import NUMBERS
from .syscalls import ALLOWED, PROFILES, REFUSED

# From include/uapi/linux/bpf_common.h and filter.h: class, size, mode and jump codes, put together.
_LOAD, _RETURN, _JUMP, _AND = 0x20, 0x06, 0x05, 0x54
_IF_EQUAL, _IF_GREATER_EQUAL, _IF_ANY_BIT = 0x15, 0x35, 0x45
# Offsets into struct seccomp_data.
_NUMBER, _ARCH, _ARGS = 0, 4, 16

KILL = 0x80000000  # SECCOMP_RET_KILL_PROCESS
ALLOW = 0x7FFF0000
# SECCOMP_RET_TRACE: ENOSYS, unless the host holds the process by ptrace and makes the call itself (`tracing`).
TRACE = 0x7FF00000

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


def _number(name: str, column: int) -> int:
    number = NUMBERS[name][column]
    if number is None:
        raise ValueError(f"{name} has no number on this processor")
    return number


def _actions(profile: str) -> dict[str, _Code]:
    allow, refuse = [(_RETURN, 0, 0, ALLOW)], _refuse(errno.EPERM)
    actions = {name: allow for _reason, names in (*ALLOWED, *PROFILES[profile]) for name in names.split()}
    actions |= {name: refuse for _reason, names in REFUSED for name in names.split()}
    return actions | {
        "clone": [(_LOAD, 0, 0, _ARGS), (_IF_ANY_BIT, 0, 1, _NAMESPACE_FLAGS), *refuse, *allow],
        # Its flags lie behind a pointer; C libraries fall back to clone.
        "clone3": [(_RETURN, 0, 0, TRACE)],
        "ioctl": _argument_in(1, _IOCTLS, errno.ENOTTY),
        "prctl": _prctl(),
        # 0xffffffff asks; 0 is the ordinary personality.
        "personality": _argument_in(0, (0, 0xFFFFFFFF), errno.EPERM),
        # Another's limits may not be touched: pid 1 is ours.
        "prlimit64": _argument_in(0, (0,), errno.EPERM),
        "socketpair": _argument_in(0, (_AF_UNIX,), errno.EAFNOSUPPORT),
        "socket": _socket(),
    }


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
    return [(_RETURN, 0, 0, 0x00050000 | number)]  # SECCOMP_RET_ERRNO


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
