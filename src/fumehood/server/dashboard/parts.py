"""What pages are made of besides their text: style, scripts, and the frame in which alone a program's HTML is shown.

Promised, and shown by tests in Chromium: what a program displayed reaches neither the page around it nor the cookie, the API, the
top window or the network. It is laid into a document of no origin, whose own policy forbids everything but inline styles and
pictures that it brought along; its scripts are left out and would not run.

Not promised for /frame/scripts, where a person chose to run them: there a script may still use up the processor and end its own
page. `connection-allowlist` closes what Content-Security-Policy leaves open (names looked up for a frame that goes elsewhere,
WebRTC); browsers that do not know it leave that open.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from ..faults import Fault, answer

_FOLDER = Path(__file__).parent / "static"
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_NOTHING = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
_COMMON = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "x-dns-prefetch-control": "off"}
router = APIRouter(include_in_schema=False)


@router.get("/static/{name}")
def static(name: str) -> Response:
    """Give a style sheet, a script or a picture."""
    files = _files()
    if name not in files:
        return answer(Fault(404, f"there is nothing at /static/{name}"))
    kind = _TYPES[name.rpartition(".")[2]]
    headers = {**_COMMON, "cache-control": "no-cache", "content-security-policy": "default-src 'none'; sandbox"}
    return Response(files[name], media_type=kind, headers=headers)


@router.get("/frame")
def frame() -> Response:
    """Give the document that shows HTML without its scripts: by its policy the one script in it is ours."""
    document, digest = _document("frame.html")
    return _framed(document, f"sandbox allow-scripts; script-src 'sha256-{digest}'; {_NOTHING}")


@router.get("/frame/scripts")
def frame_with_scripts() -> Response:
    """Give the one that shows HTML and runs its scripts."""
    document, _digest = _document("frame-scripts.html")
    answered = _framed(document, f"sandbox allow-scripts; script-src 'unsafe-inline' 'unsafe-eval'; {_NOTHING}")
    answered.headers["connection-allowlist"] = "()"
    return answered


def _framed(document: str, policy: str) -> Response:
    headers = {**_COMMON, "cache-control": "no-store", "content-security-policy": policy}
    return HTMLResponse(document, headers=headers)


@functools.cache
def _files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in _FOLDER.iterdir() if path.suffix.lstrip(".") in _TYPES}


@functools.cache
def _document(name: str) -> tuple[str, str]:
    """Return a frame's document and the digest of its script, as policies name scripts (CSP level 3, 2.3.1)."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    return text, base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode("ascii") if script else ""
