"""The second isolation: gVisor's own kernel (`runsc`, from the system) inside the walls of namespaces.

Promised: a program's system calls are answered by gVisor's kernel, a process of the sandbox's user in the sandbox's own
namespaces, cgroup, made-up file tree and network of nothing but `lo`: whoever breaks out of it is where a program is by
default, without the seccomp list and Landlock, which gVisor's processes could not work under; it has a list of its own.
Not promised: the speed of the default, warm starts, forks of sessions, a program's fatal signal told from its exit code.
"""

from __future__ import annotations

import _signal
import math
import os

from ...errors import SandboxUnavailable
from .. import init, kernel, rlimits, tree
from ..landlock import DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...protocol.limits import Limits
    from ..spec import Spec

#: What gVisor needs beside the program: memory of its own, and threads, of which its older platform makes many for each process.
OWN_BYTES, OWN_THREADS = 128 << 20, 4096
#: Where things lie in the outer tree: the program's tree, `runsc` and what it is told, and where it keeps notes.
GUEST, PROGRAM, BUNDLE, NOTES = "/guest", "/gvisor/runsc", "/gvisor", "/notes"
# Written once the program has begun.
_BEGAN = f"{NOTES}/began"
# Which network it is told to take.
_NETWORK = f"{BUNDLE}/network"
_COMMAND = (PROGRAM, f"--root={NOTES}", "--rootless", "--ignore-cgroups", "--host-uds=none")
# A session's channel comes in by standard input: runsc of old passes the three standard streams alone.
_TAKE_CHANNEL = 'exec {channel}<&0 0</dev/null; exec "$@"'


def find() -> str:
    """Return the path of `runsc`. Raises `SandboxUnavailable` where it is not installed."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder, "runsc")
        if folder and os.path.isfile(path) and os.access(path, os.X_OK):
            return os.path.realpath(path)
    raise SandboxUnavailable(
        "isolation 'gvisor' needs gVisor's `runsc`, which is not on PATH: install Debian's package `runsc`, or a release "
        "of gVisor's own into /usr/local/bin"
    )


def outer_limits(limits: Limits) -> Limits:
    """Return what bounds gVisor's processes and the program together, where `limits` are the program's."""
    return limits.replace(memory_bytes=limits.memory_bytes + OWN_BYTES, pids=limits.pids + OWN_THREADS)


def arguments(network: str) -> tuple[str, ...]:
    """Return the command that runs the bundle."""
    return (*_COMMAND, f"--network={network}", "run", f"--bundle={BUNDLE}", f"--pid-file={_BEGAN}", "sandbox")


def _leads_out(spec: Spec) -> bool:
    return bool(spec.ports) or spec.networked


def config(spec: Spec, channel: int | None) -> bytes:
    """Return the bundle's config.json (Open Container Initiative's runtime specification, 1.0.2)."""
    import json  # noqa: PLC0415 - 6 ms that the default isolation need not pay

    words = list(spec.argv)
    if channel is not None:
        words = ["/bin/bash", "-c", _TAKE_CHANNEL.format(channel=channel), "session", *words]
    disk = [
        {"destination": inside, "type": "bind", "source": f"{GUEST}{inside}", "options": ["rw", "nosuid", "nodev"]}
        for inside in ("/work", "/tmp", "/dev/shm", *(mount.inside for mount in spec.mounts if mount.writable))  # noqa: S108 - the program's own
    ]
    kinds = ("pid", "ipc", "uts", "mount") if _leads_out(spec) else ("pid", "network", "ipc", "uts", "mount")
    return json.dumps(
        {
            "ociVersion": "1.0.2",
            "process": {
                # The one user that is mapped; it has no capability.
                "user": {"uid": 0, "gid": 0},
                "args": words,
                "env": [f"{name}={value}" for name, value in spec.environment.items()],
                "cwd": "/work",
                "noNewPrivileges": True,
                "capabilities": {},
                "rlimits": _rlimits(spec.limits),
            },
            # Read-only by its mount; to say so once more is refused to a user namespace below ours.
            "root": {"path": GUEST, "readonly": False},
            "hostname": "fumehood",
            "mounts": [{"destination": "/proc", "type": "proc"}, *disk],
            "linux": {"namespaces": [{"type": kind} for kind in kinds]},
        }
    ).encode("utf-8", "surrogateescape")


def _rlimits(limits: Limits) -> list[dict[str, object]]:
    values = {
        "CORE": 0, "CPU": max(1, math.ceil(limits.cpu_seconds)), "FSIZE": limits.disk_bytes, "NOFILE": 1024,
        "NPROC": limits.pids, "STACK": 8 << 20, "MEMLOCK": 64 << 10, "MSGQUEUE": 0, "SIGPENDING": 1024,
    }  # fmt: skip
    return [{"type": f"RLIMIT_{name}", "soft": value, "hard": value} for name, value in values.items()]


def orders(spec: Spec, wiring: init.Wiring) -> bytes:
    """Return the bundle's configuration; see `init.Inner`."""
    return config(spec, init.CHANNEL if len(wiring.stdio) > 3 else None)


