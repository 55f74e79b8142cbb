"""Where npm's packages come from, as it is seen from inside the walls: one registry, and what an operator allows besides.

A build sees no file of the host's. Of npm's own settings the registry alone is brought in: a login would be read by whatever a
package can make of npm. Of a `package.json` its `dependencies` alone: what else is in there is about a package that is made, or
is scripts.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import InvalidRequest
from .sources import CERTIFICATES, as_place, certificates, with_variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..sandbox.spec import Mount

_USUAL = "https://registry.npmjs.org/"
_MANIFEST_BYTES = 1 << 20


class NpmSources:
    """What a build with npm needs from outside. `registry` takes the place of npm's own setting; `allowed` hosts come on top."""

    def __init__(
        self, dependencies: Mapping[str, str], *, registry: str | None = None, allowed: tuple[str, ...] = (),
        beside: Path | None = None,
    ) -> None:  # fmt: skip
        #: The `package.json` as it reads inside.
        self.manifest = json.dumps(
            {"name": "fumehood-runtime", "private": True, "dependencies": dict(sorted(dependencies.items()))}, indent=2
        ).encode()
        self.mounts: list[Mount] = []
        self.laid: dict[str, bytes] = {}
        place = registry or _configured(beside) or _USUAL
        self._hosts = frozenset({_host(place), *(as_place(each) for each in allowed)})
        self.environment = {"npm_config_registry": place}
        if (mount := certificates()) is not None:
            self.mounts.append(mount)
            self.environment["NODE_EXTRA_CA_CERTS"] = CERTIFICATES

    @property
    def hosts(self) -> frozenset[tuple[str, int]]:
        """Return the places that may be reached."""
        return self._hosts

    def outside(self, text: str) -> str:
        """Return the text: no place of the host's is shown inside under another name."""
        return text


def read_dependencies(path: str) -> dict[str, str]:
    """Return the `dependencies` of a `package.json`, for npm to judge. Raises `InvalidRequest` where they cannot be read."""
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(_MANIFEST_BYTES))
    except OSError as error:
        raise InvalidRequest(f"package.json {path!r} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"package.json {path!r} is no JSON: {error}") from error
    dependencies = found.get("dependencies") if isinstance(found, dict) else None
    if not isinstance(dependencies, dict) or not all(isinstance(each, str) for each in dependencies.values()):
        raise InvalidRequest(
            f"package.json {path!r} has no `dependencies` from names to versions: they say what to install"
        )
    return dependencies


def _host(registry: str) -> tuple[str, int]:
    parts = urlsplit(registry)
    if "@" in parts.netloc:
        raise InvalidRequest(
            f"the registry of npm at {parts.hostname!r} has a login in its URL, which npm does not use: name one without"
        )
    return as_place(f"{parts.scheme}://{parts.netloc}")


def _configured(beside: Path | None) -> str | None:
    """Return the registry of npm's own settings: of the environment, a project's file, the user's."""
    named = {name.lower(): value for name, value in os.environ.items() if name.lower().startswith("npm_config_")}
    if registry := named.get("npm_config_registry"):
        return registry
    users = named.get("npm_config_userconfig") or os.path.expanduser("~/.npmrc")
    for path in (*([beside / ".npmrc"] if beside is not None else []), Path(users)):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InvalidRequest(f"npm's configuration {str(path)!r} cannot be read: {error.strerror}") from error
        if found := list(_registries(text)):
            return found[-1]
    return None


def _registries(text: str) -> Iterator[str]:
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() == "registry":
            yield with_variables(value.strip().strip("'\""))
