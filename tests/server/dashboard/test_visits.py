"""Who gets in, what the cookie is good for, and what forms are refused; by requests alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from fumehood.server.dashboard import cookies
from fumehood.server.vault import Vault
from tests.testing.served import KEY, Served

PAGES = ("/", "/playground", "/executions", "/tools", "/runtimes", "/secrets", "/keys", "/egress", "/audit")


@pytest.fixture
def nobody(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as nobody:
        yield nobody


@pytest.fixture
def visitor(nobody: httpx.Client) -> httpx.Client:
    return entered(nobody, KEY)


def entered(client: httpx.Client, key: str) -> httpx.Client:
    answer = client.post("/login", data={"key": key})
    assert answer.status_code == 303, answer.text
    return client


def token(client: httpx.Client, path: str = "/secrets") -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get(path).text)
    assert found is not None
    return found[1]


def made_key(api: httpx.Client, *scopes: str, **more: str) -> dict[str, Any]:
    answer = api.post("/v1/keys", json={"name": "for a test", "scopes": list(scopes), **more})
    assert answer.status_code == 200, answer.text
    values: dict[str, Any] = answer.json()
    return values


@pytest.fixture(scope="module")
def stranger(api: httpx.Client) -> str:
    """A key of another project."""
    project = api.post("/v1/projects", json={"name": "another"}).json()["id"]
    return str(made_key(api, "execute", "read", "manage", "keys", project_id=project)["key"])


@pytest.mark.parametrize("path", PAGES)
def test_a_page_sends_those_without_a_cookie_to_the_login(nobody: httpx.Client, path: str) -> None:
    answer = nobody.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login" if path == "/" else f"/login?next={path}")


def test_a_login_gives_a_cookie_that_no_script_reads_and_no_other_site_sends(
    nobody: httpx.Client, api: httpx.Client
) -> None:
    answer = nobody.post("/login", data={"key": KEY, "next": "/tools"})
    assert answer.headers["location"] == "/tools"
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"} <= set(cookie.split("; "))
    assert KEY not in cookie
    assert api.get("/v1/audit?limit=1").json()["entries"][0]["action"] == "dashboard.login"


def test_a_key_that_is_none_is_refused_and_written_down(nobody: httpx.Client, api: httpx.Client) -> None:
    answer = nobody.post("/login", data={"key": "no such key"})
    assert (answer.status_code, answer.cookies.get("fumehood")) == (401, None)
    assert "no such key" not in answer.text
    assert "dashboard.refused" in [each["action"] for each in api.get("/v1/audit?limit=5").json()["entries"]]


@pytest.mark.parametrize(
    "there", ["https://example.com/", "//example.com", "/\\example.com", "/\t/example.com", "javascript:1", "tools", ""]
)
def test_a_login_leads_to_no_other_site(nobody: httpx.Client, there: str) -> None:
    assert nobody.post("/login", data={"key": KEY, "next": there}).headers["location"] == "/"


@pytest.mark.parametrize("name", ["made up", "of another service", "a stored secret", "too old"])
def test_a_cookie_that_is_none_opens_nothing(served: Served, visitor: httpx.Client, name: str, tmp_path: Path) -> None:
    vault = Vault.open(Path(served._folder, "fumehood", "server"))
    visit = cookies.read(vault, visitor.cookies["fumehood"])
    assert visit is not None
    cookie = {
        "made up": "gAAAAAB",
        "of another service": cookies.begin(Vault([Fernet.generate_key().decode()]), visit.key_id),
        "a stored secret": vault.lock("a secret's text").decode(),
        "too old": vault.lock(f'fumehood dashboard {{"key_id": "{visit.key_id}", "until": 1, "csrf": ""}}').decode(),
    }[name]
    for sent, status in ((cookie, 303), (cookies.begin(vault, visit.key_id), 200)):
        assert httpx.get(f"{served.url}/tools", cookies={"fumehood": sent}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-fumehood-dashboard": "1"}, 200),
        ({"x-fumehood-dashboard": "1", "authorization": "Bearer no"}, 401),
    ],
    ids=["a cookie alone", "from our page", "a wrong key beside it"],
)
def test_the_api_takes_the_cookie_from_our_pages_alone(
    visitor: httpx.Client, headers: dict[str, str], status: int
) -> None:
    assert visitor.get("/v1/tools", headers=headers).status_code == status


def test_no_other_site_is_told_that_it_may_send_that_header(visitor: httpx.Client) -> None:
    asks = {
        "origin": "https://example.com",
        "access-control-request-method": "GET",
        "access-control-request-headers": "x-fumehood-dashboard",
    }
    answer = visitor.options("/v1/tools", headers=asks)
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "/secrets",
        "/keys",
        "/runtimes",
        "/logout",
        "/secrets/x/delete",
        "/keys/x/revoke",
        "/runtimes/x/delete",
        "/tools/x",
    ],
)
def test_a_form_without_its_visits_token_is_refused(visitor: httpx.Client, served: Served, path: str) -> None:
    with httpx.Client(base_url=served.url) as other:
        for csrf in ("", token(entered(other, KEY))):
            answer = visitor.post(path, data={"csrf": csrf, "name": "n", "value": "v", "scope-read": "1"})
            assert (answer.status_code, "another visit" in answer.text) == (403, True)
    assert visitor.get("/secrets").text.count("<tr>") == 0


@pytest.mark.parametrize("origin", ["https://example.com", "null", "http://127.0.0.1:1"])
def test_a_form_from_another_site_is_refused(visitor: httpx.Client, origin: str) -> None:
    data = {"csrf": token(visitor), "name": "n", "value": "v", "key": KEY}
    for path in ("/secrets", "/login"):
        assert visitor.post(path, data=data, headers={"origin": origin}).status_code == 403


def test_after_a_logout_the_browser_has_no_cookie(visitor: httpx.Client) -> None:
    assert visitor.post("/logout", data={"csrf": token(visitor)}).headers["location"] == "/login"
    assert visitor.cookies.get("fumehood") is None
    assert visitor.get("/tools").status_code == 303


def test_a_revoked_key_is_out_at_once(nobody: httpx.Client, api: httpx.Client) -> None:
    key = made_key(api, "read")
    entered(nobody, key["key"])
    assert nobody.get("/tools").status_code == 200
    api.delete(f"/v1/keys/{key['id']}")
    assert nobody.get("/tools").status_code == 303
    assert nobody.get("/v1/tools", headers={"x-fumehood-dashboard": "1"}).status_code == 401


@pytest.mark.parametrize(
    ("scopes", "opens", "first"),
    [(("execute",), {"/playground"}, "/playground"), (("keys",), {"/keys", "/audit"}, "/keys"),
     (("read",), {"/", "/executions", "/tools", "/runtimes", "/secrets", "/egress"}, None)],
    ids=["execute", "keys", "read"],
)  # fmt: skip
def test_a_key_opens_the_pages_of_its_scopes(
    nobody: httpx.Client, api: httpx.Client, scopes: tuple[str, ...], opens: set[str], first: str | None
) -> None:
    entered(nobody, made_key(api, *scopes)["key"])
    answers = {path: nobody.get(path) for path in PAGES}
    assert {path for path, answer in answers.items() if answer.status_code == 200} == opens
    assert {answers[path].status_code for path in PAGES if path not in opens and path != "/"} == {403}
    assert answers["/"].headers.get("location") == first
    assert set(re.findall(r'<a href="([^"#]*)"[^>]*>[A-Z]', answers[max(opens)].text)) & set(PAGES) == opens


def test_a_key_that_may_only_read_is_given_no_form_and_may_send_none(nobody: httpx.Client, api: httpx.Client) -> None:
    entered(nobody, made_key(api, "read")["key"])
    assert "Add a secret" not in nobody.get("/secrets").text
    answer = nobody.post("/secrets", data={"csrf": token(nobody, "/tools"), "name": "n", "value": "v"})
    assert (answer.status_code, "lacks the scope" in answer.text) == (403, True)


def test_nothing_of_another_project_is_shown_or_changed(nobody: httpx.Client, api: httpx.Client, stranger: str) -> None:
    execution = api.post("/v1/executions", json={"code": "print('ours-alone')"}).json()["id"]
    tool = api.post(
        "/v1/tools", json={"name": "ours-alone", "language": "python", "code": "def execute(input): return 1"}
    ).json()["id"]
    secret = api.post("/v1/secrets", json={"name": "ours-alone", "value": "v"}).json()["id"]
    body = {"language": "python", "name": "ours-alone", "manifest_file": {"name": "requirements.txt", "contents": ""}}
    runtime = api.post("/v1/runtimes", json=body).json()["id"]
    key = made_key(api, "read")["id"]
    entered(nobody, stranger)
    for path in PAGES:
        answer = nobody.get(path)
        assert (answer.status_code, "ours-alone" in answer.text, execution[-8:] in answer.text) == (200, False, False)
    for path in (f"/executions/{execution}", f"/tools/{tool}", f"/runtimes/{runtime}"):
        assert nobody.get(path).status_code == 404
    csrf = token(nobody)
    for path in (f"/tools/{tool}", f"/secrets/{secret}/delete", f"/runtimes/{runtime}/delete", f"/keys/{key}/revoke"):
        assert nobody.post(path, data={"csrf": csrf}).status_code == 404
    assert api.get("/v1/secrets").json()["secrets"][-1]["id"] == secret
    api.delete(f"/v1/secrets/{secret}")
    api.delete(f"/v1/runtimes/{runtime}")


@pytest.mark.parametrize("path", [*PAGES, "/login", "/tools/none"])
def test_every_page_tells_the_browser_to_load_nothing_from_elsewhere(visitor: httpx.Client, path: str) -> None:
    headers = visitor.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")


def test_what_a_guest_said_is_text(visitor: httpx.Client, api: httpx.Client) -> None:
    attack = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    code = f"import sys; print({attack!r}); print({attack!r}, file=sys.stderr)"
    execution = api.post("/v1/executions", json={"code": code}).json()
    tool = api.post(
        "/v1/tools", json={"name": attack, "language": "python", "code": attack, "description": attack}
    ).json()
    session = api.post("/v1/sessions", json={}).json()["id"]
    cell = api.post(
        f"/v1/sessions/{session}/cells",
        json={"code": f"class S:\n def _repr_html_(self): return {attack!r}\nS()"},
    ).json()
    api.delete(f"/v1/sessions/{session}")
    for path in (f"/executions/{execution['id']}", f"/executions/{cell['id']}", "/tools", f"/tools/{tool['id']}"):
        page = visitor.get(path).text
        assert "<script>" not in page
        assert "<img src=x" not in page
        assert "&lt;script&gt;alert(1)" in page
    api.delete(f"/v1/tools/{tool['id']}")


def test_half_a_character_does_not_break_a_page(visitor: httpx.Client, api: httpx.Client) -> None:
    session = api.post("/v1/sessions", json={}).json()["id"]
    cell = api.post(f"/v1/sessions/{session}/cells", json={"code": "print(chr(0xd800))"}).json()
    api.delete(f"/v1/sessions/{session}")
    assert visitor.get(f"/executions/{cell['id']}").status_code == 200


@pytest.mark.parametrize(
    "path", ["/static/../pages.py", "/static/%2e%2e%2fpages.py", "/static/frame.html", "/static/nothing"]
)
def test_only_what_pages_are_made_of_is_given(nobody: httpx.Client, path: str) -> None:
    assert nobody.get(path).status_code in (401, 404)


def test_a_form_that_is_too_large_or_none_is_refused(visitor: httpx.Client) -> None:
    typed = {"content-type": "application/x-www-form-urlencoded"}
    assert visitor.post("/secrets", content=b"a" * (3 << 20), headers=typed).status_code == 413
    assert visitor.post("/secrets", content=b"\xff=1", headers=typed).status_code == 400
    assert visitor.post("/secrets", content=b"a=1&" * 60, headers=typed).status_code == 400
