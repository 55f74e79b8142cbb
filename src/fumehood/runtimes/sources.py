"""Where the packages of a build come from, as it is seen from inside the walls.

A build sees no file of the host's and reaches no host by itself. What its requirements, and uv's own settings, name is brought
in: files and folders are mounted read-only at places of their own and their names rewritten, the hosts of URLs are
listed for the gateway. Names stay apart from the lock, since a URL may hold a password. Not brought in: keyrings, `.netrc`.
"""

from __future__ import annotations

import os
import re
import ssl
import tomllib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import InvalidRequest
from ..sandbox.spec import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_INSIDE = "/opt/fumehood/sources"
#: Where the machine's own certificates are shown.
CERTIFICATES = f"{_INSIDE}/certificates.pem"
#: Where uv looks unless it is told otherwise.
_PYPI = (("pypi.org", 443), ("files.pythonhosted.org", 443))
_REPLACES_PYPI = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_NO_INDEX", "UV_OFFLINE")
# Of uv's settings in the environment: those that name places, and those that are plain.
_PLACES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_PLAIN = ("UV_NO_INDEX", "UV_OFFLINE", "UV_INDEX_STRATEGY", "UV_EXCLUDE_NEWER", "UV_HTTP_TIMEOUT", "UV_PRERELEASE",
          "UV_INSECURE_HOST")  # fmt: skip
_OPTION = re.compile(
    r"(--requirement|--constraint|--find-links|--index-url|--extra-index-url|--editable|-[rcfie])(?:\s*=\s*|\s*)(\S.*)"
)
_SAYS_WHERE = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_REFERENCE = re.compile(
    r"(?P<before>[\w.-]+(?:\[[^\]]*\])?\s*@\s*|)(?P<place>(?:file:|https?:|\.{0,2}/)\S+|\S+\.whl)(?P<after>.*)"
)
_PORTS = {"https": 443, "http": 80}


class Sources:
    """What a build needs from outside. `allowed` hosts come on top of those that are named."""

    def __init__(self, requirements: str | None = None, allowed: tuple[str, ...] = ()) -> None:
        #: Shown inside, read-only.
        self.mounts: list[Mount] = []
        #: Laid into the working directory: the requirements as they read inside; and what nobody but root may read.
        self.requirements: dict[str, bytes] = {}
        self.laid: dict[str, bytes] = {}
        #: The lines of the requirements that say where packages come from, as they read inside.
        self.where: list[str] = []
        #: uv's settings, as they read inside.
        self.environment: dict[str, str] = {}
        # What the host calls each, to what it is called inside.
        self._places: dict[str, str] = {}
        self._hosts = {as_place(each) for each in allowed}
        self._looks_at_pypi = True
        self._bring_settings()
        self._bring_certificates()
        if requirements is not None:
            self._bring_file(Path(requirements))

    @classmethod
    def plain(cls, lines: list[str]) -> Self:
        """Return the sources of requirements that are plain specifiers: nothing in them is looked for on this host."""
        sources = cls()
        sources.requirements["requirements-0.txt"] = "".join(f"{line}\n" for line in lines).encode()
        return sources

    @property
    def hosts(self) -> frozenset[tuple[str, int]]:
        """Return the places that may be reached."""
        return frozenset(self._hosts | (set(_PYPI) if self._looks_at_pypi else set()))

    def outside(self, text: str) -> str:
        """Return what was said inside with the host's names for the host's places."""
        for host, inside in self._places.items():
            text = text.replace(f"file://{inside}", host).replace(inside, host)
        return text

    def _bring_settings(self) -> None:
        given = {name: os.environ[name] for name in (*_PLACES, *_PLAIN) if os.environ.get(name)}
        settings = _configured() | given
        self._looks_at_pypi = not any(settings.get(name) for name in _REPLACES_PYPI)
        here = Path.cwd()
        for name, value in settings.items():
            if name in _PLACES:
                # Several stand in one, apart by spaces, or by commas for folders; an index may have its name before it.
                separator = "," if name == "UV_FIND_LINKS" else " "
                parts = [part.rpartition("=") if "://" in part else ("", "", part) for part in value.split(separator)]
                value = separator.join(f"{a}{b}{self._bring(place, here)}" for a, b, place in parts)  # noqa: PLW2901
            self.environment[name] = value

    def _bring_certificates(self) -> None:
        # Without any, uv has some of its own.
        if (mount := certificates()) is not None:
            self.mounts.append(mount)
            # Two names, for old and new uv.
            self.environment |= {"SSL_CERT_FILE": CERTIFICATES, "UV_NATIVE_TLS": "1", "UV_SYSTEM_CERTS": "1"}

    def _bring_file(self, path: Path) -> str:
        """Take a requirements file in, and those that it names; return its name inside."""
        name = f"requirements-{len(self.requirements)}.txt"
        self.requirements[name] = b""
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise InvalidRequest(f"requirements {str(path)!r} cannot be read: {error.strerror}") from error
        lines = text.replace("\\\n", " ").splitlines()
        self.requirements[name] = "\n".join(self._bring_line(line, path.parent) for line in lines).encode() + b"\n"
        return name

    def _bring_line(self, line: str, folder: Path) -> str:
        line = with_variables(line.partition(" #")[0].strip())
        if line.startswith("#"):
            return ""
        if line == "--no-index":
            self._looks_at_pypi = False
            self.where.append(line)
        elif option := _OPTION.fullmatch(line):
            return self._bring_option(option[1], option[2].strip(), folder)
        elif place := _REFERENCE.fullmatch(line):
            return f"{place['before']}{self._bring(place['place'], folder)}{place['after']}"
        return line

    def _bring_option(self, option: str, value: str, folder: Path) -> str:
        if option in ("-r", "--requirement", "-c", "--constraint") and "://" not in value:
            path = folder / value
            return f"{option} {self._bring_file(path if path.exists() else Path(value))}"
        if option in ("-i", "--index-url"):
            self._looks_at_pypi = False
        line = f"{option} {self._bring(value, folder)}"
        if option in _SAYS_WHERE:
            self.where.append(line)
        return line

    def _bring(self, place: str, folder: Path) -> str:
        """Return what a URL or a path is called inside, and have it there."""
        parts = urlsplit(place)
        if parts.scheme in _PORTS and parts.hostname:
            self._hosts.add((parts.hostname, parts.port or _PORTS[parts.scheme]))
            return place
        host = Path(unquote(parts.path)) if parts.scheme == "file" else Path(place)
        host = host if host.is_absolute() or not (folder / host).exists() else folder / host
        if not host.exists():
            return place  # uv says so in its own words
        if str(host) not in self._places:
            self._places[str(host)] = self._show(
                host, f"{len(self._places)}{f'/{host.name}' if host.is_file() else ''}"
            )
        inside = self._places[str(host)]
        return f"file://{inside}" if parts.scheme == "file" else inside

    def _show(self, host: Path, name: str) -> str:
        mode = host.stat().st_mode
        if os.geteuid() != 0 or (mode & 0o4 and (host.is_file() or mode & 0o1)):
            self.mounts.append(Mount(host=os.path.realpath(host), inside=f"{_INSIDE}/{name}"))
            return f"{_INSIDE}/{name}"
        # A sandbox that root starts is another user.
        for file in host.glob("*.whl") if host.is_dir() else (host,):
            self.laid[f"sources/{name}" + (f"/{file.name}" if host.is_dir() else "")] = file.read_bytes()
        return f"/work/sources/{name}"


