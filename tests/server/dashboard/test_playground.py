"""The playground in Chromium, from end to end."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import BrowserContext, FilePayload, Locator, Page, expect

SHOW = "class Shown(dict):\n    def _repr_mimebundle_(self, **_options): return dict(self)\n"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
UNTIL_TOLD = "import os, time\nprint('first')\nwhile not os.path.exists('go'): time.sleep(.01)\nprint('second')"


@pytest.fixture(autouse=True)
def alone(api: httpx.Client) -> None:
    """No session of another test."""
    for each in api.get("/v1/sessions").json()["sessions"]:
        api.delete(f"/v1/sessions/{each['id']}")


@pytest.fixture
def bench(page: Page) -> Page:
    page.goto("/playground")
    expect(page.get_by_label("Code")).to_be_visible()
    return page


def run(bench: Page, code: str) -> Locator:
    """Run a cell to its end and return it."""
    cell = start(bench, code)
    expect(cell).not_to_have_class("cell running")
    return cell


def start(bench: Page, code: str) -> Locator:
    count = bench.locator(".cell").count()
    bench.get_by_label("Code").fill(code)
    bench.get_by_role("button", name="Run", exact=True).click()
    expect(bench.locator(".cell")).to_have_count(count + 1)
    return bench.locator(".cell").first


def upload(bench: Page, name: str, content: bytes) -> None:
    bench.get_by_label("Upload").set_input_files(files=FilePayload(name=name, mimeType="text/plain", buffer=content))


def test_output_appears_before_the_cell_has_ended(bench: Page) -> None:
    cell = start(bench, UNTIL_TOLD)
    expect(cell.locator(".out")).to_have_text("first")
    expect(cell).to_have_class("cell running")
    expect(bench.get_by_role("button", name="Run", exact=True)).to_be_disabled()
    upload(bench, "go", b"")
    expect(cell.locator(".out")).to_have_text("first\nsecond\n")
    expect(cell).to_contain_text("ok")


def test_cells_share_state_and_errors_are_shown_with_their_place(bench: Page) -> None:
    run(bench, "x = 20")
    cell = run(bench, "import sys; print('to err', file=sys.stderr); x + 22")
    expect(cell.locator(".stderr")).to_have_text("to err\n")
    expect(cell.locator(".out")).to_contain_text("42")
    failed = run(bench, "def f():\n    return 1 / 0\nf()")
    expect(failed.locator(".stderr")).to_contain_text("line 2, in f")
    expect(failed.locator(".stderr")).to_contain_text("ZeroDivisionError")
    expect(failed.locator("header")).to_contain_text("error")


def test_figures_html_and_text_are_shown_as_what_they_are(bench: Page) -> None:
    code = f"""{SHOW}
