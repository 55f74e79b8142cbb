"""System calls that Python's os module lacks, and the numbers that go with them.

Covered: Linux on x86-64 and arm64, by ctypes over the C library. Each call raises OSError with the kernel's errno
and a text that names the call; nothing here decides policy.
"""

from __future__ import annotations

import ctypes
import os

from ..errors import SandboxUnavailable

# From include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PIDFD = 0x00001000
CLONE_INTO_CGROUP = 0x200000000

# From include/uapi/linux/mount.h
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
AT_FDCWD, AT_RECURSIVE = -100, 0x8000

# From include/uapi/linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 28, 38, 47
PR_CAP_AMBIENT_RAISE = 2
# SECBIT_NOROOT, NO_SETUID_FIXUP, KEEP_CAPS off, NO_CAP_AMBIENT_RAISE, each locked
SECUREBITS_LOCKED = 0b1110_1111
LAST_CAPABILITY = 40
CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN = 6, 7, 21

# From include/uapi/linux/openat2.h
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 1, 2, 4, 8

# Calls that have one number on both processors were added after their tables were unified.
_SHARED = {"pidfd_send_signal": 424, "clone3": 435, "close_range": 436, "openat2": 437, "mount_setattr": 442,
           "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446}  # fmt: skip
_NUMBERS = {
    "x86_64": {"pivot_root": 155, "capset": 126, "capget": 125, "seccomp": 317, "setgroups": 116, "setresuid": 117,
               "setresgid": 119, "setfsuid": 122, "setfsgid": 123, "kcmp": 312, **_SHARED},
    "aarch64": {"pivot_root": 41, "capset": 91, "capget": 90, "seccomp": 277, "setgroups": 159, "setresuid": 147,
                "setresgid": 149, "setfsuid": 151, "setfsgid": 152, "kcmp": 272, **_SHARED},
}  # fmt: skip

MACHINE = os.uname().machine
# PyDLL keeps the interpreter lock: after clone3 the child must own it, as after a fork.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def syscall(name: str, *args: object) -> int:
    """Make the call by number; ctypes values pass as they are, ints as C longs, bytes as pointers."""
    numbers = _NUMBERS.get(MACHINE)
    if numbers is None:
        raise SandboxUnavailable(f"this machine is {MACHINE}: Fumehood runs on x86_64 and aarch64")
    longs = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return _checked(name, _libc.syscall(ctypes.c_long(numbers[name]), *longs))


def clone3(flags: int, cgroup: int | None = None) -> tuple[int, int]:
    """Fork into new namespaces. Return (0, -1) in the child, (its pid, a pidfd) in the parent.

    `cgroup`, an open folder of cgroup v2, is where the child is born.

    The caller must have one thread: the C library's own fork hooks do not run.
    """
    pidfd = ctypes.c_int(-1)
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, five fields that stay 0, cgroup
    args = (ctypes.c_uint64 * 11)(flags | CLONE_PIDFD, ctypes.addressof(pidfd), 0, 0, 17)
    if cgroup is not None:
        args[0] |= CLONE_INTO_CGROUP
        args[10] = cgroup
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = _libc.syscall(ctypes.c_long(_SHARED["clone3"]), args, ctypes.c_long(ctypes.sizeof(args)))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    errno = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(errno, f"clone3: {os.strerror(errno)}")
    return pid, pidfd.value


def fork() -> int:
    """Fork as `os.fork` does, which warns where there are threads; whoever calls knows that they only wait."""
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _libc.fork()
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    errno = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(errno, f"fork: {os.strerror(errno)}")
    return pid


def processor() -> int:
    """Return the processor that this thread runs on."""
    return _checked("sched_getcpu", _libc.sched_getcpu())


def use_up_pid() -> None:
    """Let a child that does nothing come and go: the next one has a number one higher."""
    stack = ctypes.create_string_buffer(1 << 14)
    top = ctypes.c_void_p((ctypes.addressof(stack) + len(stack)) & ~15)
    # CLONE_VM | CLONE_VFORK | SIGCHLD: nothing is copied, and it has ended when this returns.
    pid = _checked("clone", _libc.clone(ctypes.cast(_libc.getpid, ctypes.c_void_p), top, 0x100 | 0x4000 | 17, None))
    os.waitpid(pid, 0)


def share_memory(one: int, other: int) -> bool:
    """Whether two processes have the same memory, not merely equal. Raises OSError, as where one has ended."""
    return syscall("kcmp", one, other, 1, 0, 0) == 0  # KCMP_VM


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Mount as mount(2) does."""
    result = _libc.mount(
        source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags),
        options and options.encode(),
    )  # fmt: skip
    _checked(f"mount {kind or 'bind'} on {target}", result)


def mount_setattr(path: str, attributes: int) -> None:
    """Add mount attributes to the mount at `path` and all below it; those it has stay."""
    # A remount would have to repeat the host's own flags, or the kernel refuses it in a user namespace.
    attr = (ctypes.c_uint64 * 4)(attributes)
    syscall("mount_setattr", AT_FDCWD, path.encode(), AT_RECURSIVE, attr, ctypes.sizeof(attr))


def detach(path: str) -> None:
    """Unmount `path` lazily."""
    _checked(f"umount {path}", _libc.umount2(path.encode(), MNT_DETACH))


def pivot_root_here() -> None:
    """Make the current directory the root and drop the old one."""
    # Both names the same: the old root is then stacked on the new one, and no folder is needed to hold it.
    syscall("pivot_root", b".", b".")
    detach(".")
    os.chdir("/")


def unshare(flags: int) -> None:
    """Move this process into new namespaces."""
    _checked("unshare", _libc.unshare(flags))


def setns(namespace: int, kind: int) -> None:
    """Move this process into an open namespace of that kind (CLONE_NEW*), 0 for any."""
    _checked("setns", _libc.setns(namespace, kind))


def set_hostname(name: str) -> None:
    """Name this uts namespace."""
    _checked("sethostname", _libc.sethostname(name.encode(), ctypes.c_size_t(len(name))))


def raise_loopback() -> None:
    """Bring up `lo` in this network namespace."""
    # By the C library: Python's fcntl is a shared object that takes ten times as long to load as this takes.
    descriptor = _checked("socket", _libc.socket(2, 2 | 0o2000000, 0))  # AF_INET, SOCK_DGRAM | SOCK_CLOEXEC
    try:
        request = b"lo".ljust(16, b"\0") + (0x1 | 0x40).to_bytes(2, "little") + bytes(22)  # IFF_UP | IFF_RUNNING
        _checked("ioctl SIOCSIFFLAGS", _libc.ioctl(descriptor, ctypes.c_ulong(0x8914), request))
    finally:
        os.close(descriptor)


def add_loopback_address(address: str, prefix_bits: int) -> None:
    """Give `lo` in this network namespace an IPv4 address more; all of its network is then this namespace's."""
    mask = (~0 << (32 - prefix_bits)) & 0xFFFFFFFF
    descriptor = _checked("socket", _libc.socket(2, 2 | 0o2000000, 0))  # AF_INET, SOCK_DGRAM | SOCK_CLOEXEC
    try:
        for what, order, value in (
            ("SIOCSIFADDR", 0x8916, bytes(map(int, address.split(".")))),
            ("SIOCSIFNETMASK", 0x891C, mask.to_bytes(4, "big")),
        ):
            request = b"lo:1".ljust(16, b"\0") + (2).to_bytes(2, "little") + bytes(2) + value + bytes(16)
            _checked(f"ioctl {what}", _libc.ioctl(descriptor, ctypes.c_ulong(order), request))
    finally:
        os.close(descriptor)


def owner_of_namespace(namespace: int) -> int:
    """Return the user namespace that owns an open namespace, open as well."""
    return _checked("ioctl NS_GET_USERNS", _libc.ioctl(namespace, ctypes.c_ulong(0xB701)))


def prctl(option: int, *args: int) -> None:
    """Call prctl(2); missing arguments are 0."""
    longs = [ctypes.c_ulong(arg) for arg in (*args, 0, 0, 0, 0)[:4]]
    _checked(f"prctl {option}", _libc.prctl(option, *longs))


def become(user: int) -> None:
    """Take `user` for every user and group id of this process, which has one thread, and no other groups."""
    # By number: after `clone3` the C library still waits for the threads that its list of the parent's names.
    leave_groups()
    become_without_groups(user)


def leave_groups() -> None:
    """Leave all supplementary groups. A user namespace may forbid it."""
    syscall("setgroups", 0, None)


def become_without_groups(user: int) -> None:
    """Take `user` for every user and group id of this process, which has left its groups or has none to fear."""
    syscall("setresgid", user, user, user)
    syscall("setresuid", user, user, user)


def set_file_user(user: int, group: int) -> None:
    """Take user and group for what this thread does to files, and no more rights there than theirs."""
    syscall("setfsgid", group)
    syscall("setfsuid", user)


def drop_capabilities() -> None:
    """Give up every capability in every set, for good."""
    bound_capabilities()
    keep_capabilities()


def bound_capabilities() -> None:
    """Make sure that nothing this process executes has a capability, but for those that were lent before."""
    prctl(PR_SET_SECUREBITS, SECUREBITS_LOCKED)
    # On the way of every sandbox, forty times: without the layers of `prctl`, and one number for ctypes to change.
    call, drop, capability, none = _libc.prctl, ctypes.c_int(PR_CAPBSET_DROP), ctypes.c_ulong(0), ctypes.c_ulong(0)
    for capability.value in range(LAST_CAPABILITY + 1):
        if call(drop, capability, none, none, none) < 0:
            # An older kernel ends its list sooner; what it does not know it cannot grant.
            break


def lend_capability(capability: int) -> None:
    """Have what this process executes be born with that capability, until `keep_capabilities` gives it up here."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    syscall("capget", header, data)
    data[2] |= 1 << capability
    syscall("capset", header, data)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def keep_capabilities(*capabilities: int, lent: bool = False) -> None:
    """Give up every effective and permitted capability but these, numbered below 32; inheritable ones too, unless they are lent."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    kept = sum(1 << each for each in capabilities)
    syscall("capset", header, (ctypes.c_uint32 * 6)(kept, kept, kept if lent else 0))


def seccomp_filter(program: bytes, *, listens: bool = False) -> int:
    """Install a compiled BPF filter on this thread; its children inherit it.

    Return 0, or, where it `listens`, the descriptor at which the calls that it asks about wait for an answer.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = _Fprog(len(program) // 8, ctypes.addressof(buffer))
    # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER
    return syscall("seccomp", 1, 8 if listens else 0, ctypes.byref(fprog))


def open_beneath(directory: int, path: bytes, flags: int) -> int:
    """Open `path` below the open folder `directory`; no link is followed, no mount crossed on the way."""
    if flags & os.O_NOFOLLOW and b"/" not in path and path != b"..":
        # One name: there is no way to it on which something could lie. It takes a fifth of the time.
        return os.open(path, flags | os.O_CLOEXEC, dir_fd=directory)
    resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
    how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, 0, resolve)
    return syscall("openat2", directory, path, how, ctypes.sizeof(how))


def write_file(path: str, text: str) -> None:
    """Write a file of the kernel's in one call, as most of them demand."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def send_signal(pidfd: int, number: int) -> None:
    """Signal the process behind a pidfd; a process that is gone already is no error."""
    try:
        syscall("pidfd_send_signal", pidfd, number, None, 0)
    except ProcessLookupError:
        pass


def close_from(first: int) -> None:
    """Close every descriptor from `first` up."""
    syscall("close_range", first, 0x7FFFFFFF, 0)


class _Fprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _checked(what: str, result: int) -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}")
    return result
