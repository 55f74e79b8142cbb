"""Every page in Chromium: no complaint on the console, no scrolling sideways on a phone, both colour schemes, forms that work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.testing.served import KEY, Served

PAGES = ("/", "/playground", "/executions", "/tools", "/runtimes", "/secrets", "/keys", "/egress", "/audit")
LONG = "a_name_without_any_blank_in_it_" * 8


@pytest.fixture(scope="module")
def filled(api: httpx.Client) -> dict[str, str]:
    """Something of each kind, with names that are long; where each has a page, its path."""
    api.post("/v1/secrets", json={"name": LONG, "value": "v"})
    body = {"language": "python", "name": LONG, "manifest_file": {"name": "requirements.txt", "contents": "# " + LONG}}
    runtime = api.post("/v1/runtimes", json=body).json()["id"]
    api.post("/v1/keys", json={"name": LONG})
    reaching = (
        f"import urllib.request; print({LONG!r}); urllib.request.urlopen('http://refused.example.com', timeout=2)"
    )
    execution = api.post(
        "/v1/executions", json={"code": reaching, "network": {"allow": ["allowed.example.com"]}}
    ).json()["id"]
    tool = api.post(
        "/v1/tools", json={"name": LONG, "language": "python", "code": f"def execute(input): return {LONG!r}"}
    ).json()["id"]
    return {"execution": f"/executions/{execution}", "tool": f"/tools/{tool}", "runtime": f"/runtimes/{runtime}"}


@pytest.fixture(scope="module")
def paths(filled: dict[str, str]) -> tuple[str, ...]:
    return (*PAGES, *filled.values())


@pytest.fixture(scope="module", params=["light", "dark"])
def phone(
    request: pytest.FixtureRequest, browser: Browser, visit: BrowserContext, served: Served
) -> Iterator[BrowserContext]:
    scheme: Literal["light", "dark"] = request.param
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme, base_url=served.url)
    context.add_cookies(visit.cookies())  # type: ignore[arg-type]  # what it gave it takes
    yield context
    context.close()


def test_every_page_loads_without_a_complaint(page: Page, paths: tuple[str, ...]) -> None:
    for path in paths:
        answer = page.goto(path, wait_until="load")
        assert answer is not None
        assert answer.status == 200, path
        assert page.locator("h1").count() == 1
        assert page.evaluate("[...document.querySelectorAll('[style], script:not([src])')].length") == 0


def test_no_page_scrolls_sideways_on_a_phone(phone: BrowserContext, paths: tuple[str, ...]) -> None:
    page = phone.new_page()
    for path in (*paths, "/login"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    page.close()


def test_colours_follow_the_system_and_text_can_be_read(phone: BrowserContext) -> None:
    page = phone.new_page()
    page.goto("/")
    back, ink, soft = page.evaluate(
        """() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
                  getComputedStyle(document.querySelector('dt')).color].map((each) => each.match(/\\d+/g).map(Number))"""
    )
    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (sum(back) < 384) == is_dark
    # WCAG 2.2, 1.4.3: 4.5 for text.
    assert contrast(back, ink) > 12
    assert contrast(back, soft) > 4.5
    page.close()


def contrast(one: list[int], other: list[int]) -> float:
    """As WCAG 2.2 defines it."""

    def light(colour: list[int]) -> float:
        parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_menu_of_a_phone_opens_and_closes_by_the_keyboard(phone: BrowserContext) -> None:
    page = phone.new_page()
    page.goto("/")
    menu = page.locator("summary", has_text="Menu")
    menu.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".narrow nav")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".narrow nav")).to_be_hidden()
    page.keyboard.press("Enter")
    page.locator(".narrow nav").get_by_role("link", name="Executions").click()
    expect(page.locator("h1")).to_have_text("Executions")
    page.close()


def test_a_project_in_which_nothing_happened_says_so(browser: Browser, served: Served, api: httpx.Client) -> None:
    project = api.post("/v1/projects", json={"name": "fresh"}).json()["id"]
    key = api.post("/v1/keys", json={"name": "k", "project_id": project, "scopes": ["read", "keys"]}).json()["key"]
    context = browser.new_context(base_url=served.url)
    page = context.new_page()
    page.goto("/tools")
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{served.url}/tools")  # where it wanted to go
    for path in ("/", "/executions", "/tools", "/runtimes", "/secrets", "/egress"):
        page.goto(path)
        expect(page.locator("p.empty").first).to_be_visible()
    page.goto("/")
    expect(page.locator("svg.plot text.empty")).to_have_count(2)
    context.close()


def test_the_overview_counts_draws_and_names_the_walls(page: Page, api: httpx.Client, filled: dict[str, str]) -> None:
    api.post("/v1/executions", json={"code": "print(1)"})
    used = api.get("/v1/usage").json()
    page.goto("/")
    tiles = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True))
    assert tiles["Executions today"] == str(used["executions"])
    assert tiles["Failed today"].split()[0] == str(used["failed"])
    assert page.locator("svg.plot .failed").count() >= 1
    assert page.locator("svg.plot circle.mean").count() >= 1
    walls = page.locator(".walls li").all_inner_texts()
    assert len(walls) == 18
    assert all("up" in each.split("\n")[0] for each in walls if "cgroup" not in each.split()[0]), walls


def test_failed_executions_are_filtered_and_lists_are_paged(page: Page, api: httpx.Client) -> None:
    for _each in range(3):
        programs = [{"code": "echo 1" if number % 5 else "exit 3", "language": "bash"} for number in range(20)]
        api.post("/v1/batches", json={"programs": programs})
    page.goto("/executions")
    first = page.locator("tbody a").first.get_attribute("href")
    assert page.locator("tbody tr").count() == 50
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_role("link", name="Newest")).to_be_visible()
    assert first not in [each.get_attribute("href") for each in page.locator("tbody a").all()]
    page.get_by_role("link", name="Failed").click()
    page.wait_for_url("**failed=1")
    assert set(page.locator("tbody .badge").all_inner_texts()) <= {"exit 3", "exit 1"}
    page.locator("tbody a").first.click()
    expect(page.locator("h1")).to_contain_text("exit 3")
    expect(page.get_by_label("Code", exact=True)).to_have_text("exit 3")


def test_an_execution_shows_whom_it_was_kept_from(page: Page, filled: dict[str, str]) -> None:
    page.goto(filled["execution"])
    row = page.locator("tbody tr").first
    expect(row).to_contain_text("refused.example.com")
    expect(row).to_contain_text("refused")
    page.goto("/egress")
    expect(page.locator("tbody tr").first).to_contain_text("refused.example.com")


def test_a_secret_is_added_by_a_form_never_shown_and_deleted(page: Page, api: httpx.Client) -> None:
    page.goto("/secrets")
    page.get_by_role("textbox", name="Name").fill("token of a shop")
    page.get_by_label("Value").fill("s3cret-value")
    page.get_by_role("button", name="Add").click()
    row = page.get_by_role("row", name="token of a shop")
    expect(row).to_be_visible()
    assert "s3cret-value" not in page.content()
    assert "token of a shop" in [each["name"] for each in api.get("/v1/secrets").json()["secrets"]]
    row.get_by_role("button", name="Delete token of a shop").click()
    expect(row).to_have_count(0)


def test_a_key_is_shown_once_works_and_is_revoked(page: Page, served: Served) -> None:
    page.goto("/keys")
    page.get_by_label("Name").fill("for a colleague")
    page.get_by_label("read").check()
    page.get_by_label("execute").uncheck()
    page.get_by_role("button", name="Make it").click()
    key = page.locator("#fresh").inner_text()
    with httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {key}"}) as colleague:
        assert colleague.get("/v1/tools").status_code == 200
        assert colleague.post("/v1/executions", json={"code": ""}).status_code == 403
        page.goto("/keys")
        assert key not in page.content()
        page.get_by_role("button", name="Revoke for a colleague").click()
        expect(page.get_by_role("row", name="for a colleague")).to_contain_text("revoked")
        assert colleague.get("/v1/tools").status_code == 401
    page.goto("/audit")
    expect(page.locator("tbody tr").first).to_contain_text("key.revoke")


def test_a_tool_is_run_on_input_that_is_typed_and_refused_what_its_schema_refuses(
    page: Page, api: httpx.Client
) -> None:
    body = {
        "name": "double",
        "language": "python",
        "code": "def execute(input):\n    print('so')\n    return input * 2",
        "input_schema": {"type": "number"},
    }
    tool = api.post("/v1/tools", json=body).json()["id"]
    api.post(f"/v1/tools/{tool}", json={"code": "def execute(input):\n    print('so it is')\n    return input * 3"})
    page.goto("/tools")
    page.get_by_role("link", name="double").click()
    assert page.locator("main details").count() == 2
    page.get_by_label("Input, as JSON").fill("14")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#outcome")).to_have_text("42")
    expect(page.get_by_label("Standard output")).to_have_text("so it is\n")
    for wrong, words in (('"x"', "is not of type 'number'"), ("{", "no JSON")):
        page.get_by_label("Input, as JSON").fill(wrong)
        answer = page.request.post(
            f"/tools/{tool}",
            form={"csrf": page.locator("[name=csrf]").first.get_attribute("value") or "", "input": wrong},
        )
        assert (answer.status, words in answer.text().replace("&#39;", "'")) == (400, True)


def test_a_runtime_is_made_by_a_form_and_followed_to_its_end(page: Page) -> None:
    page.goto("/runtimes")
    page.get_by_label("Name").fill("with nothing more")
    page.get_by_label("Packages").fill("no-such-package-is-anywhere==9.9.9")
    page.get_by_role("button", name="Build it").click()
    expect(page.locator("h1")).to_contain_text("with nothing more")
    # The page takes itself anew when the build has ended.
    expect(page.locator(".revision .badge")).to_have_text("failed", timeout=30_000)
    expect(page.get_by_label("Build log")).to_contain_text("no-such-package-is-anywhere")
    page.get_by_role("button", name="Delete this runtime").click()
    page.wait_for_url("**/runtimes")
    expect(page.get_by_role("link", name="with nothing more")).to_have_count(0)


def test_a_wrong_key_is_said_to_be_one_and_the_right_one_gets_in_by_keyboard(browser: Browser, served: Served) -> None:
    context = browser.new_context(base_url=served.url)
    page = context.new_page()
    page.goto("/")
    page.keyboard.type("wrong")  # the field has the focus
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Overview")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert context.cookies() == []
    context.close()