def certificates() -> Mount | None:
    """Return the mount of the machine's own certificates, as a company's proxy needs them; None where there are none."""
    bundle = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    found = next(
        (each for each in (bundle, "/etc/ssl/certs/ca-certificates.crt") if each and os.path.isfile(each)), None
    )
    return None if found is None else Mount(host=os.path.realpath(found), inside=CERTIFICATES)


def with_variables(text: str) -> str:
    """Return the text with this process's variables in the place of `${NAME}`; those that are not set stay as they are."""
    return _VARIABLE.sub(lambda found: os.environ.get(found[1], found[0]), text)


def as_place(text: str) -> tuple[str, int]:
    """Return the host and port that a name or a URL without a path stands for. Raises `InvalidRequest`."""
    parts = urlsplit(text if "://" in text else f"https://{text}")
    try:
        if parts.hostname and parts.scheme in _PORTS and not parts.path.strip("/"):
            return parts.hostname, parts.port or _PORTS[parts.scheme]
    except ValueError:
        pass  # a port that is none
    raise InvalidRequest(f"host {text!r}: say a name, with a port where it is not 443, as index.example.com:8443")


def _configured() -> dict[str, str]:
    """Return what uv's configuration file says of places, as variables of its environment."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    named = os.environ.get("UV_CONFIG_FILE")
    for path in (named,) if named else (f"{home}/uv/uv.toml", "/etc/uv/uv.toml"):
        try:
            with open(path, "rb") as file:
                settings = tomllib.load(file)
        except FileNotFoundError:
            continue
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise InvalidRequest(f"uv's configuration {path!r} cannot be read: {error}") from error
        return _as_variables({**settings, **settings.get("pip", {})})
    return {}


def _as_variables(settings: dict[str, object]) -> dict[str, str]:
    found: dict[str, str] = {}
    indexes = [each for each in _listed(settings, "index") if isinstance(each, dict) and "url" in each]
    if default := [str(each["url"]) for each in indexes if each.get("default")]:
        found["UV_DEFAULT_INDEX"] = default[0]
    elif "index-url" in settings:
        found["UV_DEFAULT_INDEX"] = str(settings["index-url"])
    more = [str(each["url"]) for each in indexes if not each.get("default")]
    if more := [*more, *map(str, _listed(settings, "extra-index-url"))]:
        found["UV_INDEX"] = " ".join(more)
    if links := _listed(settings, "find-links"):
        found["UV_FIND_LINKS"] = ",".join(map(str, links))
    if settings.get("no-index"):
        found["UV_NO_INDEX"] = "1"
    return found


def _listed(settings: dict[str, object], name: str) -> list[object]:
    value = settings.get(name, [])
    return value if isinstance(value, list) else []