def prepare(sources: dict[str, int], spec: Spec, wiring: init.Wiring, orders: bytes) -> int:
    """Build the tree, take every right from this process, and leave system calls and files to gVisor; see `init.Inner`."""
    _build(sources, spec, orders)
    work = init.lay_files(spec, f"{GUEST}/work")
    os.chdir("/")
    rlimits.apply_to_gvisor(outer_limits(spec.limits))
    init.reset_signals()
    _signal.signal(init.PASS_INTERRUPT, _interrupt)
    # gVisor makes a user namespace of its own, in which it has them all.
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
    if init.is_dead(wiring.parent):
        os._exit(1)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    return work


def _build(sources: dict[str, int], spec: Spec, orders: bytes) -> None:
    """Make a root in which the program's tree is a folder, beside `runsc`, its orders, and what it wants of a root."""
    runsc = os.open(spec.runsc, os.O_PATH | os.O_CLOEXEC)
    tree.begin()
    for folder in (GUEST, BUNDLE, NOTES, "/proc", "/tmp", "/dev"):  # noqa: S108 - of the new root
        os.mkdir(folder[1:])
    for device in DEVICES:
        # For runsc; the program's devices are gVisor's own.
        tree.bind(device, device, writable=False)
    tree.bind(f"/proc/self/fd/{runsc}", PROGRAM, writable=False)
    os.close(runsc)
    with open(f"{BUNDLE[1:]}/config.json", "wb") as file:
        file.write(orders)
    with open(_NETWORK[1:], "wb") as network:
        # Its own leads nowhere at all. The "host" is the namespace that it is in, where the way out begins.
        network.write(b"host" if _leads_out(spec) else b"none")
    os.chdir(GUEST[1:])
    tree.lay_out(sources, tree.writable(spec))
    os.mkdir("proc")
    tree.mount_disk(spec)
    os.chdir("..")
    # Whole, since gVisor mounts another one in namespaces of its own. The program sees neither.
    kernel.mount("proc", "proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    tree.mount_tmpfs(NOTES[1:], size=1 << 20, inodes=256, mode="700")
    kernel.pivot_root_here()
    tree.seal_root()


def start() -> int:
    """Start gVisor, which starts the program; see `init.Inner`."""
    # A session's channel takes the place of its standard input, which it would not read.
    has_channel = os.path.exists(f"/proc/self/fd/{init.CHANNEL}")
    streams = [(os.POSIX_SPAWN_DUP2, init.CHANNEL, 0)] if has_channel else []
    with open(_NETWORK, "rb") as file:
        # In an encoding that is loaded: nothing more can be by now.
        words = arguments(file.read().decode("utf-8"))
    try:
        return os.posix_spawn(words[0], words, {}, file_actions=streams, setsid=True)
    except OSError as error:
        return -(error.errno or 1)


def _interrupt(_signal_number: int, _frame: object) -> None:
    """Interrupt the program, which no signal of the host's kernel reaches. Process 1 waits for this child too."""
    try:
        os.posix_spawn(PROGRAM, (*_COMMAND, "kill", "--all", "sandbox", "INT"), {})
    except OSError:
        pass  # then its time ends it


def problem() -> str:
    """Say why the program did not run at all; see `init.Inner`."""
    return "" if os.path.exists(_BEGAN) else "gVisor did not start the program"
