"""What callers, disks, databases and machines do at their worst: typed answers, and nothing that was answered for is lost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.testing.postgres import MISSING, Postgres
from tests.testing.served import KEY, Served

HEADERS = {"authorization": f"Bearer {KEY}"}
SCRIPT = {"code": "print(1)", "language": "python"}
SLEEPS = {"code": "import time; time.sleep(60)", "language": "python"}
TOOL = {"code": "def execute(i): return i", "language": "python", "name": "t"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data")) as served:
        yield served


def client(served: Served, timeout: float = 60) -> httpx.Client:
    return httpx.Client(base_url=served.url, headers=HEADERS, timeout=timeout)


def post(served: Served, path: str, **values: Any) -> httpx.Response:
    return httpx.post(served.url + path, timeout=60, **{**values, "headers": {**HEADERS, **values.get("headers", {})}})


def assert_is_status(answer: httpx.Response, status: int, code: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["code"] == code
    assert answer.json()["message"]


# What is sent


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"code": "1", "language": "python"', b"{}", b"1" * 5000,
     '{"code": "1"'.encode("utf-16"), b'{"code": "\\ud800", "language": "python"}',
     b"[" * 100_000, b'{"code":' * 10_000],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/execute", "/v1/tools", "/v1/executions", "/v1/sessions/none/cells"])
def test_a_body_that_is_none_is_a_400(served: Served, path: str, body: bytes) -> None:
    answer = post(served, path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 404)
    assert answer.json()["code"] in (3, 5)


@pytest.mark.parametrize("path", ["/v1/execute", "/v1/execute-function", "/v1/tools", "/v1/executions", "/v1/secrets"])
@pytest.mark.parametrize("value", [None, 5, [], {}, True, "x" * 10, 1e308, -1, "\0"])
def test_every_field_refuses_what_it_cannot_be_and_fails_at_none(served: Served, path: str, value: Any) -> None:
    whole: dict[str, Any] = {**TOOL, "name": "n", "value": "v", "input": 1, "env": {}, "files": [], "http": {}, "limits": {},
                             "stdin": "", "args": [], "runtime_revision_id": None, "input_schema": {}, "description": ""}  # fmt: skip
    if path == "/v1/executions":
        whole = {"code": "1", "language": "python", "name": "n", "env": {}, "files": {}, "limits": {}, "network": {}, "stdin": "",
                 "args": [], "explain": False}  # fmt: skip
    with client(served) as api:
        for name in whole:
            answer = api.post(path, json={**whole, name: value})
            assert answer.status_code in (200, 400), (name, value, answer.text)


def test_what_is_nested_very_deeply_is_answered(served: Served) -> None:
    for depth in (50, 150, 400, 900):
        deep = "[" * depth + "]" * depth
        function = '{"code": "def execute(i): return i", "language": "python", "input": ' + deep + "}"
        answer = post(served, "/v1/execute-function", content=function, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 400), answer.text[:300]
        # And as what a guest gives back.
        code = f"def execute(i):\n x = []\n for _ in range({depth}): x = [x]\n return x"
        answer = post(served, "/v1/execute-function", json={"code": code, "language": "python"})
        assert answer.status_code == 200, answer.text[:300]


@pytest.mark.parametrize(
    "value", ["float('nan')", "[float('inf')]", "'\\ud800'", "{'a': '\\udfff'}", "10**400", "1e400"]
)
def test_a_functions_value_that_json_has_not_is_answered(served: Served, value: str) -> None:
    answer = post(
        served, "/v1/execute-function", json={"code": f"def execute(i): return {value}", "language": "python"}
    )
    assert answer.status_code == 200, answer.text
    listed = httpx.get(f"{served.url}/v1/executions/{answer.json()['execution']['id']}", headers=HEADERS)
    assert listed.status_code == 200


def test_a_body_that_is_too_long_is_a_413_before_it_is_all_there(served: Served) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield b'{"language": "python", "code": "'
        for _each in range(200):
            sent += 1
            yield b"x" * (1 << 20)

    with contextlib.suppress(httpx.WriteError, httpx.RemoteProtocolError):
        answer = post(served, "/v1/execute", content=body(), headers={"content-type": "application/json"})
        assert_is_status(answer, 413, 8)
    assert sent < 200
    assert post(served, "/v1/execute", json=SCRIPT).status_code == 200


@pytest.mark.parametrize("key", [None, "Bearer nobody's", "nobody's", "Basic eDp5"])
def test_a_stranger_is_read_no_long_body(served: Served, key: str | None) -> None:
    headers = {"content-type": "application/json"} | ({"authorization": key} if key else {})
    for path in ("/v1/execute", "/v1/executions", "/api/v2/execute", "/run_code", "/login", "/nowhere"):
        with contextlib.suppress(httpx.WriteError, httpx.RemoteProtocolError):
            answer = httpx.post(served.url + path, content=b"[" * (1 << 20), headers=headers)
            assert answer.status_code in (401, 413), path
    short = httpx.post(f"{served.url}/v1/execute", json=SCRIPT, headers=headers)
    assert short.json() == {"code": 16, "message": "unauthenticated"}


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/execute", SLEEPS), ("/v1/executions", SLEEPS),
     ("/v1/execute-function", {"code": "import time\ndef execute(i): time.sleep(60)", "language": "python"})],
)  # fmt: skip
def test_a_program_whose_caller_goes_away_is_ended_and_kept(served: Served, path: str, body: Any) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(served.url + path, json=body, headers=HEADERS, timeout=1)
    with client(served) as api:
        deadline = time.monotonic() + 10
        while api.get("/v1/usage").json()["running"] and time.monotonic() < deadline:
            time.sleep(0.05)
        latest = api.get("/v1/executions", params={"all": "true", "limit": 1}).json()["data"][0]
    assert latest["exit_code"] > 0
    assert 500 < latest["duration"] < 15_000


def test_callers_that_vanish_or_are_slow_hold_nobody_up(served: Served) -> None:
    head = f"POST /v1/execute HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
    body = json.dumps({"code": "import time; time.sleep(0.5); print('x' * 1000000)", "language": "python"})
    slow = []
    for number in range(40):
        caller = socket.create_connection(("127.0.0.1", served.port))
        whole = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        # Some go in the middle of the head, some in that of the body, some while their program runs; some stay and say no more.
        caller.sendall(whole[: [60, len(head) + 40, len(whole)][number % 3]])
        if number % 2:
            caller.close()
        else:
            slow.append(caller)
    began = time.monotonic()
    assert post(served, "/v1/execute", json=SCRIPT).json()["stdout"] == "1\n"
    assert time.monotonic() - began < 10
    for caller in slow:
        caller.close()


@pytest.mark.parametrize(
    "request_line",
    [b"GET /v1/tools HTTP/9.9\r\n\r\n", b"nonsense\r\n\r\n", b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
     b"GET /v1/tools HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
     b"POST /v1/execute HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    ids=["version", "nonsense", "long path", "many headers", "two lengths"],
)  # fmt: skip
def test_what_is_no_http_ends_its_connection_alone(served: Served, request_line: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as caller, contextlib.suppress(OSError):
        caller.sendall(request_line)
        assert not caller.recv(65536).startswith(b"HTTP/1.1 2")
    assert httpx.get(served.url + "/healthz").status_code == 200


# What the machine does


def keep_on(served: Served, answered: list[tuple[str, str]], over: threading.Event) -> None:
    """Make things until the server is gone; note each that was answered for."""
    asks = [("/v1/tools", TOOL), ("/v1/secrets", {"name": "n", "value": "v"}), ("/v1/execute", SCRIPT),
            ("/v1/runtimes", {"name": "r", "language": "python", "manifest_file": {"name": "requirements.txt", "contents": "no-such-package-anywhere==1"}})]  # fmt: skip
    with client(served) as api, contextlib.suppress(httpx.TransportError):
        while not over.is_set():
            for path, body in asks:
                answer = api.post(path, json=body)
                if answer.status_code == 429 and path == "/v1/runtimes":
                    continue  # as many of them wait as may
                assert answer.status_code == 200, answer.text
                answered.append((path, answer.json()["id"]))


def ids_of(api: httpx.Client, path: str, name: str) -> set[str]:
    found: set[str] = set()
    after: dict[str, str] = {}
    while True:
        page = [each["id"] for each in api.get(path, params=after).json()[name]]
        if not page:
            return found
        found.update(page)
        after = {"starting_after": page[-1]}


def assert_nothing_is_lost(served: Served, answered: list[tuple[str, str]]) -> None:
    with client(served) as api:
        lists = {"/v1/tools": "tools", "/v1/secrets": "secrets", "/v1/runtimes": "runtimes"}
        there = {path: ids_of(api, path, name) for path, name in lists.items()}
        there["/v1/execute"] = ids_of(api, "/v1/executions", "data")
    for path, made in answered:
        assert made in there[path]


def run_until_killed(served: Served) -> list[tuple[str, str]]:
    answered: list[tuple[str, str]] = []
    over = threading.Event()
    threads = [threading.Thread(target=keep_on, args=(served, answered, over)) for _each in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    served.kill()
    for thread in threads:
        thread.join()
    return answered


def test_what_was_answered_for_is_there_after_kill_9(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        answered = run_until_killed(served)
    assert len({path for path, _id in answered}) == 4
    with Served(tmp_path) as served:
        assert_nothing_is_lost(served, answered)
        # The builds that it left are gone on with, and end.
        deadline = time.monotonic() + 60
        with client(served) as api:
            while time.monotonic() < deadline:
                if {each["status"] for each in api.get("/v1/runtimes").json()["runtimes"][:1]} == {"failed"}:
                    break
                time.sleep(0.2)
            first = api.get("/v1/runtimes").json()["runtimes"][0]
            log = api.get(f"/v1/runtimes/{first['id']}/revisions/{first['revision_id']}/log").text
        assert first["status"] == "failed"
        assert "no-such-package-anywhere" in log


def test_two_servers_on_one_database_share_all_and_lose_nothing(tmp_path: Path, database: tuple[str, ...]) -> None:
    # One machine's key file, as two machines would be given one by FUMEHOOD_SERVER_KEY.
    with Served(tmp_path, *database) as one, Served(tmp_path, *database) as two:
        tool = post(one, "/v1/tools", json=TOOL).json()["id"]
        assert post(two, f"/v1/tools/{tool}/execute", json={"input": 7}).json()["output"] == 7
        secret = post(two, "/v1/secrets", json={"name": "n", "value": "v"}).json()["id"]
        env = [{"name": "A", "secret_id": secret}]
        assert post(one, f"/v1/tools/{tool}/execute", json={"input": 8, "env": env}).json()["output"] == 8
        key = post(one, "/v1/keys", json={"name": "n"}).json()
        headers = {"authorization": f"Bearer {key['key']}"}
        assert httpx.get(two.url + "/v1/tools", headers=headers).status_code == 200
        httpx.delete(f"{one.url}/v1/keys/{key['id']}", headers=HEADERS)
        assert httpx.get(one.url + "/v1/tools", headers=headers).status_code == 401
        time.sleep(1.1)
        assert httpx.get(two.url + "/v1/tools", headers=headers).status_code == 401
        answered = run_until_killed(one)
        assert_nothing_is_lost(two, answered)


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_a_postgresql_that_goes_away_is_a_503_and_nothing_is_lost(tmp_path: Path) -> None:
    with Postgres() as database, Served(tmp_path, "--database", database.url("gone")) as served:
        kept = post(served, "/v1/execute", json=SCRIPT).json()["id"]
        session = post(served, "/v1/sessions", json={}).json()["id"]
        post(served, f"/v1/sessions/{session}/cells", json={"code": "x = 42"})
        database.stop()
        for path, body in [("/v1/tools", TOOL), ("/v1/secrets", {"name": "n", "value": "v"})]:
            assert_is_status(post(served, path, json=body), 503, 14)
        ran = post(served, "/v1/execute", json=SCRIPT)
        assert_is_status(ran, 503, 14)
        assert httpx.get(served.url + "/healthz").status_code == 200
        database.start()
        assert post(served, "/v1/tools", json=TOOL).status_code == 200
        assert (
            httpx.get(f"{served.url}/v1/executions/{kept}", headers=HEADERS).json()["details"]["response"]["stdout"]
            == "1\n"
        )
        # What lives in the server's memory lived on.
        assert post(served, f"/v1/sessions/{session}/cells", json={"code": "print(x)"}).json()["stdout"] == "42\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="a disk of its own can be mounted by root alone")
def test_a_full_disk_is_a_503_and_no_answer_is_lost(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    try:
        with Served(tmp_path / "data", "--database", f"sqlite:///{disk / 'server.db'}") as served:
            kept = post(served, "/v1/execute", json=SCRIPT).json()["id"]
            made, answer = [], post(served, "/v1/tools", json=TOOL)
            while answer.status_code == 200:
                made.append(answer.json()["id"])
                answer = post(served, "/v1/tools", json={**TOOL, "code": "#" * 200_000})
            assert_is_status(answer, 503, 14)
            ran = post(served, "/v1/execute", json={**SCRIPT, "stdin": "y" * 200_000})
            assert_is_status(ran, 503, 14)
            # Its clients would run it three times.
            assert ran.headers["x-should-retry"] == "false"
            with client(served) as api:
                assert ids_of(api, "/v1/tools", "tools") == set(made)
                assert api.get(f"/v1/executions/{kept}").status_code == 200
            subprocess.run(["mount", "-o", "remount,size=32m", disk], check=True)
            assert post(served, "/v1/tools", json=TOOL).status_code == 200
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
        shutil.rmtree(disk, ignore_errors=True)
