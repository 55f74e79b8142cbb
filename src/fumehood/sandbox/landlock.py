"""The second wall around files: Landlock rules that mirror the mounts.

Promised: outside `/work`, `/tmp` and `/dev/shm` nothing can be changed even if a mount were writable (but see `any_disk`), and
signals and abstract sockets stay within the sandbox where the kernel can do that (ABI 6). Not promised: anything about the
network, whose wall is the empty network namespace.
"""

from __future__ import annotations

import ctypes
import os
import struct

from . import kernel

# From include/uapi/linux/landlock.h
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_ALL_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15  # truncate, ioctl on devices
_MAKE_DEVICES = 1 << 6 | 1 << 11  # character and block
_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 3

WRITABLE = ("/work", "/tmp", "/dev/shm")  # noqa: S108 - the sandbox's own
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def abi() -> int:
    """Return the kernel's Landlock version, 0 where it has none."""
    try:
        return kernel.syscall("landlock_create_ruleset", None, 0, 1)  # LANDLOCK_CREATE_RULESET_VERSION
    except OSError:
        return 0


def restrict(*, any_disk: bool = False, writable: tuple[str, ...] = ()) -> None:
    """Confine this thread and its children to the sandbox's tree. Raises OSError where the kernel cannot.

    `any_disk`: its folders may come to lie on a disk that is not there yet. Rules name what is there, so then mounts alone
    decide where it may write. `writable`: folders that it may write to besides.
    """
    version = abi()
    everything = max(mask for since, mask in _ALL_BY_ABI.items() if since <= max(version, 1))
    scoped = _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0
    attr = (ctypes.c_uint64 * 3)(everything, 0, scoped)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = kernel.syscall("landlock_create_ruleset", attr, size, 0)
    try:
        everywhere = everything & ~_MAKE_DEVICES if any_disk else (_EXECUTE | _READ_FILE | _READ_DIR) & everything
        _allow(ruleset, "/", everywhere)
        for path in (*WRITABLE, *writable):
            _allow(ruleset, path, everything & ~_MAKE_DEVICES)
        for path in DEVICES:
            _allow(ruleset, path, (_READ_FILE | _WRITE_FILE | 1 << 14) & everything & _FILE_RIGHTS)
        kernel.syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        kernel.syscall("landlock_add_rule", ruleset, 1, struct.pack("=Qi", rights, beneath), 0)
    finally:
        os.close(beneath)
