"""MCP by its official client, unmodified: over streamable HTTP against `fumehood serve`, and over stdio against `fumehood mcp`."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from mcp import Client

from tests.testing.mcp_clients import (
    Connect,
    begun,
    failed,
    over_http,
    over_stdio,
    pictures,
    said,
    text,
    use,
    wait_until,
)
from tests.testing.served import KEY, Served

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SHOW = f"""import base64
class Picture:
    def _repr_png_(self): return base64.b64decode('{PICTURE}')
display(Picture())"""
DRAW = f"import base64; open('p.png', 'wb').write(base64.b64decode('{PICTURE}')); open('t.txt', 'w').write('hello')"
TOOLS = {
    "run_code", "start_session", "run_cell", "list_sessions", "list_files", "read_file", "write_file", "fork_session",
    "end_session", "list_languages",
}  # fmt: skip
HELLO = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
TAKES = {"accept": "application/json, text/event-stream", "authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data")) as served:
        yield served


@pytest.fixture(scope="module")
def raw(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60) as raw:
        yield raw


@pytest.fixture(params=["http", "stdio", "passed on"])
def connect(request: pytest.FixtureRequest, served: Served) -> Connect:
    ways: dict[str, Connect] = {
        "http": lambda: over_http(served),
        "stdio": over_stdio,
        "passed on": lambda: over_stdio("--server", served.url, FUMEHOOD_API_KEY=KEY),
    }
    return ways[request.param]


# Both ways


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_both_generations_of_the_protocol_list_and_call(served: Served, mode: str) -> None:
    async def work(client: Client) -> None:
        assert client.server_info is not None
        assert client.server_info.name == "fumehood"
        assert "sandbox" in (client.instructions or "")
        assert {each.name for each in (await client.list_tools()).tools} >= TOOLS
        assert await said(client, "run_code", code="print(6*7)") == "42"

    use(lambda: over_http(served, mode=mode), work)
    use(lambda: over_stdio(mode=mode), work)


def test_a_program_gets_its_input_and_files_and_gives_its_files_back(connect: Connect) -> None:
    async def work(client: Client) -> None:
        code = "import sys; print(sys.stdin.read() + open('d/f').read(), file=sys.stderr); sys.exit(3)"
        told = await said(client, "run_code", code=code, stdin="in", files={"d/f": "side"})
        assert told == "[stderr]\ninside\n[exit code 3]"
        assert await said(client, "run_code", code="console.log(6*7)", language="javascript") == "42"
        result = await client.call_tool("run_code", {"code": DRAW})
        assert "[file p.png" in text(result)
        assert "[file t.txt]\nhello" in text(result)
        assert [(each.mime_type, each.data) for each in pictures(result)] == [("image/png", PICTURE)]

    use(connect, work)


def test_a_session_keeps_its_state_and_shows_pictures(connect: Connect) -> None:
    async def work(client: Client) -> None:
        session = await begun(client, files={"in.txt": "20"})
        await said(client, "run_cell", session_id=session, code="n = int(open('in.txt').read())")
        assert await said(client, "run_cell", session_id=session, code="print('two'); n * 2 + 2") == "two\n42"
        shown = await client.call_tool("run_cell", {"session_id": session, "code": SHOW})
        assert [(each.mime_type, each.data) for each in pictures(shown)] == [("image/png", PICTURE)]
        told = await said(client, "run_cell", session_id=session, code="1/0")
        assert "ZeroDivisionError" in told
        assert "\x1b" not in told
        assert f"{session}: python, idle" in await said(client, "list_sessions")
        await said(client, "end_session", session_id=session)
        assert session in await failed(client, "run_cell", session_id=session, code="1")

    use(connect, work)


def test_a_plot_is_a_picture(served: Served) -> None:
    async def work(client: Client) -> None:
        session = await begun(client, language="python-data")
        code = "import matplotlib.pyplot as plt\nplt.plot([1, 4, 9])\nplt.show()"
        result = await client.call_tool("run_cell", {"session_id": session, "code": code, "timeout_seconds": 100})
        assert [each.mime_type for each in pictures(result)] == ["image/png"]
        assert len(pictures(result)[0].data) > 5000

    use(over_stdio, work)


def test_a_sessions_files_are_listed_read_and_written(connect: Connect) -> None:
    async def work(client: Client) -> None:
        session = await begun(client)
        await said(client, "write_file", session_id=session, path="a/t.txt", content="grün")
        await said(client, "write_file", session_id=session, path="p.png", content=PICTURE, encoding="base64")
        await said(client, "write_file", session_id=session, path="b", content="/w==", encoding="base64")
        listed = await said(client, "list_files", session_id=session)
        assert {"a/t.txt (5 bytes)", "b (1 bytes)"} <= set(listed.splitlines())
        assert await said(client, "read_file", session_id=session, path="a/t.txt") == "grün"
        assert (await said(client, "read_file", session_id=session, path="b")).endswith("base64:]\n/w==")
        shown = await client.call_tool("read_file", {"session_id": session, "path": "p.png"})
        assert [each.data for each in pictures(shown)] == [PICTURE]
        await said(client, "run_cell", session_id=session, code="open('long', 'w').write('ü' * 9000)")
        told = await said(client, "read_file", session_id=session, path="long", offset=2, bytes=13)
        assert told == "üüüüüü\n[bytes 2 to 14 of 18000]"
        assert "'../x'" in await failed(client, "write_file", session_id=session, path="../x", content="")
        assert "no base64" in await failed(
            client, "write_file", session_id=session, path="x", content="?", encoding="base64"
        )

    use(connect, work)


def test_a_session_is_forked(connect: Connect) -> None:
    async def work(client: Client) -> None:
        session = await begun(client)
        await said(client, "run_cell", session_id=session, code="n = 1")
        result = await client.call_tool("fork_session", {"session_id": session, "count": 2})
        if result.is_error:
            pytest.skip(text(result))  # this host's kernel cannot
        copies = text(result).splitlines()[0].partition(": ")[2].split(", ")
        assert len({*copies, session}) == 3
        await said(client, "run_cell", session_id=copies[0], code="n = 2")
        assert await said(client, "run_cell", session_id=copies[1], code="n") == "1"

    use(connect, work)


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("run_code", {}, "'code' is a required property"),
        ("run_code", {"code": 1}, "code: 1 is not of type 'string'"),
        ("run_code", {"code": "1", "lang": "python"}, "'lang' was unexpected"),
        ("run_code", {"code": "1", "language": "cobol"}, "'cobol'"),
        ("run_code", {"code": "1", "files": {"../x": ""}}, "'../x'"),
        ("run_code", {"code": "1", "timeout_seconds": -1}, "timeout_seconds"),
        ("run_cell", {"session_id": "nobody", "code": "1"}, "no session 'nobody'"),
        ("zork", {}, "no tool 'zork'"),
    ],
)
def test_what_a_call_does_wrong_is_told_in_its_result(
    served: Served, tool: str, arguments: dict[str, Any], says: str
) -> None:
    async def work(client: Client) -> None:
        assert says in await failed(client, tool, **arguments)

    use(lambda: over_http(served), work)


def test_a_flood_is_cut_and_says_so(connect: Connect) -> None:
    async def work(client: Client) -> None:
        told = await said(client, "run_code", code="print('a' * 1_000_000); print('end')")
        assert "characters left out" in told
        assert told.endswith("end")
        assert len(told) < 25_000
        session = await begun(client)
        cell = f"{SHOW}\nfor _ in range(20): display(Picture()); print('x' * 50_000)"
        result = await client.call_tool("run_cell", {"session_id": session, "code": cell})
        assert len(pictures(result)) == 8
        assert len(text(result)) < 200_000

    use(connect, work)


def test_hostile_output_breaks_no_conversation(connect: Connect) -> None:
    async def work(client: Client) -> None:
        session = await begun(client)
        cell = "class Fake:\n    def _repr_png_(self): return b'AAAA'\ndisplay(Fake())\nprint('\\ud800')"
        result = await client.call_tool("run_cell", {"session_id": session, "code": cell})
        assert pictures(result) == []
        assert "a picture that is none was left out" in text(result)
        code = "import os; open(b'\\xff\\n', 'w').write('x'); os.write(1, b'\\xff\\x1b[31mred')"
        assert "red" in await said(client, "run_code", code=code)

    use(connect, work)


def test_a_program_that_runs_out_of_time_says_so(connect: Connect) -> None:
    async def work(client: Client) -> None:
        assert "timeout" in await said(client, "run_code", code="while True: pass", timeout_seconds=0.5)
        session = await begun(client)
        told = await said(client, "run_cell", session_id=session, code="n = 1\nwhile True: pass", timeout_seconds=0.5)
        assert "interrupted" in told
        assert await said(client, "run_cell", session_id=session, code="n") == "1"

    use(connect, work)


FOREVER = "import time\nwhile True: time.sleep(0.1)"


@pytest.mark.parametrize("way", ["http", "stdio", "stdio, first generation", "passed on"])
def test_a_call_that_is_given_up_is_ended(served: Served, way: str) -> None:
    async def work(client: Client) -> None:
        session = await begun(client)
        began = time.monotonic()
        for tool, more in (("run_code", {"timeout_seconds": 60}), ("run_cell", {"session_id": session})):
            with anyio.move_on_after(1):
                await client.call_tool(tool, {"code": FOREVER, **more})
        # Its session is free again, long before its time is used up.
        while f"{session}: python, idle" not in await said(client, "list_sessions"):
            await anyio.sleep(0.1)
        assert time.monotonic() - began < 15

    ways: dict[str, Connect] = {
        "http": lambda: over_http(served),
        "stdio": over_stdio,
        "stdio, first generation": lambda: over_stdio(mode="legacy"),
        "passed on": lambda: over_stdio("--server", served.url, FUMEHOOD_API_KEY=KEY),
    }
    use(ways[way], work)


def test_a_client_of_the_first_generation_that_goes_away_ends_its_program(served: Served, raw: httpx.Client) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "run_code", "arguments": {"code": FOREVER, "timeout_seconds": 60}}}  # fmt: skip
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{served.url}/mcp", json=call, headers=TAKES, timeout=1)

    def is_over() -> bool:
        newest = raw.get("/v1/executions", params={"all": True, "limit": 1}).json()["data"]
        return [each["reason"] for each in newest if each["duration"] > 900] == ["signalled"]

    wait_until(is_over)


# The service's own


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def saved(raw: httpx.Client, name: str, **more: Any) -> str:
    body = {"code": "def execute(input): return input['n'] * 2", "language": "python", "name": name,
            "input_schema": SCHEMA, **more}  # fmt: skip
    return str(raw.post("/v1/tools", json=body).raise_for_status().json()["id"])


def test_saved_tools_are_tools_of_their_own(raw: httpx.Client, served: Served) -> None:
    ids = [
        saved(raw, "double it!", description="Doubles n."),
        saved(raw, "double it!"),
        saved(raw, "run_code"),
        saved(raw, "länge", input_schema={"type": "string"}, code="def execute(input): return len(input)"),
        saved(raw, "odd", input_schema={"type": 5}),
        saved(raw, "fails", input_schema={}, code="def execute(input): print('so far'); 1/0"),
    ]

    async def work(client: Client) -> None:
        listed = {each.name: each for each in (await client.list_tools()).tools}
        assert listed["double_it"].description == "Doubles n."
        assert listed["double_it"].input_schema == SCHEMA
        assert {f"double_it_{ids[1][-6:].lower()}", f"run_code_{ids[2][-6:].lower()}", "l_nge"} <= listed.keys()
        assert json.loads(await said(client, "double_it", n=21)) == 42
        assert "'n' is a required property" in await failed(client, "double_it")
        assert await said(client, "l_nge", input="four") == "4"
        assert "give the argument input" in await failed(client, "l_nge")
        assert listed["odd"].input_schema == {"type": "object"}
        assert "JSON Schema" in await failed(client, "odd", n=1)
        told = await failed(client, "fails")
        assert "so far" in told
        assert "ZeroDivisionError" in told

    try:
        use(lambda: over_http(served), work)
        use(lambda: over_stdio("--server", served.url, FUMEHOOD_API_KEY=KEY), work)
    finally:
        for each in ids:
            raw.delete(f"/v1/tools/{each}")
    doors = {each["door"] for each in raw.get("/v1/executions", params={"all": True, "limit": 5}).json()["data"]}
    assert doors == {"mcp"}


def key_of(raw: httpx.Client, **body: Any) -> str:
    return str(raw.post("/v1/keys", json={"name": "test", **body}).raise_for_status().json()["key"])


def test_another_projects_sessions_and_tools_are_not_there(raw: httpx.Client, served: Served) -> None:
    project = raw.post("/v1/projects", json={"name": "other"}).raise_for_status().json()["id"]
    other = key_of(raw, project_id=project)
    tool = saved(raw, "secret")
    session = raw.post("/v1/sessions", json={}).raise_for_status().json()["id"]

    async def mine(client: Client) -> None:
        assert await said(client, "run_cell", session_id=session, code="n = 1; n") == "1"

    async def theirs(client: Client) -> None:
        assert {each.name for each in (await client.list_tools()).tools} == TOOLS
        for name, more in (("run_cell", {"code": "n"}), ("list_files", {}), ("end_session", {}), ("fork_session", {})):
            assert f"no session '{session}'" in await failed(client, name, session_id=session, **more)
        assert "no sessions" in await said(client, "list_sessions")
        assert "no tool 'secret'" in await failed(client, "secret", n=1)

    use(lambda: over_http(served), mine)
    use(lambda: over_http(served, other), theirs)
    use(lambda: over_http(served), mine)
    raw.delete(f"/v1/tools/{tool}")


def test_a_key_shows_the_tools_of_its_scopes_alone(raw: httpx.Client, served: Served) -> None:
    tool = saved(raw, "hidden")
    key = key_of(raw, scopes=["execute"])

    async def work(client: Client) -> None:
        names = {each.name for each in (await client.list_tools()).tools}
        assert "run_code" in names
        assert not {"hidden", "read_file", "list_sessions"} & names
        assert "lacks the scope 'read'" in await failed(client, "list_sessions")

    use(lambda: over_http(served, key), work)
    raw.delete(f"/v1/tools/{tool}")
    reading = key_of(raw, scopes=["read"])
    answer = httpx.post(f"{served.url}/mcp", headers={"authorization": f"Bearer {reading}"}, json={})
    assert (answer.status_code, answer.json()["code"]) == (403, 7)


@pytest.mark.parametrize("header", [None, "Bearer wrong", f"Basic {base64.b64encode(KEY.encode()).decode()}"])
def test_who_has_no_key_is_401(served: Served, header: str | None) -> None:
    headers = {"authorization": header} if header else {}
    answer = httpx.post(f"{served.url}/mcp", json=HELLO, headers={"accept": TAKES["accept"], **headers})
    assert (answer.status_code, answer.json()) == (401, {"code": 16, "message": "unauthenticated"})
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "fumehood.example"}, 200),  # a program, through a proxy
        ({"origin": "http://localhost:6274"}, 200),
        ({"origin": "http://evil.test"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[evil"}, 403),
        ({"origin": "http://localhost.evil.test"}, 403),
        ({"origin": "http://evil.test", "host": "evil.test"}, 403),
        ({"origin": "http://localhost", "host": "evil.test"}, 403),
        ({"sec-fetch-site": "same-origin", "host": "evil.test"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
    ids=str,
)
def test_a_page_of_elsewhere_cannot_get_in_by_rebinding_a_name(
    served: Served, headers: dict[str, str], status: int
) -> None:
    answer = httpx.post(f"{served.url}/mcp", json=HELLO, headers={**TAKES, **headers})
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_there_is_nothing_to_listen_for_or_to_give_up(served: Served, method: str) -> None:
    answer = httpx.request(method, f"{served.url}/mcp", headers=TAKES)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_a_client_goes_on_after_the_server_began_anew(tmp_path: Path) -> None:
    async def run() -> None:
        with Served(tmp_path) as first:
            async with over_http(first) as client:
                assert await said(client, "run_code", code="print(1)") == "1"
                first.__exit__()
                with Served(tmp_path, "--port", str(first.port)):
                    assert await said(client, "run_code", code="print(2)") == "2"

    anyio.run(run)


def test_mcp_is_loaded_when_it_is_asked_for_and_the_server_ends_at_once_all_the_same(tmp_path: Path) -> None:
    program = "import sys, fumehood.server.app; print('mcp' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown == "False\n"
    for asks in (False, True):
        with Served(tmp_path) as served:
            if asks:
                answer = httpx.post(f"{served.url}/mcp", json=HELLO, headers=TAKES, timeout=20)
                assert answer.status_code == 200
            httpx.get(f"{served.url}/healthz").raise_for_status()
            served.process.send_signal(signal.SIGINT)
            served.process.wait(timeout=5)
