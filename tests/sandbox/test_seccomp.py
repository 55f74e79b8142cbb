"""The filter as a machine would run it, for both processors, and its numbers beside libseccomp's."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
from pathlib import Path

import pytest

from fumehood.sandbox import filters, seccomp
from fumehood.sandbox.seccomp import ALLOW, KILL, NOTIFY, REFUSE, TRACE, compile_filter
from fumehood.sandbox.syscall_numbers import NUMBERS
from fumehood.sandbox.syscalls import ABSENT, ALLOWED, CHECKED, HOSTILE, PROFILES, REFUSED, UNSUPPORTED

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def decide(
    machine: str, name: str | int, *args: int, arch: int | None = None, sampled: bool = False, profile: str = "plain"
) -> int:
    """Run the filter over one call, as the kernel's BPF machine does."""
    number = NUMBERS[name][list(MACHINES).index(machine)] if isinstance(name, str) else name
    assert number is not None
    program = compile_filter(machine, profile, sampled=sampled)
    return seccomp.decide(program, MACHINES[machine] if arch is None else arch, number, (*args, *([0] * 6))[:6])


def names(groups: tuple[tuple[str, str], ...], machine: str) -> list[str]:
    column = list(MACHINES).index(machine)
    return [name for _why, text in groups for name in text.split() if NUMBERS[name][column] is not None]


def test_what_the_table_allows_and_refuses_is_allowed_and_refused(machine: str) -> None:
    assert {name for name in names(ALLOWED, machine) if decide(machine, name) != ALLOW} == set()
    assert {name for name in names(REFUSED, machine) if decide(machine, name) != REFUSE | errno.EPERM} == set()
    assert {name for name in names(UNSUPPORTED, machine) if decide(machine, name) != REFUSE | errno.EOPNOTSUPP} == set()
    assert {name for name in names(HOSTILE, machine) if decide(machine, name) != KILL} == set()
    assert {name for name in names(ABSENT, machine) if decide(machine, name) != REFUSE | errno.ENOSYS} == set()


def test_every_other_number_is_unknown(machine: str) -> None:
    column = list(MACHINES).index(machine)
    extra = {name for groups in (*PROFILES.values(), ABSENT) for _why, text in groups for name in text.split()}
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
    "own_limit_of_open_files": ("prlimit64", (0, 7, 0x1234), 0),
    "limit_of_core_files_asked_for": ("prlimit64", (0, 4, 0), 0),
    "limit_of_core_files": ("prlimit64", (0, 4, 0x1234), errno.EPERM),
    "limit_of_core_files_from_far_away": ("prlimit64", (0, 4, 0x7FFF_0000_0000), errno.EPERM),
    "limit_of_core_files_by_the_older_call": ("setrlimit", (4, 0x1234), errno.EPERM),
    "another_limit_by_the_older_call": ("setrlimit", (3, 0x1234), 0),
    "reuse_address": ("setsockopt", (3, 1, 2), 0),
    "no_delay": ("setsockopt", (3, 6, 1), 0),
    "filter_on_a_socket": ("setsockopt", (3, 1, 26), errno.EPERM),
    "program_on_a_socket": ("setsockopt", (3, 1, 50), errno.EPERM),
    "filter_among_sockets": ("setsockopt", (3, 1, 51), errno.EPERM),
    "multicast": ("setsockopt", (3, 0, 35), errno.EPERM),
    "time_to_live": ("setsockopt", (3, 0, 2), 0),
    "multicast_6": ("setsockopt", (3, 41, 20), errno.EPERM),
    "only_6": ("setsockopt", (3, 41, 26), 0),
    "own_affinity": ("sched_setaffinity", (0, 8), 0),
    "affinity_of_process_1": ("sched_setaffinity", (1, 8), errno.EPERM),
    "policy_of_process_1": ("sched_setscheduler", (1, 0), errno.EPERM),
    "own_priority": ("setpriority", (0, 0, 5), 0),
    "priority_of_process_1": ("setpriority", (0, 1, 19), errno.EPERM),
    "priority_of_its_group": ("setpriority", (1, 1, 19), errno.EPERM),
    "priority_of_its_user": ("setpriority", (2, 0, 19), errno.EPERM),
    "a_mapping": ("mmap", (0, 4096, 3, 0x22), 0),
    "a_mapping_of_large_pages": ("mmap", (0, 4096, 3, 0x40022), errno.EINVAL),
    "a_memory_file": ("memfd_create", (0, 1), 0),
    "a_memory_file_of_large_pages": ("memfd_create", (0, 4), errno.EINVAL),
    "a_lock": ("fcntl", (3, 6), 0),
    "a_lock_of_an_open_file": ("fcntl", (3, 37), errno.EINVAL),
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
        name
        for groups in (ALLOWED, REFUSED, UNSUPPORTED, HOSTILE, ABSENT, *PROFILES.values())
        for _why, text in groups
        for name in text.split()
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


def test_a_filter_that_asks_lets_through_what_the_other_does_and_nothing_else(machine: str) -> None:
    plain = compile_filter(machine)
    asking = seccomp.notifying(plain)
    for number in [*range(600), 0x40000001]:
        for first in (0, 1, 17 | 0x10000000):
            verdicts = [
                seccomp.decide(code, MACHINES[machine], number, (first, 0, 0, 0, 0, 0)) for code in (plain, asking)
            ]
            if verdicts[0] == TRACE:
                assert verdicts[1] == REFUSE | errno.ENOSYS
            else:
                assert verdicts[1] == (ALLOW if verdicts[0] == ALLOW else NOTIFY)