display(Shown({{'image/png': {PIXEL!r}}}))
display(Shown({{'text/html': '<table><tr><td>in a table</td></tr></table>', 'text/plain': 'not this'}}))
display(Shown({{'image/svg+xml': '<svg xmlns="http://www.w3.org/2000/svg"><circle r="4"/></svg>'}}))
display(Shown({{'text/plain': '<b>as text</b>'}}))
display(Shown({{'image/png': '" onerror="alert(1)'}}))
"""
    cell = run(bench, code)
    assert cell.locator("img.figure").count() == 1
    assert cell.locator("img.figure").evaluate("each => each.decode().then(() => each.naturalWidth)") == 1
    expect(cell.frame_locator("iframe").first.locator("td")).to_have_text("in a table")
    expect(cell.frame_locator("iframe").nth(1).locator("circle")).to_have_count(1)
    expect(cell.locator("pre.text").first).to_have_text("<b>as text</b>")
    expect(cell.locator("pre.text").last).to_contain_text("onerror")


def test_a_copy_goes_its_own_way_and_one_switches_between_them(bench: Page) -> None:
    run(bench, "x = 1; open('kept', 'w').write('as it was')")
    bench.get_by_role("button", name="Fork").click()
    picks = bench.locator("#sessions input")
    expect(picks).to_have_count(2)
    expect(picks.nth(1)).to_be_checked()
    expect(bench.locator(".note")).to_be_visible()
    run(bench, "x += 1; open('kept', 'w').write('changed')")
    expect(run(bench, "x, open('kept').read()").locator(".out")).to_have_text("(2, 'changed')")
    picks.nth(0).check()
    expect(bench.locator(".cell")).to_have_count(1)
    expect(run(bench, "x, open('kept').read()").locator(".out")).to_have_text("(1, 'as it was')")
    bench.get_by_role("button", name="End").nth(1).click()
    expect(picks).to_have_count(1)
    expect(picks.nth(0)).to_be_checked()


def test_files_go_up_and_come_down(bench: Page) -> None:
    upload(bench, "with a blank & ümlaut.txt", b"up\x00\xff")
    expect(bench.locator("#files li")).to_have_count(1)
    cell = run(
        bench, "import os; [name] = os.listdir(); open('out.html', 'wb').write(open(name, 'rb').read()[::-1]); name"
    )
    expect(cell.locator(".out")).to_have_text("'with a blank & ümlaut.txt'")
    with bench.expect_download() as coming:
        bench.get_by_role("button", name="Download out.html").click()
    assert coming.value.suggested_filename == "out.html"
    assert coming.value.path().read_bytes() == b"\xff\x00pu"


def test_a_loop_without_end_is_interrupted_and_state_stays(bench: Page) -> None:
    cell = start(bench, "x = 5\nprint('in it')\nwhile True: pass")
    expect(cell.locator(".out")).to_contain_text("in it")
    bench.get_by_role("button", name="Interrupt").click()
    expect(cell).to_contain_text("KeyboardInterrupt")
    expect(run(bench, "x").locator(".out")).to_have_text("5")
    bench.get_by_role("button", name="Restart").click()
    expect(bench.locator(".note")).to_be_visible()
    expect(run(bench, "x").locator(".out")).to_contain_text("NameError")


def test_a_fresh_sandbox_keeps_nothing_and_gives_its_files_back(bench: Page) -> None:
    bench.get_by_label("a fresh sandbox").check()
    upload(bench, "in.txt", b"from here")
    cell = run(bench, "import sys; open('out.txt', 'w').write(open('in.txt').read().upper()); sys.exit(3)")
    expect(cell.locator("header")).to_contain_text("exit 3")
    with bench.expect_download() as coming:
        cell.get_by_role("button", name="Download out.txt").click()
    assert coming.value.path().read_text() == "FROM HERE"
    cell = start(bench, "print('begun')\nwhile True: pass")
    expect(cell.locator(".out")).to_contain_text("begun")
    bench.get_by_role("button", name="Interrupt").click()
    expect(cell.locator("header")).to_contain_text("ended")


def test_what_cannot_be_done_is_said_in_words(visit: BrowserContext) -> None:
    bench = visit.new_page()
    bench.goto("/playground")
    bench.get_by_label("Hosts that it may reach").fill("example.com:99999")
    bench.get_by_label("Code").fill("1")
    with bench.expect_response(lambda answer: answer.request.method == "POST") as answered:
        bench.get_by_role("button", name="Run", exact=True).click()
    assert answered.value.status == 400
    expect(bench.get_by_role("alert")).to_contain_text("99999")
    bench.close()


def test_a_session_that_lives_is_found_again_after_a_reload(bench: Page) -> None:
    run(bench, "x = 7")
    bench.reload()
    expect(bench.locator("#sessions input")).to_be_checked()
    expect(run(bench, "x").locator(".out")).to_have_text("7")


def test_all_of_it_goes_by_keyboard(bench: Page) -> None:
    keys = bench.keyboard
    keys.press("Tab")
    expect(bench.get_by_role("link", name="To the content")).to_be_focused()
    keys.press("Enter")
    walk(bench, "code")
    keys.type("if True:")
    keys.press("Enter")
    keys.press("Tab")
    keys.type("print('typed')")
    expect(bench.get_by_label("Code")).to_have_value("if True:\n    print('typed')")
    keys.press("Control+Enter")
    expect(bench.locator(".cell .out")).to_have_text("typed\n")
    keys.press("Escape")
    keys.press("Tab")
    expect(bench.get_by_role("button", name="Run", exact=True)).to_be_focused()
    walk(bench, "fork")
    keys.press("Enter")
    expect(bench.locator("#sessions input")).to_have_count(2)
    for _each in range(40):
        if bench.evaluate("document.activeElement.name") == "session":
            break
        keys.press("Tab")
    keys.press("ArrowUp")
    expect(bench.locator("#sessions input").first).to_be_checked()
    expect(bench.locator("#sessions input").first).to_be_focused()
    expect(bench.locator(".cell .out")).to_have_text("typed\n")


def walk(bench: Page, name: str) -> None:
    """Press Tab until the element with this id has the focus."""
    for _each in range(40):
        if bench.evaluate("document.activeElement.id") == name:
            return
        bench.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {name}")


def test_on_a_phone_it_runs_and_nothing_scrolls_sideways(visit: BrowserContext) -> None:
    page = visit.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/playground")
    code = (
        SHOW
        + "print('x' * 500); display(Shown({'text/html': '<div style=\"width:3000px\">wide</div>'})); '"
        + "y" * 500
        + "'"
    )
    cell = run(page, code)
    expect(cell.frame_locator("iframe").locator("div")).to_have_text("wide")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
