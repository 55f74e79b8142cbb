"""In and out: an API key is exchanged for the dashboard's cookie, and the audit log has who came and who failed to."""

from __future__ import annotations

import threading
import time

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from ..behind import Behind, service_of
from ..faults import Fault
from ..service import Service
from ..store.common import Caller
from ..store.keys import FIRST_PROJECT
from . import cookies
from .render import render
from .visiting import Leaving, Page, form_values, same_site

router = APIRouter(route_class=Page, include_in_schema=False)
#: How often a failure is written down: the log is nobody's to fill.
_NOTED_EACH_SECONDS = 1.0


class Failures:
    """Log-ins that failed, written down at most once a second with their number. One for each process."""

    def __init__(self) -> None:
        self._lock, self._since, self._at = threading.Lock(), 0, float("-inf")

    def note(self, service: Service, host: str) -> None:
        """Count one. It is nobody's, so it stands in the first project's log."""
        with self._lock:
            self._since += 1
            if time.monotonic() - self._at < _NOTED_EACH_SECONDS:
                return
            count, self._since, self._at = self._since, 0, time.monotonic()
        for project in service.store.keys.projects():
            if project.name == FIRST_PROJECT:
                nobody = Caller(key_id="", project_id=project.id, scopes=())
                service.store.keys.note(nobody, "dashboard.refused", host, f"{count} with a key that is none")


_failures = Failures()


@router.get("/login")
def ask(request: Request) -> Response:
    """Ask for a key."""
    return render("login.html", None, next=same_site(request.query_params.get("next", "/")), problem="")


@router.post("/login")
async def enter(request: Request) -> Response:
    """Take a key and give the cookie."""
    values = await form_values(request)
    service, key, there = service_of(request), values.get("key", "").strip(), same_site(values.get("next", "/"))
    found = await service.doorman.look_up(key) if key else None
    if found is None:
        await run_in_threadpool(_failures.note, service, request.client.host if request.client else "")
        answer = render("login.html", None, next=there, problem="No key of this service is written like that.")
        answer.status_code = 401
        return answer
    service.gate.count(*found)
    caller = found[0]
    if not caller.scopes:
        raise Fault(403, "this key has no scopes: there is no page that it opens")
    await run_in_threadpool(service.store.keys.note, caller, "dashboard.login", caller.key_id)
    gone = RedirectResponse(there, 303)
    gone.set_cookie(
        cookies.COOKIE, cookies.begin(service.vault, caller.key_id), max_age=cookies.SECONDS, path="/", httponly=True,
        samesite="strict", secure=request.url.scheme == "https",
    )  # fmt: skip
    return gone


@router.post("/logout")
def leave(service: Behind, form: Leaving) -> Response:
    """Take the cookie back."""
    caller = form.visitor.caller
    service.store.keys.note(caller, "dashboard.logout", caller.key_id)
    gone = RedirectResponse("/login", 303)
    gone.delete_cookie(cookies.COOKIE, path="/", httponly=True, samesite="strict")
    return gone
