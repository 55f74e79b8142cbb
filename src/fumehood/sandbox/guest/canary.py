"""Tries, from inside a sandbox, what each wall is there to stop; prints a line `wall TAB up|down TAB what was seen`.

Arguments: a host file that must not be readable, a host port that must not answer, the host's namespaces as
`name=link` joined by commas, the limits as `name=number` joined by commas, the host's kernel. Inside gVisor some of this cannot
be told; who reads the lines knows which to ask for.
"""

import ctypes
import errno
import os
import resource
import socket
import stat
import sys

marker, port, namespaces, limits, kernel = sys.argv[1:6]
libc = ctypes.CDLL(None, use_errno=True)
numbers = {
    "x86_64": {"unshare": 272, "ptrace": 101, "keyctl": 250, "bpf": 321, "mount": 165},
    "aarch64": {"unshare": 97, "ptrace": 117, "keyctl": 219, "bpf": 280, "mount": 40},
}[os.uname().machine]


def say(wall, up, seen):
    print(wall, "up" if up else "down", seen, sep="\t")


def fails(action, *wanted):
    """Return (whether it failed with one of these errnos, what was seen)."""
    try:
        action()
    except OSError as error:
        return error.errno in wanted, errno.errorcode.get(error.errno, str(error.errno))
    return False, "it was allowed"


def raw(name, *args):
    if libc.syscall(numbers[name], *(ctypes.c_long(arg) for arg in args)) < 0:
        raise OSError(ctypes.get_errno(), name)


def connect(address):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(2)
        sock.connect(address)


def all_of(*attempts):
    return all(up for up, _seen in attempts), ", ".join(seen for _up, seen in attempts)


def status():
    with open("/proc/self/status") as file:
        return dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)


for pair in namespaces.split(","):
    name, outside = pair.split("=", 1)
    if os.path.exists(f"/proc/self/ns/{name}"):
        inside = os.readlink(f"/proc/self/ns/{name}")
        say(f"{name}-namespace", inside != outside, inside)

say(
    "files",
    *all_of(
        fails(lambda: open(marker), errno.ENOENT, errno.EACCES),
        fails(lambda: open("/etc/shadow"), errno.ENOENT),
        fails(lambda: open("/usr/lib/fumehood-canary", "w"), errno.EROFS, errno.EACCES),
        fails(lambda: open("/fumehood-canary", "w"), errno.EROFS, errno.EACCES),
    ),
)
say(
    "network",
    *all_of(
        fails(lambda: connect(("127.0.0.1", int(port))), errno.ECONNREFUSED),
        fails(lambda: connect(("192.0.2.1", 80)), errno.ENETUNREACH, errno.EHOSTUNREACH),
    ),
)
if os.path.exists("/proc/self"):
    facts = status()
    seen = sum(entry.isdigit() for entry in os.listdir("/proc"))
    say("proc", seen <= 2 and not os.path.exists("/proc/sys"), f"{seen} processes seen")
    say(
        "capabilities",
        not any(int(facts.get(key, "0"), 16) for key in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")),
        f"effective {facts['CapEff']}, bounding {facts['CapBnd']}",
    )
    if "NoNewPrivs" in facts:
        say("no-new-privileges", facts["NoNewPrivs"].strip() == "1", facts["NoNewPrivs"].strip())
        with open("/proc/self/uid_map") as file:
            outer = file.read().split()[1]
        say("own-user", outer != "0", f"user {os.getuid()} inside is {outer} outside")
else:
    say("proc", False, "not mounted")
say("own-kernel", os.uname().release != kernel, os.uname().release)
# A whiteout, which anyone may make where only mounts decide.
say("landlock", *fails(lambda: os.mknod("/work/whiteout", stat.S_IFCHR, 0), errno.EACCES))
say(
    "seccomp",
    *all_of(
        fails(lambda: raw("unshare", 0x10000000), errno.EPERM),
        fails(lambda: raw("ptrace", 0, 0, 0, 0), errno.EPERM),
        fails(lambda: raw("keyctl", 0, 0, 0), errno.EPERM),
        fails(lambda: raw("bpf", 0, 0, 0), errno.EPERM),
        fails(lambda: socket.socket(16, socket.SOCK_RAW), errno.EAFNOSUPPORT),
    ),
)

wanted = dict(pair.split("=") for pair in limits.split(","))
disk = os.statvfs("/work")
processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
say(
    "limits",
    processes <= int(wanted["pids"]) + 2 and max(resource.getrlimit(resource.RLIMIT_CORE)) <= 1,
    f"{processes} processes, no core files",
)
say(
    "disk",
    disk.f_blocks * disk.f_frsize <= int(wanted["disk_bytes"]) and disk.f_files <= int(wanted["disk_files"]),
    f"{disk.f_blocks * disk.f_frsize} bytes, {disk.f_files} files",
)
