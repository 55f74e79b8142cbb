"""What a model is told by MCP of what its programs did: texts cut to a sensible length, and pictures that really are some.

All of it comes from the guest. A picture that is none, or a text of megabytes, would break the conversation that it is put into.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Any

from mcp_types import ImageContent, TextContent

if TYPE_CHECKING:
    from collections.abc import Iterable

    Content = TextContent | ImageContent

#: Of each text its head and its tail, so many characters together; what several files hold together; and pictures.
TEXT_CHARACTERS, FILES_CHARACTERS, FILES, PICTURES, PICTURE_BYTES = 20_000, 20_000, 50, 8, 3 << 20

# What begins a file of each of the types that models take.
_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}
# ECMA-48's control sequences: colours, mostly, which a model reads as noise.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_TEXTS = ("text/plain", "text/markdown", "application/json", "text/html", "text/latex")
_ENDINGS = {
    "timeout": "[the cell was interrupted: its time is used up; what was there before stays]",
    "output_limit": "[the cell was interrupted: it printed more than is allowed; what was there before stays]",
    "died": "[the session ended with this cell: start another one]",
}
_REFUSED = "trying again will not help"


class Said:
    """What is told, in order: texts beside one another become one."""

    def __init__(self) -> None:
        self._parts: list[str | ImageContent] = []
        self._pictures = 0

    def text(self, text: str) -> None:
        """Add a text."""
        if not text:
            return
        if self._parts and isinstance(self._parts[-1], str):
            self._parts[-1] += text
        else:
            self._parts.append(text)

    def line(self, text: str) -> None:
        """Add a text that begins a line and ends one."""
        last = self._parts[-1] if self._parts else "\n"
        self.text(("" if not isinstance(last, str) or last.endswith("\n") else "\n") + text.rstrip("\n") + "\n")

    def picture(self, data: bytes) -> None:
        """Add a picture, or say why not."""
        kind = picture_type(data)
        if kind is None or len(data) > PICTURE_BYTES or self._pictures == PICTURES:
            why = "is none" if kind is None else "is too big" if len(data) > PICTURE_BYTES else "is one too many"
            self.line(f"[a picture that {why} was left out: {len(data)} bytes]")
            return
        self._pictures += 1
        self._parts.append(ImageContent(data=base64.b64encode(data).decode("ascii"), mime_type=kind))

    def clear(self) -> None:
        """Take back what was added, as a notebook does."""
        self._parts.clear()
        self._pictures = 0

    def content(self, nothing: str) -> list[Content]:
        """Return all of it; `nothing` stands for none."""
        parts = [each for each in self._parts if not isinstance(each, str) or each.strip()]
        return [each if isinstance(each, ImageContent) else text(each) for each in parts] or [text(nothing)]


def text(value: str) -> TextContent:
    """Return a text as content: shortened, without colours, and without halves of characters, which UTF-8 has no place for."""
    plain = _CONTROL.sub("", value).encode("utf-8", "replace").decode("utf-8")
    return TextContent(text=shortened(plain.rstrip("\n"), TEXT_CHARACTERS))


def shortened(value: str, characters: int) -> str:
    """Return a text's head and tail, with a notice between them, where it is longer."""
    if len(value) <= characters:
        return value
    half = characters // 2
    return f"{value[:half]}\n[… {len(value) - 2 * half} characters left out …]\n{value[-half:]}"


def picture_type(data: bytes) -> str | None:
    """Return the MIME type of a picture that models take; None where it is none."""
    kind = next((kind for begin, kind in _PICTURES.items() if data.startswith(begin)), None)
    return None if kind == "image/webp" and data[8:12] != b"WEBP" else kind


