"""A memory and process-count cgroup for one sandbox, v2 where delegated, v1 where root can make one.

Promised: where `Cgroup.open` returns one, the kernel bounds the whole tree and counts its out-of-memory kills. Where processors can
be shared by groups as well, each sandbox has one share, however many processes compute in it.
Where it returns None the supervisor samples instead, and the tier says so. The v2 half runs on hosts that delegate
controllers; the project's own machines have v1, so v2 is tested on a recorded tree of files.
"""

from __future__ import annotations

import errno
import os
import time

from . import kernel
from .read_once import ReadOnce

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..protocol.limits import Limits

_ROOT = "/sys/fs/cgroup"
# A quarter of what a process or group of the host's has, of 1024 (v1) and of 100 (v2).
_SHARES, _WEIGHT = "256", "25"
_PREFIX = "fumehood-"
# What was killed before the host knew all of its processes is not dead at once.
_DYING_SECONDS = 2.0


class Cgroup:
    """Folders of one sandbox's groups: one in all with v2, one per controller with v1."""

    def __init__(self, folders: dict[str, str], version: int) -> None:
        self._folders = folders
        self._version = version
        #: The most memory that it ever held; 0 where the kernel is too old to tell.
        self.peak_bytes = ReadOnce(_peak)

    @classmethod
    def open(
        cls, limits: Limits, *, keepers: int = 1, root: str = _ROOT, membership: str = "/proc/self/cgroup"
    ) -> Cgroup | None:
        """Make the groups with their limits; None where this process may not. `keepers` of its processes are ours."""
        try:
            with open(membership, encoding="utf-8") as file:
                lines = [line.rstrip("\n").split(":", 2) for line in file]
        except OSError:
            return None
        # Ours alone, and known to be dead when its maker is: see `sweep`.
        name = f"{_PREFIX}{os.getpid()}-{os.urandom(6).hex()}"
        processes = limits.pids + keepers
        return cls._open_v2(lines, root, name, limits.memory_bytes, processes) or cls._open_v1(
            lines, root, name, limits.memory_bytes, processes
        )

    @classmethod
    def _open_v2(cls, lines: list[list[str]], root: str, name: str, memory: int, processes: int) -> Cgroup | None:
        own = next((path for number, _names, path in lines if number == "0"), None)
        if own is None:
            return None
        # The nearest group above us that hands both controllers to its children; ours has processes, so not itself.
        parent = own.strip("/")
        while not {"memory", "pids"} <= set(_read(f"{root}/{parent}/cgroup.subtree_control").split()):
            if not parent:
                return None
            parent = os.path.dirname(parent)
        group = cls({"unified": f"{root}/{parent}/{name}"}, 2)
        settings = {"memory.max": str(memory), "memory.oom.group": "1", "memory.swap.max": "0",
                    "pids.max": str(processes), "cpu.weight": _WEIGHT}  # fmt: skip
        if not group._make("unified", settings, optional=("memory.swap.max", "cpu.weight")):
            return None
        return group._open_peak(f"{group._folders['unified']}/memory.peak")

    @classmethod
    def _open_v1(cls, lines: list[list[str]], root: str, name: str, memory: int, processes: int) -> Cgroup | None:
        own = {controller: path for _n, names, path in lines for controller in names.split(",") if controller}
        if not {"memory", "pids"} <= own.keys():
            return None
        folders = {which: f"{root}/{which}{own[which].rstrip('/')}/{name}" for which in ("memory", "pids")}
        group = cls(folders, 1)
        # In this order: memory with swap may never be below memory alone.
        settings = {"memory.limit_in_bytes": str(memory), "memory.memsw.limit_in_bytes": str(memory)}
        # What waits in sockets of the internet's protocols has a counter of its own, which is only there once it has a limit.
        settings["memory.kmem.tcp.limit_in_bytes"] = str(memory)
        if not group._make(
            "memory", settings, optional=("memory.memsw.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes")
        ):
            return None
        if not group._make("pids", {"pids.max": str(processes)}):
            group.close()
            return None
        group._share_processors(root, own, name)
        return group._open_peak(f"{folders['memory']}/memory.max_usage_in_bytes")

    def _share_processors(self, root: str, own: dict[str, str], name: str) -> None:
        """Add groups of `cpu` and `cpuacct`, where there are any: no promise of a tier needs them.

        On most hosts they are one hierarchy, and this one group; on others it costs a second.
        """
        for controller in ("cpu", "cpuacct"):
            if controller not in own:
                continue
            folder = os.path.realpath(f"{root}/{controller}") + f"{own[controller].rstrip('/')}/{name}"
            try:
                if folder not in self._folders.values():
                    os.mkdir(folder)
            except OSError:
                continue
            self._folders[controller] = folder
        if "cpu" in self._folders:
            try:
                kernel.write_file(f"{self._folders['cpu']}/cpu.shares", _SHARES)
            except OSError:
                pass  # one share of the usual size, then

    def _make(self, which: str, settings: dict[str, str], optional: tuple[str, ...] = ()) -> bool:
        folder = self._folders[which]
        try:
            os.mkdir(folder)
        except OSError:
            return False
        for name, value in settings.items():
            try:
                kernel.write_file(f"{folder}/{name}", value)
            except OSError:
                if name not in optional:
                    self.close()
                    return False
        return True

    @staticmethod
    def must_be_moved_into(membership: str = "/proc/self/cgroup") -> bool:
        """Whether groups here are of v1, which a process can only enter late, by a move that waits for all processors."""
        try:
            with open(membership, encoding="utf-8") as file:
                return any(line.split(":", 2)[1] == "memory" for line in file)
        except OSError:
            return False

    @property
    def entrances(self) -> tuple[str, ...]:
        """The folder to be born in (v2), or the files to write a pid into (v1)."""
        if self._version == 2:
            return tuple(self._folders.values())
        return tuple(f"{folder}/cgroup.procs" for folder in dict.fromkeys(self._folders.values()))

    def expect_moves(self) -> None:
        """Have moves into groups in the next milliseconds not wait for all processors, by having that wait begin now.

        With v1 the first move in a while costs a grace period of the kernel's (5 ms here), and serves those right after.
        So a thread of its own is moved to where it is.
        """
        import threading  # noqa: PLC0415 - a cold start does without

        if self._version == 1:
            threading.Thread(target=self._move_nothing, name="fumehood-move", daemon=True).start()

    def _move_nothing(self) -> None:
        import threading  # noqa: PLC0415

        own_group = os.path.dirname(self._folders["pids"])
        try:
            kernel.write_file(f"{own_group}/tasks", str(threading.get_native_id()))
        except OSError:
            pass  # then they wait

    def stand_back(self, *, really: bool = True) -> bool:
        """Have its processes run where nobody else wants to, or as others again; return whether the kernel can do that."""
        folder = self._folders.get("cpu", self._folders.get("unified"))
        try:
            kernel.write_file(f"{folder}/cpu.idle", "1" if really else "0")
        except OSError:
            return False  # older than Linux 5.15, or processors are not shared by groups here
        return True

    @property
    def cpu_seconds(self) -> float | None:
        """The processor time of all that was ever in it, however it ended; None where groups do not count it here."""
        if self._version == 2:
            return _count(f"{self._folders['unified']}/cpu.stat", "usage_usec") / 1e6
        nanoseconds = _read(f"{self._folders['cpuacct']}/cpuacct.usage") if "cpuacct" in self._folders else ""
        return int(nanoseconds) / 1e9 if nanoseconds else None

    @property
    def oom_kills(self) -> int:
        """How many of its processes the kernel killed for want of memory."""
        if self._version == 2:
            return _count(f"{self._folders['unified']}/memory.events", "oom_kill")
        return _count(f"{self._folders['memory']}/memory.oom_control", "oom_kill")

    def _open_peak(self, path: str) -> Cgroup:
        try:
            self.peak_bytes.add([os.open(path, os.O_RDONLY | os.O_CLOEXEC)])
        except OSError:
            pass  # the kernel is too old to tell
        return self

    def abandon(self) -> None:
        """Close what is open and leave the groups to the process that this one was forked from."""
        self.peak_bytes.close()

    def close(self) -> None:
        """Remove the groups, whose processes must be dead or dying."""
        # A result may have been given out that asks for it later.
        self.peak_bytes()
        until = time.monotonic() + _DYING_SECONDS
        for folder in dict.fromkeys(self._folders.values()):
            while True:
                try:
                    os.rmdir(folder)
                except OSError as error:
                    if error.errno == errno.EBUSY and time.monotonic() < until:
                        time.sleep(0.001)
                        continue
                    # Not made, or still busy: `sweep` takes what a dead maker left.
                break


