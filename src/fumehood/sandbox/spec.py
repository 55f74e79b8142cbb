"""What the sandbox runs, with all decisions made: no defaults are looked up behind it."""

from __future__ import annotations

from ..protocol.limits import Limits
from ..protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The sandbox's user inside its own user namespace.
USER_ID = 1000


class Mount(Record):
    """A host file or folder shown read-only at `inside`."""

    host: str
    inside: str


class Spec(Record):
    """One confined process tree.

    `argv[0]` is a path inside the walls. `environment` is complete. `mounts` come on top of the base system's.
    `files` are laid into `/work`. `profile` is the list of system calls, one of `syscalls.PROFILES`.
    `without` names the walls that the operator gave up, in so many words. `forkable`: a session, whose copies have other disks.
    """

    argv: tuple[str, ...]
    environment: dict[str, str]
    mounts: tuple[Mount, ...]
    files: dict[str, bytes]
    limits: Limits
    profile: str = "plain"
    without: frozenset[str] = frozenset()
    forkable: bool = False

    def as_plain(self) -> tuple[Any, ...]:
        """Return the same as tuples, dicts, numbers and texts alone, for `marshal`."""
        mounts = tuple((mount.host, mount.inside) for mount in self.mounts)
        return (
            self.argv,
            self.environment,
            mounts,
            self.files,
            self.limits.as_dict(),
            self.profile,
            tuple(self.without),
            self.forkable,
        )

    @classmethod
    def from_plain(cls, plain: tuple[Any, ...]) -> Spec:
        """Undo `as_plain`."""
        argv, environment, mounts, files, limits, profile, without, forkable = plain
        return cls(
            argv=argv,
            environment=environment,
            mounts=tuple(Mount(host=host, inside=inside) for host, inside in mounts),
            files=files,
            limits=Limits(**limits),
            profile=profile,
            without=frozenset(without),
            forkable=forkable,
        )
