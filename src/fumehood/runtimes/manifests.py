"""Reads what somebody else wants installed: a `requirements.txt` or a `package.json` that came over the network.

Promised: what comes out names packages of the index and their versions, and nothing else. No URL, no path, no option: each could
make the builder fetch from hosts of this network, or read files. The builder is given what was understood here, not the text.
Not promised: that there are such packages.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..errors import InvalidRequest

#: The kinds of manifest, by the file's name.
KINDS = ("requirements.txt", "package.json")
_BYTES, _ENTRIES = 64 * 1024, 500

# PEP 508, without URLs. Possessive, so that no text takes long to be refused.
_VERSION = r"(?:===|==|~=|!=|<=|>=|<|>)[ \t]*+[A-Za-z0-9._*+!-]++"
_VERSIONS = rf"{_VERSION}(?:[ \t]*+,[ \t]*+{_VERSION})*+"
_EXTRAS = r"\[[ \t]*+(?:[A-Za-z0-9._-]++[ \t]*+,?[ \t]*+)*+\]"
_MARKER = r"""(?:[ \t]++|[a-z_]++|[<>=!~]++|[()]|'[A-Za-z0-9._*+! -]*+'|"[A-Za-z0-9._*+! -]*+")++"""
_REQUIREMENT = re.compile(
    rf"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)[ \t]*+(?:{_EXTRAS})?[ \t]*+"
    rf"(?:{_VERSIONS}|\([ \t]*+{_VERSIONS}[ \t]*+\))?[ \t]*+(?:;{_MARKER})?"
)
# Builders take such a word for a file.
_FILES = (".whl", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz", ".xz", ".txz", ".zst", ".lzma", ".tlz", ".lz", ".egg")

_NPM_NAME = re.compile(r"(?:@[A-Za-z0-9~][A-Za-z0-9._~-]*/)?[A-Za-z0-9~][A-Za-z0-9._~-]*")
_NPM_NAME_CHARACTERS = 214
# A range of versions or a tag; without `/`, `:`, `@` and `#` it can be no URL, path, alias or repository.
_NPM_RANGE = re.compile(r"[A-Za-z0-9<>=~^*|+ -][A-Za-z0-9<>=~^*|+ .-]*|")


def read_requirements(contents: str) -> list[str]:
    """Return the requirement specifiers of a `requirements.txt`. Raises `InvalidRequest` naming the line."""
    _check_size("requirements.txt", contents)
    found: list[str] = []
    for number, line in enumerate(contents.split("\n"), 1):
        # A comment starts a line, or comes after a space.
        words = re.split(r"(?:^|[ \t])#", line.removesuffix("\r"), maxsplit=1)[0].strip(" \t")
        if not words:
            continue
        if (why := _why_no_requirement(words)) is not None:
            raise InvalidRequest(
                f"requirements.txt line {number}, {_short(words)}: {why}. Take lines as `name`, `name==1.2` or `name[extra]>=1,<2`"
            )
        found.append(words)
    _check_count("requirements.txt", len(found))
    return found


def read_package_json(contents: str) -> dict[str, str]:
    """Return the `dependencies` of a `package.json`. Raises `InvalidRequest` naming the field."""
    _check_size("package.json", contents)
    try:
        manifest: Any = json.loads(contents)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"package.json is no JSON: {error}") from error
    dependencies = manifest.get("dependencies") if isinstance(manifest, dict) else None
    if not isinstance(dependencies, dict):
        raise InvalidRequest('package.json: `dependencies` must be an object, as {"lodash": "^4.17.0"}')
    _check_count("package.json", len(dependencies))
    for name, version in dependencies.items():
        field = f"package.json: dependencies, {_short(name)}"
        if not _NPM_NAME.fullmatch(name) or len(name) > _NPM_NAME_CHARACTERS:
            raise InvalidRequest(f"{field}: that is no name of a package")
        if not isinstance(version, str) or not _NPM_RANGE.fullmatch(version) or version.lower().endswith(_FILES):
            raise InvalidRequest(
                f"{field}: {_short(version)} is neither a range of versions, as `^4.17.0`, nor a tag, as `latest`; URLs, files, "
                "repositories, aliases and workspaces are not taken"
            )
    return dependencies


def _why_no_requirement(words: str) -> str | None:
    if words.startswith("-"):
        return "options are not taken"
    if words.endswith("\\"):
        return "a requirement is on one line"
    if "://" in words or "@" in words:
        return "URLs are not taken"
    match = _REQUIREMENT.fullmatch(words)
    if match is None:
        return "paths are not taken" if "/" in words else "it is no requirement of PEP 508"
    return "files are not taken" if match["name"].lower().endswith(_FILES) else None


def _check_size(kind: str, contents: str) -> None:
    size = len(contents.encode("utf-8", "surrogatepass"))
    if size > _BYTES:
        raise InvalidRequest(f"{kind} has {size} bytes: {_BYTES} are the most")


def _check_count(kind: str, count: int) -> None:
    if count > _ENTRIES:
        raise InvalidRequest(f"{kind} names {count} packages: {_ENTRIES} are the most")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
