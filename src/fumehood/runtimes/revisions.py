"""Runtimes that others than this host's operator have built, by a name that is given to them: the service's revisions.

Promised: what is built comes from the indexes that the operator's settings name, whatever the manifest says; what is told of it
names no place of this host. A revision belongs to its name alone, so removing one never breaks another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidRequest
from . import build, manifests
from .npm_sources import NpmSources
from .npm_workshop import NpmWorkshop
from .sources import Sources
from .uv_workshop import UvWorkshop
from .workshop import Orders

if TYPE_CHECKING:
    from collections.abc import Callable

    from .runtime import Host


def check_manifest(kind: str, contents: str) -> None:
    """Raise `InvalidRequest`, naming the line or the field, where nothing can be built from a manifest of this kind.

    `kind` is one of `manifests.KINDS`. A manifest has at most 64 KiB and 500 packages.
    """
    if kind == "requirements.txt":
        manifests.read_requirements(contents)
    elif kind == "package.json":
        manifests.read_package_json(contents)
    else:
        raise InvalidRequest(f"manifest {kind!r} is unknown: take {' or '.join(manifests.KINDS)}")


def build_revision(
    name: str, kind: str, contents: str, host: Host, log: Callable[[str], None], *, cancel: int | None = None
) -> str:
    """Build a manifest under a name of its own, and return the folder; the name is a language from then on.

    `log` hears the builder's words line by line as they come, on this thread: they are hostile text, without control characters.
    Once the descriptor `cancel` is readable the build ends. Raises `InvalidRequest` as `check_manifest` does, and
    `RuntimeUnavailable` with the builder's words, or saying that it was cancelled; then nothing is left of it.
    """
    build.check_name(name)
    check_manifest(kind, contents)
    orders = Orders(log=log, cancel=cancel, for_others=True)
    if kind == "package.json":
        packages = NpmSources(manifests.read_package_json(contents))
        return build.build_named(
            build.Plan(name=name, workshop=NpmWorkshop, sources=packages, host=host, orders=orders)
        )
    sources = Sources.plain(manifests.read_requirements(contents))
    return build.build_named(build.Plan(name=name, workshop=UvWorkshop, sources=sources, host=host, orders=orders))


def remove_revision(name: str) -> None:
    """Remove what was built under a name, and the name; nothing where there is none.

    A build of it is waited for: cancel that first.
    """
    build.check_name(name)
    build.remove_runtime(name)
