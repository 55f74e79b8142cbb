"""Runs the canary and says what its findings mean for this host, with the exact remedy for each wall that is down."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SandboxFailed
from ..protocol.limits import Limits, MiB
from . import landlock, own_interpreter
from .cgroup import Cgroup, sweep
from .spec import Spec
from .supervisor import Outcome, Stdin, supervise, watch
from .walls import GVISOR_WALLS, WALLS, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .live import Spawn
    from .warm import Zygote

_PROGRAM = Path(__file__).parent / "guest" / "canary.py"
_NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_LIMITS = Limits(wall_seconds=20, memory_bytes=128 * MiB, disk_bytes=8 * MiB, disk_files=512, pids=32)


def probe(spawn: Spawn, without: frozenset[str] = frozenset(), runsc: str = "") -> list[Finding]:
    """Try every wall from inside a sandbox; return one finding for each, in the order of `WALLS`.

    With `runsc`, gVisor's program, try what `GVISOR_WALLS` names inside gVisor.
    """
    sweep()
    inside = {"isolation": "gvisor", "runsc": runsc} if runsc else {}

    def run(spec: Spec) -> Outcome:
        return supervise(spec.replace(**inside), spawn, stdin=Stdin())

    return _probe(run, without, GVISOR_WALLS if runsc else WALLS)


def probe_warm(zygote: Zygote) -> list[Finding]:
    """Do the same in a sandbox forked from a zygote."""

    def run(spec: Spec) -> Outcome:
        live = zygote.fork(spec.limits)
        try:
            if not live.wait_ready():
                raise SandboxFailed("the first warm sandbox died before its order came")
            live.order("/work/canary.py", spec.files, {}, spec.argv[3:])
            return watch(live, spec.limits, stdin=Stdin())
        finally:
            zygote.release(live)

    return _probe(run, frozenset())


def _probe(run: Callable[[Spec], Outcome], without: frozenset[str], walls: Mapping[str, str] = WALLS) -> list[Finding]:
    try:
        found = _run(run, without)
    except SandboxFailed as error:
        return [Finding(wall=wall, up=False, seen=str(error), remedy=_remedy(wall, str(error))) for wall in walls]
    nothing = (False, "the canary did not get that far")
    return [
        Finding(wall=wall, up=up, seen=seen, remedy="" if up else _remedy(wall, seen))
        for wall in walls
        for up, seen in [found.get(wall, nothing)]
    ]


def memory_tier() -> Finding:
    """Say how memory and processes are bounded here: by a cgroup or by sampling. Sampling is a tier, not a fault."""
    group = Cgroup.open(_LIMITS)
    if group is None:
        return Finding(
            wall="cgroup", up=False, seen="no cgroup with memory and pids can be made: the supervisor samples",
            remedy="For a cgroup v2 of your own run under `systemd-run --user --scope -p Delegate=yes`, or as root.",
        )  # fmt: skip
    group.close()
    return Finding(wall="cgroup", up=True, seen="the kernel bounds memory and processes of the whole tree")


def _run(run: Callable[[Spec], Outcome], without: frozenset[str]) -> dict[str, tuple[bool, str]]:
    # What must be out of reach has to be there: a readable file and an open port of the host's.
    with (
        tempfile.NamedTemporaryFile(prefix="fumehood-canary-") as marker,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        os.chmod(marker.name, 0o644)
        namespaces = ",".join(f"{name}={_namespace(name)}" for name in _NAMESPACES)
        limits = f"pids={_LIMITS.pids},disk_bytes={_LIMITS.disk_bytes},disk_files={_LIMITS.disk_files}"
        port = server.getsockname()[1]
        spec = Spec(
            argv=(
                own_interpreter.path(),
                "-I",
                "/work/canary.py",
                marker.name,
                str(port),
                namespaces,
                limits,
                os.uname().release,
            ),
            environment={},
            mounts=own_interpreter.mounts(),
            files={"canary.py": _PROGRAM.read_bytes()},
            limits=_LIMITS,
            without=without,
        )
        outcome = run(spec)
        os.close(outcome.work)
    if outcome.status != 0:
        words = outcome.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SandboxFailed(f"the canary failed: {words[-1] if words else outcome.detail or outcome.status}")
    findings = [line.split("\t") for line in outcome.stdout.decode("utf-8", "replace").splitlines()]
    return {wall: (verdict == "up", seen) for wall, verdict, seen in findings}


def _namespace(name: str) -> str:
    return os.readlink(f"/proc/self/ns/{name}")


def _remedy(wall: str, seen: str) -> str:
    if wall == "landlock" and landlock.abi() == 0:
        return (
            "Boot with `landlock` in the kernel's lsm= list (Linux 5.13 or newer), or give it up: --without landlock."
        )
    if "clone3" in seen or "uid_map" in seen:
        return _namespace_remedy()
    if "mount proc" in seen:
        return (
            "Something covers parts of /proc, as container engines do: run the container with an unmasked /proc "
            "(Podman: --security-opt unmask=ALL; Docker: --security-opt systempaths=unconfined), or give it up: "
            "--without proc."
        )
    if "mount" in seen or "pivot_root" in seen:
        return (
            "A container's seccomp or AppArmor profile refuses mounts: run it with --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined, or run Fumehood outside of it."
        )
    return "Please report this with the output of `fumehood doctor --json`: the kernel did not do what was asked of it."


def _namespace_remedy() -> str:
    if _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "Ubuntu's AppArmor restricts user namespaces: "
            "`sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` lifts that until the next boot; an "
            "AppArmor profile with `userns,` for this Python lifts it for Fumehood alone."
        )
    if _sysctl("kernel/unprivileged_userns_clone") == "0":
        return "This kernel keeps user namespaces for root: `sudo sysctl -w kernel.unprivileged_userns_clone=1`."
    if _sysctl("user/max_user_namespaces") == "0":
        return "User namespaces are set to none: `sudo sysctl -w user.max_user_namespaces=15000`."
    return (
        "User namespaces are refused, as in most containers: run the container with --security-opt seccomp=unconfined "
        "(Docker and Podman), or run Fumehood outside of it."
    )


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
