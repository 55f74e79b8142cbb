"""The dashboard's cookie: whose visit it is and until when, sealed by the service's own key.

Promised: it holds no API key; nobody without the service's key can make or change one; it opens nothing once its key is revoked,
since that is looked up each time. What the pages' scripts ask of the API counts only with `HEADER` beside the cookie: another
site cannot send that header without asking first, and nobody says yes.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING

from ...protocol.record import Record

if TYPE_CHECKING:
    from starlette.requests import Request

    from ..vault import Vault

COOKIE, HEADER = "fumehood", "x-fumehood-dashboard"
SECONDS = 12 * 3600


class Visit(Record):
    """What a cookie holds: a key's id, the second at which it ends, and what the pages' forms carry."""

    key_id: str
    until: int
    csrf: str


def begin(vault: Vault, key_id: str) -> str:
    """Return the cookie of a new visit."""
    visit = Visit(key_id=key_id, until=int(time.time()) + SECONDS, csrf=secrets.token_urlsafe(24))
    return vault.seal(json.dumps(visit.as_dict()))


def read(vault: Vault, cookie: str) -> Visit | None:
    """Return the visit; None where the cookie is not ours, or too old."""
    text = vault.unseal(cookie)
    if text is None:
        return None
    visit = Visit(**json.loads(text))
    return visit if time.time() < visit.until else None


def visit_of(request: Request, vault: Vault) -> Visit | None:
    """Return a request's visit."""
    cookie = request.cookies.get(COOKIE)
    return read(vault, cookie) if cookie else None


def of_our_scripts(request: Request, vault: Vault) -> Visit | None:
    """Return the visit whose page's script made a request to the API; None where none did."""
    return visit_of(request, vault) if request.headers.get(HEADER) == "1" else None
