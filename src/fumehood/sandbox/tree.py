"""The file tree that a guest sees: built from nothing, on a tmpfs, inside its own mount namespace.

Promised: of the host it shows the base system's programs and libraries (`/usr/bin`, `/usr/lib*`, time zones, the
certificate bundle) and what the runtime mounts, all nosuid and nodev, and read-only but for a mount that says that it is
writable, where nothing can be executed; everything else is made up here. Nothing of the host's `/etc`, `/home`, `/root`,
`/var`, `/sys`, `/run`. Not promised: that the names of installed system programs are secret.
"""

from __future__ import annotations

import os
import stat

from ..egress.places import NAMESERVER
from . import kernel
from .landlock import DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .spec import Spec

_BASE = ("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/share/zoneinfo",
         "/etc/ssl/certs/ca-certificates.crt")  # fmt: skip
# Links into /usr on a merged system, folders of their own on others.
_TOP_LEVEL = ("/bin", "/lib", "/lib32", "/lib64")
# Debian's indirections for commands that scripts take for granted.
_ALTERNATIVES = ("awk", "nawk", "which", "pager", "editor")

# What programs look up by name; the numbers are IANA's.
_SERVICES = (("ftp", 21), ("ssh", 22), ("telnet", 23), ("smtp", 25), ("domain", 53), ("http", 80), ("pop3", 110), ("ntp", 123),
             ("imap2", 143), ("ldap", 389), ("https", 443), ("imaps", 993))  # fmt: skip
_ETC = {
    "passwd": "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\nuser:x:1000:1000:user:/work:/bin/sh\n",
    "group": "root:x:0:\nuser:x:1000:\n",
    "hostname": "fumehood\n",
    "hosts": "127.0.0.1 localhost fumehood\n::1 localhost fumehood\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    # Where there is no egress nothing leads there: the kernel refuses the packet at once, so a look-up fails without a wait and is
    # counted.
    "resolv.conf": "# Only where the sandbox's policy allows hosts is anybody there.\n"
    f"nameserver {NAMESERVER}\noptions attempts:1 timeout:5\n",
    "os-release": 'NAME="Fumehood sandbox"\nID=fumehood\n',
    "shells": "/bin/sh\n/bin/bash\n",
    "protocols": "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6 41 IPv6\nipv6-icmp 58 IPv6-ICMP\n",
    "services": "".join(f"{name} {port}/tcp\n{name} {port}/udp\n" for name, port in _SERVICES),
}
_DEVICE_LINKS = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
}  # fmt: skip

PROC_OPTIONS = "subset=pid,hidepid=invisible"

_SCAFFOLD = "/tmp"  # noqa: S108 - a folder that every host has; what is mounted there only this namespace sees
_DISK = "/disk"
_ZYGOTE_DISK_BYTES = 16 << 20


def open_sources(spec: Spec) -> dict[str, int]:
    """Open every host path that will be shown, by its place inside; do it while still the caller's user.

    Afterwards this process is a user who may not reach them (an interpreter under /root, say).
    """
    sources = {path: path for path in (*_BASE, *DEVICES) if os.path.lexists(path)}
    sources |= {path: path for path in _TOP_LEVEL if os.path.isdir(path) and not os.path.islink(path)}
    sources |= {mount.inside: mount.host for mount in spec.mounts}
    return {inside: os.open(host, os.O_PATH | os.O_CLOEXEC) for inside, host in sources.items()}


def build(sources: dict[str, int], spec: Spec) -> None:
    """Mount the tree and make it the root. The caller is in its own namespaces, with every capability there."""
    begin()
    lay_out(sources, writable(spec))
    if "proc" not in spec.without:
        os.mkdir("proc")
        mount_proc("proc")
    mount_disk(spec)
    kernel.pivot_root_here()
    # Only the skeleton: the mounts below keep their own flags.
    seal_root()


def build_for_zygote(sources: dict[str, int], program: str, reaper: bytes) -> None:
    """Do the same for a zygote: what a sandbox has of its own is a folder here, and `/work/main.py` its program.

    `/work/reaper` becomes process 1 of its sandboxes: executable by everyone, and readable by none.
    """
    begin()
    lay_out(sources)
    for folder in ("proc", "work", "tmp", "dev/shm"):
        os.mkdir(folder)
    with open("work/main.py", "w", encoding="utf-8") as file:
        file.write(program)
    with open("work/reaper", "wb") as binary:
        binary.write(reaper)
    os.chmod("work/reaper", 0o111)  # noqa: S103 - who may not read it may not look into its process
    mount_proc("proc")
    # Packages may write caches when they are imported. No sandbox sees this folder: it has one of its own over it.
    mount_tmpfs("tmp", size=_ZYGOTE_DISK_BYTES, inodes=1024, mode="1777")
    kernel.pivot_root_here()
    seal_root()


