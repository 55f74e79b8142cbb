"""Who looks at a page, what they may see, and what every page's answer says to the browser.

Promised: a page is shown to a key that is there, with the scope that it needs; a form counts only with its visit's own token, and
only from this host's pages.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from ...protocol.record import Record
from ..behind import service_of
from ..faults import Fault, fault_of, lacking
from . import cookies
from .render import render

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..service import Service
    from ..store.common import Caller

#: Everything that a page loads is this host's; what a program displayed stands in frames of /frame alone.
PAGE_CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": PAGE_CSP,
    "x-content-type-options": "nosniff",
    # Not "no-referrer": with that browsers send forms from an origin "null", as a stranger's page may have its forms sent.
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-dns-prefetch-control": "off",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
_FORM_BYTES = 2 << 20
#: Pages by the scope that each needs, in the order of the menu.
MENU = (
    ("/", "Overview", "read"), ("/playground", "Playground", "execute"), ("/executions", "Executions", "read"),
    ("/tools", "Tools", "read"), ("/runtimes", "Runtimes", "read"), ("/secrets", "Secrets", "read"),
    ("/egress", "Egress", "read"), ("/keys", "Keys", "keys"), ("/audit", "Audit", "keys"),
)  # fmt: skip


class Visitor(Record):
    """Who looks: the key, the name of its project, and what forms carry."""

    caller: Caller
    project: str
    csrf: str

    @property
    def menu(self) -> list[tuple[str, str]]:
        """The pages that the key's scopes open, with their names."""
        return [(path, name) for path, name, scope in MENU if self.caller.may(scope)]


class Away(Exception):
    """The browser is to go elsewhere."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(path)


class Form(Record):
    """What a form brought, and who sent it."""

    visitor: Visitor
    values: dict[str, str]

    def get(self, name: str) -> str:
        """Return one of its fields; empty where it was not there."""
        return self.values.get(name, "")


class Page(APIRoute):
    """A route that answers with a page, errors too, and says to the browser what a page may do."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler."""
        handle = super().get_route_handler()

        async def page(request: Request) -> Response:
            try:
                answer = await handle(request)
            except Away as away:
                answer = RedirectResponse(away.path, 303)
            except HTTPException:
                raise
            except Exception as error:  # noqa: BLE001 - shown to whoever looks
                answer = await run_in_threadpool(_error_page, request, fault_of(error))
            for name, value in HEADERS.items():
                answer.headers.setdefault(name, value)
            return answer

        return page


async def visitor_of(request: Request) -> Visitor:
    """Return who looks. Sends the browser to the log-in where that is nobody."""
    visitor = await run_in_threadpool(_visitor, request)
    if visitor is None:
        there = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        raise Away("/login" if request.method != "GET" or there == "/" else f"/login?next={quote(there)}")
    request.state.caller = visitor.caller  # the log says who asked
    return visitor


def looking(scope: str) -> Any:
    """Return the dependency that finds who looks at a page, and raises a 403 where the key lacks the scope."""

    async def visitor(request: Request) -> Visitor:
        found = await visitor_of(request)
        if request.url.path == "/" and not found.caller.may(scope) and found.menu:
            raise Away(found.menu[0][0])
        _check_scope(found, scope)
        return found

    return Depends(visitor)


def sending(scope: str | None) -> Any:
    """Return the dependency that takes a form of somebody who may send it."""

    async def form(request: Request) -> Form:
        visitor = await visitor_of(request)
        values = await form_values(request)
        if not secrets.compare_digest(values.get("csrf", "").encode(), visitor.csrf.encode()):
            raise Fault(403, "this form is of another visit: load the page again and send it from there")
        if scope is not None:
            _check_scope(visitor, scope)
        return Form(visitor=visitor, values=values)

    return Depends(form)


async def form_values(request: Request) -> dict[str, str]:
    """Return what a form holds. Raises a 403 where it comes from another site."""
    _check_origin(request)
    body = await request.body()
    if len(body) > _FORM_BYTES:
        raise Fault(413, f"a form holds {_FORM_BYTES >> 20} MiB at most")
    try:
        return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=50))
    except ValueError as error:
        raise Fault(400, f"this is no form: {error}") from error


def same_site(path: str) -> str:
    """Return a path of ours to go to after the log-in; "/" where it is anything else."""
    # Browsers take a backslash for a slash, and leave blanks and control characters out.
    ours = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if ours and " " not in path and _host_of(path) == "" else "/"


Looking = Annotated[Visitor, looking("read")]
Playing = Annotated[Visitor, looking("execute")]
Keyholding = Annotated[Visitor, looking("keys")]
Managing = Annotated[Form, sending("manage")]
Running = Annotated[Form, sending("execute")]
Keeping = Annotated[Form, sending("keys")]
Leaving = Annotated[Form, sending(None)]


def _visitor(request: Request) -> Visitor | None:
    service: Service = service_of(request)
    visit = cookies.visit_of(request, service.vault)
    found = None if visit is None else service.doorman.look_up_id(visit.key_id)
    if visit is None or found is None:
        return None
    service.gate.count(*found)
    project = service.store.keys.project(found[0].project_id)
    return Visitor(caller=found[0], project="" if project is None else project.name, csrf=visit.csrf)


def _check_scope(visitor: Visitor, scope: str) -> None:
    if not visitor.caller.may(scope):
        raise lacking(scope)


def _host_of(address: str) -> str | None:
    try:
        return urlsplit(address).netloc
    except ValueError:
        return None


def _check_origin(request: Request) -> None:
    origin = request.headers.get("origin")
    if origin is not None and _host_of(origin) != request.headers.get("host"):
        raise Fault(403, f"a form came from {origin[:100]}, which is not this service: nothing was done")


def _error_page(request: Request, fault: Fault) -> Response:
    try:
        visitor = _visitor(request)
    except Exception:  # noqa: BLE001 - the page of an error is shown all the same, without a menu
        visitor = None
    answer = render("error.html", visitor, status=fault.status, message=fault.message)
    answer.status_code = fault.status
    answer.headers.update(fault.headers)
    return answer