def _peak(opened: list[int]) -> int:
    return int(os.pread(opened[0], 64, 0))


def sweep(root: str = _ROOT, membership: str = "/proc/self/cgroup") -> None:
    """Remove groups whose maker is dead: it leaves some where it was killed. Those not empty yet stay."""
    for maker, path in groups(root, membership):
        if not _lives(maker):
            try:
                os.rmdir(path)
            except OSError:
                continue  # its processes are still being killed, or another sweeper was first


def groups(root: str = _ROOT, membership: str = "/proc/self/cgroup") -> list[tuple[int, str]]:
    """Return (pid of the maker, folder) of every group that is there."""
    try:
        with open(membership, encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    found: list[tuple[int, str]] = []
    for parent in _places(lines, root):
        for entry in os.listdir(parent) if os.path.isdir(parent) else ():
            maker = entry.removeprefix(_PREFIX).split("-")[0] if entry.startswith(_PREFIX) else ""
            if maker.isdigit():
                found.append((int(maker), f"{parent}/{entry}"))
    return found


def _lives(pid: int) -> bool:
    # One that nobody has waited for yet is dead.
    state = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1]
    return bool(state) and state[0] not in ("Z", "X")


def _places(lines: list[list[str]], root: str) -> list[str]:
    """Return the folders in which `Cgroup.open` may have made groups."""
    places = [
        f"{root}/{controller}{path}"
        for _number, names, path in lines
        for controller in names.split(",")
        if controller in ("memory", "pids", "cpu", "cpuacct")
    ]
    for number, _names, path in lines:
        parts = path.strip("/").split("/") if number == "0" else []
        places += [f"{root}/{'/'.join(parts[:end])}" for end in range(len(parts) + 1) if number == "0"]
    return places


def _count(path: str, name: str) -> int:
    for line in _read(path).splitlines():
        key, _space, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""
