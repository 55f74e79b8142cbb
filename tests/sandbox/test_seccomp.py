"""The filter as a machine would run it, for both processors, and its numbers beside libseccomp's."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import struct
from pathlib import Path

import pytest

from fumehood.sandbox import filters
from fumehood.sandbox.seccomp import ALLOW, KILL, TRACE, compile_filter
from fumehood.sandbox.syscall_numbers import NUMBERS
from fumehood.sandbox.syscalls import ALLOWED, CHECKED, PROFILES, REFUSED

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
REFUSE = 0x00050000


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def decide(
    machine: str, name: str | int, *args: int, arch: int | None = None, sampled: bool = False, profile: str = "plain"
) -> int:
    """Run the filter over one call, as the kernel's BPF machine does."""
    number = NUMBERS[name][list(MACHINES).index(machine)] if isinstance(name, str) else name
    assert number is not None
    padded = (*args, *([0] * 6))[:6]
    data = struct.pack("=iIQ6Q", number, MACHINES[machine] if arch is None else arch, 0, *padded)
    code = list(struct.iter_unpack("=HBBI", compile_filter(machine, profile, sampled=sampled)))
    place, accumulator = 0, 0
    while True:
        operation, if_true, if_false, value = code[place]
        place += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif operation == 0x06:
            return int(value)
        elif operation == 0x05:
            place += value
        elif operation == 0x54:
            accumulator &= value
        else:
            truth = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[operation]
            place += if_true if truth else if_false


def names(groups: tuple[tuple[str, str], ...], machine: str) -> list[str]:
    column = list(MACHINES).index(machine)
    return [name for _why, text in groups for name in text.split() if NUMBERS[name][column] is not None]


def test_what_the_table_allows_and_refuses_is_allowed_and_refused(machine: str) -> None:
    assert {name for name in names(ALLOWED, machine) if decide(machine, name) != ALLOW} == set()
    assert {name for name in names(REFUSED, machine) if decide(machine, name) != REFUSE | errno.EPERM} == set()


def test_every_other_number_is_unknown(machine: str) -> None:
    column = list(MACHINES).index(machine)
    extra = {name for groups in PROFILES.values() for _why, text in groups for name in text.split()}
    known = {numbers[column] for name, numbers in NUMBERS.items() if name not in extra}
    unknown = [number for number in range(600) if number not in known]
    assert {decide(machine, number) for number in unknown} == {REFUSE | errno.ENOSYS}


def test_another_processor_mode_kills(machine: str) -> None:
    assert decide(machine, "read", arch=0x40000003) == KILL
    assert decide("x86_64", 0x40000000) == KILL


@pytest.mark.parametrize("flag", [0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000])
def test_clone_makes_no_namespace(machine: str, flag: int) -> None:
    assert decide(machine, "clone", flag | 17) == REFUSE | errno.EPERM
    assert decide(machine, "clone", 0x3D0F00) == ALLOW
    # ENOSYS where nobody traces, which no guest can.
    assert decide(machine, "clone3") == TRACE


CHECKS: dict[str, tuple[str, tuple[int, ...], int]] = {
    "tiocsti": ("ioctl", (0, 0x5412), errno.ENOTTY),
    "tiocsti_with_high_bits": ("ioctl", (0, 0x1_0000_5412), errno.ENOTTY),
    "tioclinux": ("ioctl", (0, 0x541C), errno.ENOTTY),
    "tiocsctty": ("ioctl", (0, 0x540E), errno.ENOTTY),
    "fionread": ("ioctl", (0, 0x541B), 0),
    "unix_stream": ("socket", (1, 1 | 0o2000000, 0), 0),
    "unix_seqpacket": ("socket", (1, 5, 0), 0),
    "tcp": ("socket", (2, 1, 6), 0),
    "udp6": ("socket", (10, 2, 17), 0),
    "raw": ("socket", (2, 3, 1), errno.EPROTONOSUPPORT),
    "sctp": ("socket", (2, 1, 132), errno.EPROTONOSUPPORT),
    "mptcp": ("socket", (2, 1, 262), errno.EPROTONOSUPPORT),
    "netlink": ("socket", (16, 3, 0), errno.EAFNOSUPPORT),
    "alg": ("socket", (38, 5, 0), errno.EAFNOSUPPORT),
    "vsock": ("socket", (40, 1, 0), errno.EAFNOSUPPORT),
    "socketpair": ("socketpair", (1, 1, 0), 0),
    "socketpair_inet": ("socketpair", (2, 1, 0), errno.EAFNOSUPPORT),
    "set_name": ("prctl", (15,), 0),
    "drop_from_the_bounding_set": ("prctl", (24, 21), 0),
    "set_seccomp": ("prctl", (22,), errno.EINVAL),
    "set_mm": ("prctl", (35,), errno.EINVAL),
    "personality_query": ("personality", (0xFFFFFFFF,), 0),
    "no_random_addresses": ("personality", (0x40000,), errno.EPERM),
    "own_limits": ("prlimit64", (0,), 0),
    "anothers_limits": ("prlimit64", (1,), errno.EPERM),
}


@pytest.mark.parametrize(("name", "args", "number"), CHECKS.values(), ids=CHECKS.keys())
def test_arguments_are_checked(machine: str, name: str, args: tuple[int, ...], number: int) -> None:
    assert name in CHECKED
    assert decide(machine, name, *args) == (REFUSE | number if number else ALLOW)


def test_where_memory_is_sampled_unseen_memory_cannot_be_had(machine: str) -> None:
    assert decide(machine, "memfd_create") == ALLOW
    assert decide(machine, "memfd_create", sampled=True) == REFUSE | errno.ENOSYS


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_shipped_filters_are_what_the_table_makes(machine: str, profile: str, sampled: bool) -> None:
    shipped = Path(filters.path(machine, profile, sampled=sampled)).read_bytes()
    assert shipped == compile_filter(machine, profile, sampled=sampled), "run scripts/filters"


def test_a_profile_allows_what_it_names_and_others_do_not(machine: str) -> None:
    assert decide(machine, "pkey_alloc", profile="v8") == ALLOW
    assert decide(machine, "pkey_alloc") == REFUSE | errno.ENOSYS


def test_no_call_stands_in_two_groups() -> None:
    listed = [
        name for groups in (ALLOWED, REFUSED, *PROFILES.values()) for _why, text in groups for name in text.split()
    ] + list(CHECKED)
    assert len(listed) == len(set(listed))
    assert set(listed) | {"clone3"} == set(NUMBERS)


def test_numbers_are_libseccomps() -> None:
    library = ctypes.util.find_library("seccomp")
    if library is None:
        pytest.skip("libseccomp is not installed: its numbers cannot be compared")
    resolve = ctypes.CDLL(library).seccomp_syscall_resolve_name_arch
    for name, numbers in NUMBERS.items():
        for number, arch in zip(numbers, MACHINES.values(), strict=True):
            theirs = resolve(ctypes.c_uint32(arch), name.encode())
            # Below zero: it has no number there, or is newer than the library.
            assert theirs < 0 or theirs == number, name


def test_dumpable_is_left_to_a_tracer(machine: str) -> None:
    assert decide(machine, "prctl", 4) == TRACE
    assert decide(machine, "prctl", 0x1_0000_0004) == TRACE