def of_execution(result: dict[str, Any]) -> list[Content]:
    """Tell what came of a program; `result` is as `wire.result_as_json` has it."""
    said = Said()
    # Each by itself: a flood in one shall not wash away the other.
    said.text(shortened(result["stdout"], TEXT_CHARACTERS // 2))
    if result["stderr"]:
        said.line(f"[stderr]\n{shortened(result['stderr'], TEXT_CHARACTERS // 4)}")
    if result["reason"] != "exited":
        said.line(f"[the program was ended: {result['reason'].replace('_', ' ')}: {result['detail']}]")
    elif result["exit_code"] != 0:
        said.line(f"[exit code {result['exit_code']}]")
    _tell_refusals(said, result["refusals"])
    if result["network_refused"] and not result["refusals"]:
        said.line(f"[the program tried to reach the network, which this sandbox has not got: {_REFUSED}]")
    more = Said()
    _tell_files(more, result["files"])
    files = more.content("")
    return said.content("[the program printed nothing: print what you want to see]") + [
        each for each in files if isinstance(each, ImageContent) or each.text
    ]


def of_cell(cell: dict[str, Any]) -> list[Content]:
    """Tell what came of a cell; `cell` is as the native API answers."""
    said = Said()
    for event in cell["events"]:
        match event["type"]:
            case "output":
                said.text(event["text"])
            case "display":
                _tell_display(said, event["data"])
            case "error":
                said.line(event["traceback"] or f"{event['name']}: {event['value']}")
            case "cleared":
                said.clear()
    if cell["ended"] in _ENDINGS:
        said.line(_ENDINGS[cell["ended"]])
    _tell_refusals(said, cell["refusals"])
    return said.content("[the cell showed nothing]" if cell["ok"] else "[the cell failed]")


def of_saved(answer: dict[str, Any]) -> tuple[list[Content], bool]:
    """Tell what a saved tool returned, and whether it failed."""
    execution, status = answer["execution"], answer["output_status"]
    said = Said()
    if status == "valid":
        said.line(json.dumps(answer["output"], ensure_ascii=False, indent=1))
    else:
        words = {"json_serialization_error": "the tool returned what JSON cannot say"}.get(status, "the tool failed")
        said.line(f"[{words}: exit code {execution['exit_code']}]")
    for name in ("stdout", "stderr"):
        if execution[name]:
            said.line(f"[{name}]\n{shortened(execution[name], TEXT_CHARACTERS // 4)}")
    return said.content("null"), status != "valid"


def of_file(path: str, data: bytes) -> list[Content]:
    """Tell what a file holds: as a picture, as text, or in base64."""
    if picture_type(data) is not None:
        said = Said()
        said.picture(data)
        return said.content("")
    try:
        decoded = data.decode("utf-8")
    except UnicodeDecodeError:
        decoded = f"[{printable(path)} is no text; in base64:]\n{base64.b64encode(data).decode('ascii')}"
    return [text(decoded)] if decoded else [text("[the file is empty]")]


def printable(name: str) -> str:
    """Return a name that the guest chose, on one line."""
    return name if name.isprintable() else ascii(name)[1:-1]


def _tell_display(said: Said, shown: dict[str, Any]) -> None:
    for kind, value in shown.items():
        if kind.startswith("image/") and isinstance(value, str) and kind != "image/svg+xml":
            said.picture(_decoded(value))
            return
    for kind in _TEXTS:
        if kind in shown:
            value = shown[kind]
            said.line(value if isinstance(value, str) else json.dumps(value))
            return
    said.line(f"[shown, of the type {', '.join(map(printable, shown))}]")


def _tell_files(said: Said, files: Iterable[dict[str, Any]]) -> None:
    left, listed = FILES_CHARACTERS, 0
    for file in files:
        listed += 1
        if listed > FILES:
            continue
        name, data = printable(file["path"]), _decoded(file["base64"]) if "base64" in file else file["text"]
        if isinstance(data, bytes):
            said.line(f"[file {name}, {len(data)} bytes{', no text' if picture_type(data) is None else ''}]")
            if picture_type(data) is not None:
                said.picture(data)
        elif len(data) <= left:
            left -= len(data)
            said.line(f"[file {name}]\n{data}")
        else:
            said.line(f"[file {name}, {len(data)} characters, too long to be shown]")
    if listed > FILES:
        said.line(f"[and {listed - FILES} more files]")


def _tell_refusals(said: Said, refusals: Iterable[dict[str, Any]]) -> None:
    why = list(dict.fromkeys(printable(str(each["why"])) for each in refusals))[:5]
    if why:
        said.line(f"[refused by the sandbox's policy: {'; '.join(why)}: {_REFUSED}]")


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        return b""