def mount_own(spec: Spec) -> None:
    """Mount a sandbox's own disk over those folders of its zygote's tree."""
    mount_tmpfs("/tmp", size=spec.limits.disk_bytes, inodes=spec.limits.disk_files, mode="755")  # noqa: S108 - ours
    for part, inside in (("work", "/work"), ("dev-shm", "/dev/shm"), ("tmp", "/tmp")):  # noqa: S108 - likewise
        os.mkdir(f"/tmp/{part}")  # noqa: S108
        if part != "work":
            os.chmod(f"/tmp/{part}", 0o1777)  # noqa: S103, S108 - as /tmp is
        # `/tmp` last: it covers the file system's own root.
        kernel.mount(f"/tmp/{part}", inside, None, kernel.MS_BIND)  # noqa: S108


def begin() -> None:
    """Mount a small tmpfs, the new root to be, and make it the working folder."""
    # Nothing that is mounted here may travel back to the host's tree.
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    mount_tmpfs(_SCAFFOLD, size=1 << 20, inodes=1024, mode="755")
    os.chdir(_SCAFFOLD)


def writable(spec: Spec) -> frozenset[str]:
    """Return the places inside of what the host shows writable."""
    return frozenset(mount.inside for mount in spec.mounts if mount.writable)


def lay_out(sources: dict[str, int], may_write: frozenset[str] = frozenset()) -> None:
    """Show below the working folder what the host shows, and make up the rest."""
    for inside in sorted(sources):
        # By `%`: half the time of an f-string's setup.
        bind("/proc/self/fd/%d" % sources[inside], inside, writable=inside in may_write)  # noqa: UP031
        os.close(sources[inside])
    _link_top_level()
    # Where programs written for Riza's API look for their files.
    os.makedirs("mnt", exist_ok=True)
    os.symlink("/work", "mnt/req")
    _write_etc()
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"dev/{name}")


def mount_proc(target: str) -> None:
    """Mount a `/proc` that shows the processes of this process namespace that the reader may look into."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", target, "proc", flags, PROC_OPTIONS)


def mount_tmpfs(target: str, *, size: int, inodes: int, mode: str) -> None:
    """Mount a tmpfs that bounds bytes and files alike."""
    # Without nr_inodes empty files fill the kernel's memory while size= never notices.
    options = f"size={size},nr_inodes={inodes},mode={mode}"
    kernel.mount("tmpfs", target, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)


def bind(source: str, inside: str, *, writable: bool) -> None:
    """Show a file or folder of the host's at a place below the working folder."""
    target = inside.lstrip("/")
    mode = os.stat(source).st_mode
    if stat.S_ISDIR(mode):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    # Recursive, or the kernel refuses in a user namespace what would uncover something below.
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
    device = stat.S_ISCHR(mode)
    attributes = kernel.MOUNT_ATTR_NOSUID
    attributes |= kernel.MOUNT_ATTR_NOEXEC if device or writable else 0
    attributes |= 0 if device else kernel.MOUNT_ATTR_NODEV
    kernel.mount_setattr(target, attributes | (0 if writable else kernel.MOUNT_ATTR_RDONLY))


def _link_top_level() -> None:
    for path in _TOP_LEVEL:
        if os.path.islink(path):
            os.symlink(os.readlink(path), path[1:])


def _write_etc() -> None:
    os.makedirs("etc/alternatives", exist_ok=True)
    for name, text in _ETC.items():
        with open(f"etc/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    os.symlink("/usr/share/zoneinfo/UTC", "etc/localtime")
    for name in _ALTERNATIVES:
        link = f"/etc/alternatives/{name}"
        if os.path.islink(link):
            os.symlink(os.readlink(link), link[1:])


def mount_disk(spec: Spec) -> None:
    """Mount `work`, `tmp` and `dev/shm` below the working folder."""
    # One file system under three folders: together they hold no more than the disk limit.
    os.mkdir(_DISK[1:])
    mount_tmpfs(_DISK[1:], size=spec.limits.disk_bytes, inodes=spec.limits.disk_files, mode="755")
    for inside in ("work", "tmp", "dev/shm"):
        part = f"disk/{inside.replace('/', '-')}"
        os.mkdir(part)
        os.mkdir(inside)
        kernel.mount(part, inside, None, kernel.MS_BIND)
    os.chmod("tmp", 0o1777)  # noqa: S103 - as /tmp is
    os.chmod("dev/shm", 0o1777)  # noqa: S103 - likewise
    kernel.detach(_DISK[1:])
    os.rmdir(_DISK[1:])


def seal_root() -> None:
    """Make the root read-only."""
    # Not recursive, unlike mount_setattr: /work and /tmp stay writable.
    kernel.mount("none", "/", None, _REMOUNT_READ_ONLY)


# MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV
_REMOUNT_READ_ONLY = 32 | 4096 | 1 | 2 | 4
