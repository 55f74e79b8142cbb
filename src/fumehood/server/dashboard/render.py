"""Makes pages of templates. Every text is escaped: what a guest said is text and nothing else."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse

from ... import __version__

if TYPE_CHECKING:
    import jinja2

    from .visiting import Visitor

_FOLDER = Path(__file__).parent
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_PICTURES = ("image/png", "image/jpeg")
_FRAMED = ("text/html", "image/svg+xml")


def render(template: str, visitor: Visitor | None, **values: Any) -> HTMLResponse:
    """Return a page as an answer."""
    text = _environment().get_template(template).render(visitor=visitor, version=__version__, **values)
    # A guest's text may hold half a character.
    return HTMLResponse(text.encode("utf-8", "replace"))


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2  # noqa: PLC0415 - 60 ms that a service which shows no page need not pay

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "when": when, "took": took, "amount": amount, "short": short, "pretty": pretty, "plain": plain, "shown": shown,
    }  # fmt: skip
    return environment


def when(moment: str) -> str:
    """Return a moment to the second, for people; all are UTC."""
    return moment[:19].replace("T", " ")


def took(milliseconds: float) -> str:
    """Return how long something took."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def amount(size: float) -> str:
    """Return a number of bytes."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def short(name: str) -> str:
    """Return the end of an id, by which people tell them apart."""
    return name[-8:]


def pretty(value: Any) -> str:
    """Return a JSON value for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def plain(text: Any) -> str:
    """Return a text without what colours it on a terminal."""
    return _ANSI.sub("", str(text))


def shown(data: Any) -> dict[str, str]:
    """Return how something displayed is shown: `as` is "framed", "picture" or "text", with its `content` and `type`."""
    if not isinstance(data, dict):
        return {"as": "text", "type": "", "content": ""}
    for kind in _FRAMED[:1] + _PICTURES + _FRAMED[1:]:
        content = data.get(kind)
        if isinstance(content, str) and kind in _FRAMED:
            return {"as": "framed", "type": kind, "content": content}
        # What was cut when it was kept is no picture.
        if isinstance(content, str) and _BASE64.fullmatch(content):
            return {"as": "picture", "type": kind, "content": content}
    kind = next((each for each in ("text/plain", "text/markdown", "text/latex") if each in data), next(iter(data), ""))
    content = data.get(kind, "")
    return {"as": "text", "type": kind, "content": plain(content if isinstance(content, str) else pretty(content))}
