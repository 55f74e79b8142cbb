"""Attacks on the kernel by system call. Arguments are such that without walls the answer is another one, for anyone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from .conftest import Attack

#: Name: (call, the errno that the walls answer). Numbers are x86-64's and arm64's.
CALLS = {
    "p09_mount": ("raw(165, 40, 1, 1, 1, 0, 0)", "EPERM"),
    "p09_open_tree": ("raw(428, 428, -1, 0, -1)", "EPERM"),
    "p09_mount_setattr": ("raw(442, 442, -1, 0, 0xffff0000, 0, 0)", "EPERM"),
    "p09_fsopen": ("raw(430, 430, 1, 0)", "EPERM"),
    "p09_fsmount": ("raw(432, 432, -1, 0, 0)", "EPERM"),
    "p09_fspick": ("raw(433, 433, -1, 1, 0)", "EPERM"),
    "p09_move_mount": ("raw(429, 429, -1, 1, -1, 1, 0)", "EPERM"),
    "p10_umount": ("raw(166, 39, 1, 0xffff)", "EPERM"),
    "p10_chroot": ("raw(161, 51, 1)", "EPERM"),
    "p37_clone_into_a_new_user_namespace": ("cloned(0x10000000)", "EPERM"),
    "p37_clone_into_a_new_time_namespace": ("cloned(0x10000000 | 0x80)", "EPERM"),
    "p37_clone_into_a_new_process_namespace": ("cloned(0x20000000)", "EPERM"),
    "p37_clone_into_a_new_network_namespace": ("cloned(0x40000000)", "EPERM"),
    "p37_clone3": ("raw(435, 435, 0, 0)", "ENOSYS"),
    "p42_clock_settime": ("raw(227, 112, 0, 1)", "EPERM"),
    "p42_settimeofday": ("raw(164, 170, 1, 0)", "EPERM"),
    "p42_adjtimex": ("raw(159, 171, 1)", "EPERM"),
    "p58_add_key": ("raw(248, 217, 1, 1, 0, 0, 0)", "EPERM"),
    "p58_request_key": ("raw(249, 218, 1, 1, 0, 0)", "EPERM"),
    "p62_io_uring_setup": ("raw(425, 425, 1, 0)", "EPERM"),
    "p62_io_uring_enter": ("raw(426, 426, -1, 0, 0, 0, 0, 0)", "EPERM"),
    "p62_io_uring_register": ("raw(427, 427, -1, 0, 0, 0)", "EPERM"),
    "p63_bpf": ("raw(321, 280, 0, 1, 1 << 20)", "EPERM"),
    "p63_perf_event_open": ("raw(298, 241, 1, 0, -1, -1, 0xffff)", "EPERM"),
    "p64_userfaultfd": ("raw(323, 282, 1 | 4)", "EPERM"),
    "p65_unshare_user": ("raw(272, 97, 0x10000000)", "EPERM"),
    "p65_unshare_user_net_mount": ("raw(272, 97, 0x10000000 | 0x40000000 | 0x20000)", "EPERM"),
    "p66_setns": ("raw(308, 268, -1, 0)", "EPERM"),
    "p68_no_random_addresses": ("raw(135, 92, 0x0040000)", "EPERM"),
    "p68_read_implies_exec": ("raw(135, 92, 0x0400000)", "EPERM"),
    "p71_keyctl": ("raw(250, 219, 999, 0, 0, 0, 0)", "EPERM"),
    "p71_join_a_session_keyring": ("raw(250, 219, 1, 0, 0, 0, 0)", "EPERM"),
    "p73_seccomp_by_prctl": ("raw(157, 167, 22, 2, 1, 0, 0)", "EINVAL"),
    "p73_process_madvise": ("raw(440, 440, -1, 0, 0, 0, 0)", "EPERM"),
    "p73_seccomp_listener": ("raw(317, 277, 1, 8, 1)", "EPERM"),
    "p73_ptrace": ("raw(101, 117, 0, 0, 0, 0)", "EPERM"),
    "p73_process_vm_readv": ("raw(310, 270, os.getpid(), 0, 0, 0, 0, 0)", "EPERM"),
    "p73_pidfd_getfd": ("raw(438, 438, -1, 0, 0)", "EPERM"),
    "p73_kcmp": ("raw(312, 272, os.getpid(), os.getpid(), 0, 0, 0)", "EPERM"),
    "p50_shmget": ("raw(29, 194, 0, 1, 0)", "EPERM"),
    "p50_msgget": ("raw(68, 186, 0, 0)", "EPERM"),
    "p50_semget": ("raw(64, 190, 0, 1, 0)", "EPERM"),
    "p28_mq_open": ("raw(240, 180, 0, 64, 0o600, 0)", "EPERM"),
    "p54_fanotify_init": ("raw(300, 262, 0x200, 0)", "EPERM"),
    "p78_quotactl": ("raw(179, 60, 0xffffffff, 1, 0, 0)", "EPERM"),
    "p78_swapon": ("raw(167, 224, 1, 0x40000000)", "EPERM"),
    "p78_reboot": ("raw(169, 142, 0, 0, 0, 0)", "EPERM"),
    "p78_pivot_root": ("raw(155, 41, 1, 1)", "EPERM"),
    "p78_sethostname": ("raw(170, 161, 1, 1 << 20)", "EPERM"),
    "migrate_pages": ("raw(256, 238, os.getpid(), 0, 0, 0)", "EPERM"),
    "move_pages": ("raw(279, 239, 0, 0, 0, 0, 0, 0)", "EPERM"),
    "set_mempolicy": ("raw(238, 237, 99, 0, 0)", "EPERM"),
    "ioprio_set": ("raw(251, 30, 1, 0, (2 << 13) | 7)", "EPERM"),
    "vmsplice": ("raw(278, 75, -1, 0, 0, 0)", "EPERM"),
    "name_to_handle_at": ("raw(303, 264, -100, 1, 0, 0, 0xffff)", "EPERM"),
    "mbind": ("raw(237, 235, 1, 1, 99, 0, 0, 0)", "EPERM"),
}

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


@pytest.mark.parametrize(("call", "wanted"), CALLS.values(), ids=CALLS.keys())
def test_the_call_is_refused(attack: Attack, call: str, wanted: str) -> None:
    assert attack(_PROGRAM.format(call=call)).stdout == f"{wanted}\n"


#: What only root could do without walls; the arguments are of no use even then.
ROOTS_CALLS = {
    "kexec_load": "raw(246, 104, 0, 1 << 20, 0, 0)",
    "init_module": "raw(175, 105, 1, 1, 1)",
    "acct": "raw(163, 89, 1)",
    "syslog": "raw(103, 116, 99, 0, 0)",
    "open_by_handle_at": "raw(304, 265, -1, 1, 0)",
    "delete_module": "raw(176, 106, 1, 0)",
    "alarm_clock": "raw(283, 85, 8, 0)",
}


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("call", ROOTS_CALLS.values(), ids=ROOTS_CALLS.keys())
def test_p78_the_machine_itself_is_out_of_reach(attack: Attack, call: str) -> None:
    assert attack(f"print({call})").stdout == "EPERM\n"


SOCKETS = {
    "p70_netlink": ("16, socket.SOCK_RAW, 0", "EAFNOSUPPORT"),
    "p70_packet": ("17, socket.SOCK_RAW, 0", "EAFNOSUPPORT"),
    "p70_kernel_crypto": ("38, socket.SOCK_SEQPACKET, 0", "EAFNOSUPPORT"),
    "p05_vsock": ("40, socket.SOCK_STREAM, 0", "EAFNOSUPPORT"),
    "p70_raw_icmp": ("socket.AF_INET, socket.SOCK_RAW, 1", "EPROTONOSUPPORT"),
    "p70_multipath_tcp": ("socket.AF_INET, socket.SOCK_STREAM, 262", "EPROTONOSUPPORT"),
    "p70_udp_lite": ("socket.AF_INET, socket.SOCK_DGRAM, 136", "EPROTONOSUPPORT"),
    "p70_sctp": ("socket.AF_INET, socket.SOCK_STREAM, 132", "EPROTONOSUPPORT"),
    "p70_xdp": ("44, socket.SOCK_RAW, 0", "EAFNOSUPPORT"),
    "p70_tipc": ("30, socket.SOCK_RDM, 0", "EAFNOSUPPORT"),
    "p70_audit": ("16, socket.SOCK_RAW, 9", "EAFNOSUPPORT"),
    "p70_netfilter": ("16, socket.SOCK_RAW, 12", "EAFNOSUPPORT"),
    "p70_ping": ("socket.AF_INET, socket.SOCK_DGRAM, 1", "EPROTONOSUPPORT"),
}


@pytest.mark.parametrize(("arguments", "wanted"), SOCKETS.values(), ids=SOCKETS.keys())
def test_the_socket_is_refused(attack: Attack, arguments: str, wanted: str) -> None:
    result = attack(f"print(tried(lambda: socket.socket({arguments})), os.path.isdir('/sys'))")
    assert result.stdout == f"{wanted} False\n"


FILES = {
    "oom_score": ("/proc/self/oom_score_adj", "500"),
    "name": ("/proc/self/comm", "x"),
    "user_map": ("/proc/self/uid_map", "0 0 1"),
    "core_pattern": ("/proc/sys/kernel/core_pattern", ""),
    "sysrq": ("/proc/sysrq-trigger", ""),
    "timer_slack": ("/proc/self/timerslack_ns", "1"),
}


@pytest.mark.parametrize(("path", "text"), FILES.values(), ids=FILES.keys())
def test_p74_the_kernels_files_cannot_be_written(attack: Attack, path: str, text: str) -> None:
    result = attack(
        f"""
        def write():
            file = os.open({path!r}, os.O_WRONLY)
            if {text!r}:  # what is the whole machine's is opened, never written
                os.write(file, {text!r}.encode())
        print(tried(write), os.path.isdir("/sys"))
        """
    )
    assert result.stdout in ("EACCES False\n", "ENOENT False\n")


def test_p75_no_cgroup_is_seen(attack: Attack) -> None:
    result = attack(
        "print(os.path.exists('/sys/fs/cgroup'), set(l.split(':')[2] for l in open('/proc/self/cgroup')) <= {'/\\n'})"
    )
    assert result.stdout == "False True\n"


def test_p77_nothing_tells_of_the_kernel_or_the_machine(attack: Attack) -> None:
    places = ["kallsyms", "kcore", "keys", "config.gz", "cmdline", "modules", "timer_list", "cpuinfo", "meminfo", "sys"]
    result = attack(
        f"print([p for p in {places} if os.path.exists('/proc/' + p)] + [p for p in ['/sys'] if os.path.exists(p)])"
    )
    assert result.stdout == "[]\n"


def test_p12_every_set_of_capabilities_is_empty(attack: Attack) -> None:
    result = attack("print({int(l.split()[1], 16) for l in open('/proc/self/status') if l.startswith('Cap')})")
    assert result.stdout == "{0}\n"


def test_p67_dumpable_helpers_memory_cannot_be_read(attack: Attack) -> None:
    result = attack("""
        if os.path.exists("/proc/sys"):
            print("done")
        print(tried(lambda: open("/proc/1/mem", "rb")), tried(lambda: open("/proc/1/environ", "rb").read()))
    """)
    assert set(result.stdout.split()) <= {"EACCES", "ENOENT", "EPERM", "ESRCH"}


def test_p66_a_leaked_namespace_cannot_be_entered(attack: Attack) -> None:
    leaked = os.open("/proc/self/ns/net", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        result = attack("""
            for number in range(3, 1024):
                if os.path.exists(f"/proc/self/fd/{number}"):
                    print(number, raw(308, 268, number, 0))
            print(raw(308, 268, os.open("/proc/self/ns/user", os.O_RDONLY), 0))
        """)
    finally:
        os.close(leaked)
    assert result.stdout == "EPERM\n"


def test_p79_rules_of_its_own_come_on_top_of_ours(attack: Attack) -> None:
    # The kernel stacks 16 layers of Landlock rules; ours is one of them, so 15 are left.
    result = attack("""
        libc.prctl(38, 1, 0, 0, 0)
        rules = libc.syscall(ctypes.c_long(444), (ctypes.c_uint64 * 1)(1), ctypes.c_long(8), ctypes.c_long(0))
        layers = 0
        while layers < 20 and raw(446, 446, rules, 0) == "done":
            layers += 1
        print(layers)
    """)
    assert (result.reason, result.stdout) == ("exited", "15\n")


OTHER_MODES = {
    "x32": ("raw(0x40000000 + 39, 0)", {"SIGSYS"}),
    # mov eax, 20 (getpid); int 0x80; ret. A kernel without 32-bit calls sends the other signal.
    "i386": ("run(bytes.fromhex('b814000000cd80c3'))", {"SIGSYS", "SIGSEGV"}),
}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="this processor has one way to call the kernel")
@pytest.mark.parametrize(("call", "signals"), OTHER_MODES.values(), ids=OTHER_MODES.keys())
def test_calling_the_kernel_in_another_mode_is_death(attack: Attack, call: str, signals: set[str]) -> None:
    result = attack(f"""
        import mmap
        def run(code):
            place = mmap.mmap(-1, 4096, prot=7)
            place.write(code)
            return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(place)))()
        {call}
        print("survived")
    """)
    assert result.stdout == ""
    assert result.signal in signals


def test_p73_no_process_outside_can_be_traced_or_read(attack: Attack) -> None:
    # From inside the sandbox its own first process is the nearest that is ours; without walls any of the host's is.
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim:
        result = attack(
            """
            first = int(sys.argv[1]) if os.path.isdir("/sys") else 1
            for victim in (first, int(sys.argv[1])):
                print(raw(101, 117, 0x4206, victim, 0, 0), tried(lambda: open(f"/proc/{victim}/mem", "rb")),
                      tried(lambda: os.readlink(f"/proc/{victim}/exe")), tried(lambda: os.listdir(f"/proc/{victim}/fd")))
            """,
            args=[str(victim.pid)],
        )
        victim.kill()
    answers = result.stdout.split()
    assert len(answers) == 8
    assert set(answers) <= {"EPERM", "EACCES", "ENOENT"}
