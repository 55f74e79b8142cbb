"""What stands on the host's side and agrees, or does not: files that must stay unread, ports where nobody may come, victims."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .suite import Fell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ALL_USERS = ["0", "0", "4294967295"]


def is_the_hosts_root() -> bool:
    """Whether this process is root, and not merely called so inside a user namespace."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text(encoding="utf-8").split() == _ALL_USERS


@contextlib.contextmanager
def secret_file() -> Iterator[Path]:
    """Yield a file of the host's that anybody may read, with a text that is nowhere else."""
    with tempfile.TemporaryDirectory(prefix="host-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - anybody may look
        path = Path(folder, "secret")
        path.write_text(secrets.token_hex(16), encoding="ascii")
        path.chmod(0o644)
        yield path


@contextlib.contextmanager
def in_environment(name: str, value: str) -> Iterator[None]:
    """Set a variable of the host's environment; it is gone at the end."""
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


@contextlib.contextmanager
def listening(name: str | None = None) -> Iterator[socket.socket]:
    """Yield a listening socket of the host's: a port on every address it has, or the Unix socket of this name."""
    if name is None:
        server = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        server = socket.socket(socket.AF_UNIX)
    with server:
        if name is not None:
            server.bind(name)
            server.listen()
            if not name.startswith("\0"):
                os.chmod(name, 0o777)  # noqa: S103 - anybody may come
        # Who has connected stands in the queue already when the program has ended.
        server.settimeout(0.05)
        try:
            yield server
        finally:
            if name is not None and not name.startswith("\0"):
                os.unlink(name)


def nobody_came(server: socket.socket) -> None:
    """Fall where somebody has connected to a socket of the host's."""
    try:
        server.accept()[0].close()
    except TimeoutError:
        return
    raise Fell("somebody connected to the host's socket")


@contextlib.contextmanager
def victim(code: str = "input()") -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process of the host's that runs this; it is killed at the end."""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def inheritable(descriptor: int) -> Iterator[int]:
    """Yield a descriptor of the host's that careless code would leak to its children; it is closed at the end."""
    os.set_inheritable(descriptor, True)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def nothing_stays() -> Iterator[None]:
    """Fall where cgroups of ours, mounts, or processes in namespaces below this one's, are there afterwards that were not before.

    Whatever was started in between must have been closed, its engine too.
    """
    groups, mounts, inside = _settled()
    yield
    until = time.monotonic() + 0.5
    # A sandbox's process 1 reports when all others are dead, and then ends by itself.
    while (left := sorted(set(_inside()) - set(inside))) and time.monotonic() < until:
        time.sleep(0.01)
    left += sorted(str(path) for path in _groups() - groups)
    left += sorted(_mounts() - mounts)
    if left:
        raise Fell(f"this is left: {', '.join(left)[:300]}")


def _settled() -> tuple[set[Path], set[str], list[str]]:
    # Whoever keeps sandboxes warm may be about to make one in the place of the last.
    until, seen = time.monotonic() + 1, (_groups(), _mounts(), _inside())
    while time.monotonic() < until:
        time.sleep(0.03)
        before, seen = seen, (_groups(), _mounts(), _inside())
        if before == seen:
            break
    return seen


def _groups() -> set[Path]:
    # Engines elsewhere on this machine have groups too; ours carry our number.
    prefix = f"fumehood-{os.getpid()}-"
    # Not by glob: it stumbles over groups that end while it looks.
    return {
        Path(folder, name)
        for folder, names, _files in os.walk("/sys/fs/cgroup")
        for name in names
        if name.startswith(prefix)
    }


def _mounts() -> set[str]:
    return set(Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines())


def _inside() -> list[str]:
    """Return what descends from this process and lives in a process namespace below its own, with its name."""
    facts = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            text = status.read_text(encoding="utf-8", errors="replace")
            facts[status.parent.name] = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    ours = {str(os.getpid())}
    depth = len(facts[str(os.getpid())]["NSpid"].split())
    while new := {pid for pid, fact in facts.items() if fact["PPid"] in ours} - ours:
        ours |= new
    return sorted(
        f"{pid} {facts[pid]['Name']}"
        for pid in ours & facts.keys()
        if len(facts[pid].get("NSpid", "").split()) > depth and not facts[pid]["State"].startswith("Z")
    )


def taken_from_host(*paths: Path) -> list[str]:
    """Return which of these are on the host, and remove them: what an attack without walls has left there."""
    found = [str(path) for path in paths if os.path.lexists(path)]
    for path in found:
        os.unlink(path)
    return found


def alive(marker: str) -> list[int]:
    """Return the host's processes that carry a marker in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and marker.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def end(pids: list[int]) -> None:
    """Kill what an attack without walls has left."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def refused_meanwhile(action: Callable[[], None]) -> Iterator[list[OSError]]:
    """Do this on the host again and again meanwhile; yield the list of the errors that come of it."""
    refused: list[OSError] = []
    over = threading.Event()

    def again() -> None:
        while not over.wait(0.01):
            try:
                action()
            except OSError as error:
                refused.append(error)

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield refused
    finally:
        over.set()
        thread.join()


def inotify_instance() -> None:
    """Make one of the few watchers that a user may have, and close it."""
    descriptor = ctypes.CDLL(None, use_errno=True).inotify_init()
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.close(descriptor)


# No capability, and the open files that a user's programs usually may have: what the host's root is spared would not show.
_AS_A_BYSTANDER = """
import array, ctypes, errno, fcntl, os, resource, socket, struct
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
ctypes.CDLL(None).capset(struct.pack("Ii", 0x20080522, 0), bytes(24))
"""


def bystander(code: str) -> str:
    """Run a program of the same user's on the host, beside the enemy, and return what it prints."""
    program = [sys.executable, "-c", _AS_A_BYSTANDER + textwrap.dedent(code)]
    return subprocess.run(program, capture_output=True, text=True, check=True, timeout=10).stdout
