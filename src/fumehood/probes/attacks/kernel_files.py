"""Attacks on the files that the kernel makes up, in /proc and /sys: writing what is the machine's, reading what is the host's."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from ..host_side import secret_file, victim
from ..suite import LeftOut, Suite, holds, one_of, same

if TYPE_CHECKING:
    from ..target import Target

SUITE = Suite("kernel_files")
# Where another kernel stands between, it answers otherwise.
_WAYS = ("cold", "warm", "unwalled")

_FILES = {
    "the score by which the kernel kills": ("/proc/self/oom_score_adj", "500"),
    "that score, to be spared": ("/proc/self/oom_score_adj", "-1000"),
    "that score, by its older name": ("/proc/self/oom_adj", "-17"),
    "its name": ("/proc/self/comm", "x"),
    "the map of its users": ("/proc/self/uid_map", "0 0 1"),
    "the map of its groups": ("/proc/self/gid_map", "0 0 1"),
    "the map of its projects": ("/proc/self/projid_map", "0 0 1"),
    "whether it may drop groups": ("/proc/self/setgroups", "allow"),
    "the clock's offsets": ("/proc/self/timens_offsets", "monotonic 1 0"),
    "what the kernel does with a core": ("/proc/sys/kernel/core_pattern", ""),
    "what a core holds": ("/proc/self/coredump_filter", "0x7f"),
    "who logged in": ("/proc/self/loginuid", "0"),
    "which pages were used": ("/proc/self/clear_refs", "1"),
    "its label": ("/proc/self/attr/current", "unconfined"),
    "its label at the next program": ("/proc/self/attr/exec", "unconfined"),
    "the group that it is scheduled in": ("/proc/self/autogroup", "-20"),
    "its memory, past the pages' rights": ("/proc/self/mem", ""),
    "the keys of the machine": ("/proc/sysrq-trigger", ""),
    "how late timers may be": ("/proc/self/timerslack_ns", "1"),
    "how many namespaces there may be": ("/proc/sys/user/max_user_namespaces", ""),
    "which program loads modules": ("/proc/sys/kernel/modprobe", ""),
    "which processes share memory": ("/proc/sys/kernel/shmmax", ""),
    "whether packets are forwarded": ("/proc/sys/net/ipv4/ip_forward", ""),
    "interrupts": ("/proc/irq/default_smp_affinity", ""),
    "formats of programs": ("/proc/sys/fs/binfmt_misc/register", ""),
}


@SUITE.probe_each(
    "P74", _FILES, tried="write in /proc: {}", expected="EACCES or nothing there", wall="proc", only_ways=_WAYS
)
def the_kernels_files_cannot_be_written(target: Target, path: str, text: str) -> None:
    result = target.run(
        f"""
        def write():
            file = os.open({path!r}, os.O_WRONLY)
            if {text!r}:  # what is the whole machine's is opened, never written
                os.write(file, {text!r}.encode())
        print(tried(write), os.path.isdir("/sys"))
        """
    )
    one_of(result.stdout, ("EACCES False\n", "ENOENT False\n"))


@SUITE.probe("P74", tried="open for writing every file that there is in its own folder of /proc", expected="none", wall="landlock", only_ways=_WAYS)  # fmt: skip
def no_file_of_its_own_process_can_be_written(target: Target) -> None:
    result = target.run("""
        for folder, _names, files in os.walk("/proc/self/", followlinks=False):
            for name in files:
                path = os.path.join(folder, name)
                if "/fd" not in folder and not os.path.islink(path) and tried(lambda: os.close(os.open(path, os.O_WRONLY))) == "done":
                    print(path)
        print("looked")
    """)
    same(result.stdout, "looked\n")


@SUITE.probe(
    "P74",
    tried="raise the limit of core files",
    expected="it stays 1 byte, too little for any",
    wall="limits",
    only_ways=_WAYS,
)
def no_core_can_be_had(target: Target) -> None:
    result = target.run("""
        import resource
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
        except (OSError, ValueError):
            pass
        print(resource.getrlimit(resource.RLIMIT_CORE))
    """)
    # With 0 the kernel would still pass a core on to a helper of the host's, but not with 1.
    same(result.stdout, "(1, 1)\n")


@SUITE.probe(
    "P75", tried="look for cgroups", expected="none, and its own is the root", wall="cgroup-namespace", only_ways=_WAYS
)
def no_cgroup_is_seen(target: Target) -> None:
    result = target.run(
        "print(os.path.exists('/sys/fs/cgroup'), set(l.split(':')[2] for l in open('/proc/self/cgroup')) <= {'/\\n'})"
    )
    same(result.stdout, "False True\n")


@SUITE.probe("P75", tried="look for mounts of cgroups, devices, debugging and the kernel's settings", expected="none", wall="files", only_ways=_WAYS)  # fmt: skip
def no_file_system_of_the_kernels_is_mounted(target: Target) -> None:
    result = target.run("""
        kinds = [line.split(" - ")[1].split()[0] for line in open("/proc/self/mountinfo")]
        print(sorted(set(kinds) & {"cgroup", "cgroup2", "sysfs", "debugfs", "tracefs", "securityfs", "bpf", "devpts", "mqueue",
                                   "configfs", "fusectl", "pstore", "efivarfs", "binfmt_misc", "hugetlbfs", "nsfs"}))
    """)
    same(result.stdout, "[]\n")


@SUITE.probe(
    "P11",
    tried="look for a mount on which setuid programs gain something",
    expected="none",
    wall="files",
    only_ways=_WAYS,
)
def no_mount_honours_setuid(target: Target) -> None:
    result = target.run("""
        lines = [line.split() for line in open("/proc/self/mountinfo")]
        print([line[4] for line in lines if "nosuid" not in line[5].split(",")])
    """)
    same(result.stdout, "[]\n")


@SUITE.probe(
    "P08",
    tried="look for a mount on which device files work, but for five",
    expected="none",
    wall="files",
    only_ways=_WAYS,
)
def no_mount_honours_devices(target: Target) -> None:
    result = target.run("""
        lines = [line.split() for line in open("/proc/self/mountinfo")]
        known = {"/dev/" + name for name in ("full", "null", "random", "urandom", "zero")}
        print([line[4] for line in lines if "nodev" not in line[5].split(",") and line[4] not in known])
    """)
    same(result.stdout, "[]\n")


_PLACES = ["kallsyms", "kcore", "keys", "config.gz", "cmdline", "modules", "timer_list", "cpuinfo", "meminfo", "sys"]
_PLACES += ["key-users", "kmsg", "iomem", "ioports", "partitions", "version", "uptime", "slabinfo", "vmallocinfo"]
_PLACES += [
    "pagetypeinfo",
    "sched_debug",
    "kpageflags",
    "kpagecount",
    "interrupts",
    "stat",
    "loadavg",
    "bus",
    "scsi",
    "acpi",
]


@SUITE.probe(
    "P77",
    tried="look for what tells of the kernel and the machine",
    expected="nothing there",
    wall="proc",
    only_ways=_WAYS,
)
def nothing_tells_of_the_kernel_or_the_machine(target: Target) -> None:
    result = target.run(
        f"print([p for p in {_PLACES} if os.path.lexists('/proc/' + p)] + [p for p in ['/sys'] if os.path.exists(p)])"
    )
    same(result.stdout, "[]\n")


@SUITE.probe(
    "P77",
    tried="read all of /proc for the host's identity, hardware, and other processes' arguments and environment",
    expected="none of it",
    wall="proc",
    only_ways=_WAYS,
)
def nothing_in_proc_tells_of_the_host(target: Target) -> None:
    argument, variable = secrets.token_hex(12), secrets.token_hex(12)
    code = (
        f"import os, sys\nos.execve(sys.executable, ['python', '-c', 'input()', '{argument}'], {{'X': '{variable}'}})"
    )
    with victim(code) as process:
        words = [*_hosts_identity(), argument, variable]
        result = target.run(
            """
            # They come backwards, so that this process's own arguments do not hold them.
            words = [word[::-1].encode() for word in sys.argv[2:]]
            places = [sys.argv[1], "self", "sys/kernel"] if os.path.isdir("/sys") else [""]
            skipped = {"mem", "pagemap", "kmsg", "clear_refs"}
            for place in places:
                for folder, _names, files in os.walk("/proc/" + place):
                    for name in set(files) - skipped if "/fd" not in folder and "map_files" not in folder else ():
                        path = os.path.join(folder, name)
                        try:
                            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                                text = file.read(1 << 18)
                        except OSError:
                            continue
                        for number, word in enumerate(words):
                            if word in text:
                                print(number, path)
            print("looked", os.uname().nodename.encode() in words)
            """,
            args=[str(process.pid), *(word[::-1] for word in words)],
        )
    same(result.stdout, "looked False\n")


def _hosts_identity() -> list[str]:
    """Return what names this host: its name, its boot, its installation, its network cards, how its kernel was started."""
    files = [Path("/proc/sys/kernel/random/boot_id"), Path("/etc/machine-id"), Path("/proc/cmdline")]
    files += Path("/sys/class/net").glob("*/address")
    words = [socket.gethostname(), *(path.read_text("utf-8").strip()[:60] for path in files if path.is_file())]
    # A short name, or a loop's address of zeros, is found anywhere.
    return [word for word in words if len(word) >= 8 and not word.startswith("00:00:00")]


@SUITE.probe(
    "P77",
    tried="read or set the host's name",
    expected="one that is everybody's",
    wall="uts-namespace",
    only_ways=_WAYS,
)
def the_hosts_name_is_not_told(target: Target) -> None:
    result = target.run("print(os.uname().nodename, os.uname().version == sys.argv[1], os.readlink('/proc/self/ns/uts'))",
                        args=[os.uname().version])  # fmt: skip
    name, _version, namespace = result.stdout.split()
    holds(name != socket.gethostname() and namespace != str(Path("/proc/self/ns/uts").readlink()), f"it is {name}")


@SUITE.probe(
    "P12",
    tried="look at its capabilities",
    expected="none in any set",
    wall="capabilities",
    only_ways=_WAYS,
)
def every_set_of_capabilities_is_empty(target: Target) -> None:
    result = target.run("print({int(l.split()[1], 16) for l in open('/proc/self/status') if l.startswith('Cap')})")
    same(result.stdout, "{0}\n")


@SUITE.probe("P12", tried="become another user by all eight calls", expected="EPERM or EINVAL", wall="own-user", only_ways=_WAYS)  # fmt: skip
def it_cannot_become_another_user(target: Target) -> None:
    result = target.run("""
        calls = {
            "setuid": lambda: os.setuid(0), "setgid": lambda: os.setgid(0), "seteuid": lambda: os.seteuid(0),
            "setegid": lambda: os.setegid(0), "setreuid": lambda: os.setreuid(0, 0), "setregid": lambda: os.setregid(0, 0),
            "setresuid": lambda: os.setresuid(0, 0, 0), "setgroups": lambda: os.setgroups([0]),
        }
        print({tried(call) for call in calls.values()} <= {"EPERM", "EINVAL"}, 0 in os.getresuid() + os.getresgid())
    """)
    same(result.stdout, "True False\n")


@SUITE.probe(
    "P67",
    tried="read the memory and environment of the sandbox's first process",
    expected="refused",
    wall="proc",
    only_ways=_WAYS,
)
def our_first_process_cannot_be_read(target: Target) -> None:
    result = target.run("""
        if os.path.exists("/proc/sys"):
            print("done")
        print(tried(lambda: open("/proc/1/mem", "rb")), tried(lambda: open("/proc/1/environ", "rb").read()))
    """)
    same(set(result.stdout.split()) - {"EACCES", "ENOENT", "EPERM", "ESRCH"}, set())


@SUITE.probe_each(
    "P03",
    {
        "root": "[f'/proc/{pid}/root{path}' for pid in pids]",
        "cwd": "[f'/proc/{pid}/cwd/' + '../' * 30 + path for pid in pids]",
        "root of a thread": "[f'/proc/{pid}/task/{pid}/root{path}' for pid in pids]",
        "fd": "[f'/proc/{pid}/fd/{number}/' + '../' * 30 + path for pid in pids for number in range(64)]",
    },
    tried="read a file of the host's through {} in /proc of every process from 1 to 200", expected="it is not there", wall="files", only_ways=_WAYS,
)  # fmt: skip
def no_process_leads_to_the_hosts_files(target: Target, paths: str) -> None:
    with secret_file() as secret:
        result = target.run(
            f"""
            # Without walls a descriptor of a folder stands for what careless code would leak.
            kept = os.open("/", os.O_RDONLY) if os.path.isdir("/sys") else None
            path, pids = sys.argv[1], [*range(1, 200), "self", os.getpid(), os.getppid()]
            for place in {paths}:
                try:
                    print(open(place).read())
                except OSError:
                    pass
            """,
            args=[str(secret)],
        )
        holds(secret.read_text() not in result.stdout, "the file was read")
        same(result.exit_code, 0)


@SUITE.probe_each(
    "P66",
    {name: name for name in ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")},
    tried="open the {} namespace of its parent and of process 1", expected="not there", wall="proc", only_ways=_WAYS,
)  # fmt: skip
def no_namespace_of_another_can_be_opened(target: Target, kind: str) -> None:
    result = target.run(f"""
        for pid in (1, os.getppid()):
            print(tried(lambda: os.open(f"/proc/{{pid}}/ns/{kind}", os.O_RDONLY)))
    """)
    same(set(result.stdout.split()) - {"ENOENT", "EACCES"}, set())
    same(result.exit_code, 0)


@SUITE.probe_each(
    "P66",
    {name: name for name in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")},
    tried="compare its {} namespace with the host's", expected="another one", wall="proc", only_ways=_WAYS,
)  # fmt: skip
def its_namespace_is_another_one(target: Target, kind: str) -> None:
    place = f"/proc/self/ns/{kind}"
    result = target.run(f"print(os.readlink({place!r}))")
    if not os.path.lexists(place):
        raise LeftOut(f"this kernel has no {kind} namespaces")
    holds(result.stdout.startswith(f"{kind}:["), "the program could not look")
    holds(result.stdout.strip() != os.readlink(place), "it is the host's")


@SUITE.probe(
    "P73",
    tried="trace, or read in /proc, a process of the host's and process 1",
    expected="refused",
    wall="seccomp",
    only_ways=_WAYS,
)
def no_process_outside_can_be_traced_or_read(target: Target) -> None:
    # From inside the sandbox its own first process is the nearest that is ours; without walls any of the host's is.
    with victim() as process:
        result = target.run(
            """
            first = int(sys.argv[1]) if os.path.isdir("/sys") else 1
            for victim in (first, int(sys.argv[1])):
                print(raw(101, 117, 0x4206, victim, 0, 0), tried(lambda: open(f"/proc/{victim}/mem", "rb")),
                      tried(lambda: os.readlink(f"/proc/{victim}/exe")), tried(lambda: os.listdir(f"/proc/{victim}/fd")))
            """,
            args=[str(process.pid)],
        )
    answers = result.stdout.split()
    same(len(answers), 8)
    same(set(answers) - {"EPERM", "EACCES", "ENOENT"}, set())
