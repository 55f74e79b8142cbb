"""What the sandbox runs, with all decisions made: no defaults are looked up behind it."""

from __future__ import annotations

from ..protocol.limits import Limits
from ..protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Where a sandbox that has a gateway finds it: address and port.
GATEWAY = ("127.0.0.1", 3128)
#: The sandbox's user inside its own user namespace.
USER_ID = 1000


class Mount(Record):
    """A host file or folder shown at `inside`: read-only, or `writable`, where nothing can be executed."""

    host: str
    inside: str
    writable: bool = False


class Spec(Record):
    """One confined process tree.

    `argv[0]` is a path inside the walls. `environment` is complete. `mounts` come on top of the base system's.
    `files` are laid into `/work`. `profile` is the list of system calls, one of `syscalls.PROFILES`.
    `without` names the walls that the operator gave up, in so many words. `forkable`: a session, whose copies have other disks.
    `explain`: its filter asks the host before it refuses a call.
    `isolation`: who answers its system calls, "namespaces" (the host's kernel) or "gvisor", which is then at `runsc`.
    `gateway`: it has a listening socket at `GATEWAY` of its own loopback, and the host takes what connects there.
    `ports`: it has a way out (`listeners`), for connections to these ports; none where there are none. `networked`: it may be given
    one while it runs.
    """

    argv: tuple[str, ...]
    environment: dict[str, str]
    mounts: tuple[Mount, ...]
    files: dict[str, bytes]
    limits: Limits
    profile: str = "plain"
    without: frozenset[str] = frozenset()
    forkable: bool = False
    gateway: bool = False
    explain: bool = False
    isolation: str = "namespaces"
    runsc: str = ""
    ports: tuple[int, ...] = ()
    networked: bool = False

    def as_plain(self) -> tuple[Any, ...]:
        """Return the same as tuples, dicts, numbers and texts alone, for `marshal`."""
        mounts = tuple((mount.host, mount.inside, mount.writable) for mount in self.mounts)
        return (
            self.argv,
            self.environment,
            mounts,
            self.files,
            self.limits.as_dict(),
            self.profile,
            tuple(self.without),
            self.forkable,
            self.gateway,
            self.explain,
            self.isolation,
            self.runsc,
            self.ports,
            self.networked,
        )

    @classmethod
    def from_plain(cls, plain: tuple[Any, ...]) -> Spec:
        """Undo `as_plain`."""
        (
            argv, environment, mounts, files, limits, profile, without, forkable, gateway, explain, isolation, runsc, ports,
            networked,
        ) = plain  # fmt: skip
        return cls(
            argv=argv,
            environment=environment,
            mounts=tuple(Mount(host=host, inside=inside, writable=writable) for host, inside, writable in mounts),
            files=files,
            limits=Limits(**limits),
            profile=profile,
            without=frozenset(without),
            forkable=forkable,
            gateway=gateway,
            explain=explain,
            isolation=isolation,
            runsc=runsc,
            ports=tuple(ports),
            networked=networked,
        )
