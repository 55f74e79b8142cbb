"""What hostile tenants and guests tried against the service, each as it was tried."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from fumehood.errors import InvalidRequest
from fumehood.server import schemas
from fumehood.server.flow import PIECE_BYTES, Bounded
from tests.testing.served import KEY, Served

MANY = "1" * 5000
DRAFT = "https://json-schema.org/draft/2020-12/schema"
BURN = "import subprocess\nburner = subprocess.Popen(['sh', '-c', 'while :; do :; done'])"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data"), "--sessions", "2") as served:
        yield served


@pytest.fixture
def admin(served: Served) -> Iterator[httpx.Client]:
    with _client(served, KEY) as client:
        yield client


def _client(served: Served, key: str) -> httpx.Client:
    return httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {key}"}, timeout=60)


@contextlib.contextmanager
def _tenant(served: Served, admin: httpx.Client, **quotas: int) -> Iterator[httpx.Client]:
    """Give a client of a new project; its sessions are gone afterwards."""
    made = admin.post("/v1/projects", json={"name": f"p{time.time_ns()}", "quotas": quotas}).json()
    scopes = ["execute", "read", "manage"]
    key = admin.post("/v1/keys", json={"name": "k", "project_id": made["id"], "scopes": scopes}).json()["key"]
    with _client(served, key) as client:
        client.headers["x-key"] = key
        yield client
        for each in client.get("/v1/sessions").json()["sessions"]:
            client.delete(f"/v1/sessions/{each['id']}")


# Quotas


def test_what_runs_between_the_cells_of_a_session_is_on_its_projects_account(
    served: Served, admin: httpx.Client
) -> None:
    with _tenant(served, admin, cpu_seconds_per_day=1) as client:
        session = client.post("/v1/sessions", json={}).json()["id"]
        assert client.post(f"/v1/sessions/{session}/cells", json={"code": BURN}).json()["ok"]
        end = time.monotonic() + 20
        while client.post("/v1/executions", json={"code": "1"}).status_code == 200 and time.monotonic() < end:
            time.sleep(0.2)
        assert client.get("/v1/usage").json()["cpu_seconds"] >= 1
        assert client.post(f"/v1/sessions/{session}/cells", json={"code": "1"}).status_code == 429
        assert client.post(f"/v1/sessions/{session}/restart").status_code == 429
        assert client.post("/v1/sessions", json={}).status_code == 429


def test_a_project_has_as_many_sessions_as_executions_at_one_time(served: Served, admin: httpx.Client) -> None:
    with _tenant(served, admin, concurrency=1) as client:
        session = client.post("/v1/sessions", json={}).json()["id"]
        assert client.post("/v1/sessions", json={}).status_code == 429
        assert client.post(f"/v1/sessions/{session}/fork", json={}).status_code == 429
        assert client.post(f"/v1/sessions/{session}/restart").status_code == 200


def test_dead_sessions_do_not_live_again_beside_as_many_as_may_live(served: Served, admin: httpx.Client) -> None:
    with _tenant(served, admin) as client:
        dead = client.post("/v1/sessions", json={}).json()["id"]
        client.post(f"/v1/sessions/{dead}/cells", json={"code": "import os; os._exit(0)"})
        for _ in range(2):
            assert client.post("/v1/sessions", json={}).status_code == 200
        assert client.post(f"/v1/sessions/{dead}/restart").status_code == 429


def test_names_and_descriptions_are_bounded_and_on_the_account(served: Served, admin: httpx.Client) -> None:
    tool = {"name": "n", "language": "python", "code": "c", "description": "d" * 1000}
    with _tenant(served, admin) as client:
        for more in ({"name": "n" * 5000}, {"description": "d" * 70_000}, {"input_schema": {"enum": ["e" * 300_000]}}):
            assert client.post("/v1/tools", json=tool | more).status_code == 400
        assert client.post("/v1/secrets", json={"name": "n" * 5000, "value": "v"}).status_code == 400
        manifest = {"name": "requirements.txt", "contents": ""}
        runtime = {"name": "n" * 5000, "language": "python", "manifest_file": manifest}
        assert client.post("/v1/runtimes", json=runtime).status_code == 400
        assert client.get("/v1/usage").json()["stored_bytes"] == 0
        made = client.post("/v1/tools", json=tool).json()["id"]
        assert client.get("/v1/usage").json()["stored_bytes"] > 1000
        client.delete(f"/v1/tools/{made}")
        assert client.get("/v1/usage").json()["stored_bytes"] == 0


def test_a_batch_ends_when_its_caller_goes_away(served: Served, admin: httpx.Client) -> None:
    with _tenant(served, admin) as client:
        body = json.dumps({"programs": [{"code": "import time; time.sleep(25)"}] * 100}).encode()
        _send(served, client.headers["x-key"], body, "/v1/batches").close()
        end = time.monotonic() + 15
        while (used := client.get("/v1/usage").json())["running"] and time.monotonic() < end:
            time.sleep(0.1)
        assert used["running"] == 0


def test_piston_and_sandboxfusion_end_programs_whose_caller_goes_away(served: Served, admin: httpx.Client) -> None:
    code = "import time; time.sleep(40)"
    piston = {"language": "python", "version": "*", "run_timeout": 60_000, "files": [{"content": code}]}
    fusion = {"language": "python", "run_timeout": 60, "code": code}
    with _tenant(served, admin) as client:
        for path, body in (("/api/v2/execute", piston), ("/run_code", fusion)):
            _send(served, client.headers["x-key"], json.dumps(body).encode(), path).close()
            end = time.monotonic() + 15
            while (used := client.get("/v1/usage").json())["running"] and time.monotonic() < end:
                time.sleep(0.1)
            assert used["running"] == 0, path


def _send(served: Served, key: str, body: bytes, path: str) -> socket.socket:
    """Send a request and give it a second to run."""
    connection = socket.create_connection(("127.0.0.1", served.port))
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    with httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {key}"}) as client:
        end = time.monotonic() + 10
        while not client.get("/v1/usage").json()["running"]:
            assert time.monotonic() < end, "it never ran"
            time.sleep(0.05)
    return connection


# What the server holds for others


def test_bodies_that_never_end_are_bounded_by_project(served: Served, admin: httpx.Client) -> None:
    with _tenant(served, admin) as client, contextlib.ExitStack() as opened:
        refused = 0
        for _ in range(7):
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            head = f"POST /v1/executions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {client.headers['x-key']}\r\n"
            try:
                connection.sendall(f"{head}content-type: application/json\r\ncontent-length: 60000000\r\n\r\n".encode())
                connection.sendall(b" " * 50_000_000)
            except ConnectionError:
                refused += 1
        assert refused >= 1
        assert admin.post("/v1/executions", json={"code": "print(1)"}).json()["stdout"] == "1\n"
    with _tenant(served, admin) as client:
        assert client.post("/v1/executions", json={"code": "1"}).status_code == 200


def test_an_answer_that_nobody_reads_is_given_up() -> None:
    sent: list[int] = []

    async def says_much(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * (3 * PIECE_BYTES + 1)})
        sent.append(-1)  # it came to its end

    async def reads_two(message: Any) -> None:
        if len(sent) == 2:
            await asyncio.Event().wait()
        if message["type"] == "http.response.body":
            sent.append(len(message["body"]))

    async def reads_all(message: Any) -> None:
        if message["type"] == "http.response.body":
            sent.append(len(message["body"]))

    async def receive() -> Any:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "headers": []}
    service: Any = None  # nobody's key is looked at for a GET
    asyncio.run(Bounded(says_much, service, read_seconds=0.05)(scope, receive, reads_two))
    assert sent == [PIECE_BYTES, PIECE_BYTES]
    sent.clear()
    asyncio.run(Bounded(says_much, service, read_seconds=0.05)(scope, receive, reads_all))
    assert sent == [PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 1, -1]


# What is written to be read wrongly


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v2/execute", '{"language": "python", "files": [{"content": "1"}], "version": "' + MANY + '"}'),
        ("/run_code", '{"language": "python", "code": "1", "memory_limit_MB": 1' + "0" * 4297 + "}"),
    ],
    ids=["a version", "a memory limit"],
)  # fmt: skip
def test_numbers_of_thousands_of_digits_are_the_callers_fault(admin: httpx.Client, path: str, body: str) -> None:
    answer = admin.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": "a{99999999999999999999}"}, "x"), ({"$schema": []}, 1), ({"$schema": 5}, 1), ({"$schema": {}}, 1),
        ({"$id": "http://[", "$ref": "x"}, 1), ({"multipleOf": 0.5}, 10**400), ({"pattern": "("}, "x"),
    ],
    ids=str,
)  # fmt: skip
def test_a_schema_that_is_none_is_its_makers_fault(schema: dict[str, Any], value: Any) -> None:
    with pytest.raises(InvalidRequest, match="input_schema is no JSON Schema"):
        schemas.check(schema, value)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"enum": [{"a": n} for n in range(3000)]}}, [{"a": -n} for n in range(1, 3000)]),
        ({"contains": {"enum": list(range(5000))}}, ["x"] * 20_000),
        ({"items": {"required": [str(n) for n in range(2000)]}}, [{}] * 2000),
        ({"allOf": [{}] * 200_000}, 1),
        ({"allOf": [{"$schema": DRAFT, "pattern": "^(a|a)*$"}]}, "a" * 28 + "b"),
    ],
    ids=["enum", "contains", "required", "a schema that is long itself", "a pattern below another $schema"],
)
def test_no_schema_takes_longer_than_two_seconds(schema: dict[str, Any], value: Any) -> None:
    began = time.monotonic()
    with pytest.raises(InvalidRequest):
        schemas.check(schema, value)
    assert time.monotonic() - began < 3 * schemas.SECONDS


def test_unique_items_are_told_apart_as_json_has_them_and_in_little_time() -> None:
    schemas.check({"uniqueItems": True}, [{"a": n} for n in range(20_000)])
    schemas.check({"uniqueItems": True}, [1, True, "1", [1], [True], {}, [], None, 0, False, ""])
    for same in ([1, 1.0], [[1, {"a": 2}], [1.0, {"a": 2.0}]], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]):
        with pytest.raises(InvalidRequest, match="non-unique"):
            schemas.check({"uniqueItems": True}, same)


def test_one_tool_with_a_schema_that_is_none_takes_no_other_from_mcps_clients(
    served: Served, admin: httpx.Client
) -> None:
    with _tenant(served, admin) as client:
        for name, schema in (("bad", {"pattern": "a{99999999999999999999}"}), ("worse", {"$schema": []}), ("good", {})):
            tool: dict[str, Any] = {
                "name": name,
                "language": "python",
                "code": "def execute(i): return 1",
                "input_schema": schema,
            }
            client.post("/v1/tools", json=tool)
        accept = {"accept": "application/json, text/event-stream"}
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        listed = client.post("/mcp", json=asked, headers=accept).text
    assert all(f'"{name}"' in listed for name in ("bad", "worse", "good")), listed[:300]


# One tenant among others


def test_a_flood_of_one_project_lets_another_run_next(tmp_path: Path) -> None:
    with (
        Served(tmp_path, "--at-once", "2") as served,
        _client(served, KEY) as admin,
        _tenant(served, admin) as flood,
        _tenant(served, admin) as other,
    ):
        over = threading.Event()

        def go_on() -> None:
            while not over.is_set():
                flood.post("/v1/executions", json={"code": "import time; time.sleep(0.5)"})

        threads = [threading.Thread(target=go_on) for _each in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        took = []
        for _each in range(5):
            began = time.monotonic()
            assert other.post("/v1/executions", json={"code": "print(1)"}).json()["stdout"] == "1\n"
            took.append(time.monotonic() - began)
        over.set()
        for thread in threads:
            thread.join()
    # It waits for one of the two places, which come free every quarter of a second; in turn it would be one of seven.
    assert statistics.median(took) < 0.9


def test_a_project_waits_with_no_more_than_the_server_runs_at_one_time(tmp_path: Path) -> None:
    with Served(tmp_path, "--at-once", "2") as served, ThreadPoolExecutor(8) as threads:
        ask = partial(httpx.post, f"{served.url}/v1/execute", headers={"authorization": f"Bearer {KEY}"}, timeout=60)
        sleeps = {"code": "import time; time.sleep(1)", "language": "python"}
        answers = list(threads.map(lambda _n: ask(json=sleeps), range(8)))
    refused = [each for each in answers if each.status_code == 429]
    assert (len(refused), len(answers) - len(refused)) == (4, 4)
    assert {each.headers["retry-after"] for each in refused} == {"1"}


def test_builds_of_one_project_that_wait_are_bounded(served: Served, admin: httpx.Client) -> None:
    body = {
        "name": "r",
        "language": "python",
        "manifest_file": {"name": "requirements.txt", "contents": "no-such-package==1"},
    }
    with _tenant(served, admin) as client:
        answers = [client.post("/v1/runtimes", json=body) for _each in range(30)]
        assert {each.status_code for each in answers} == {200, 429}
        assert answers[-1].headers["retry-after"] == "30"
        for each in client.get("/v1/runtimes").json()["runtimes"]:
            client.delete(f"/v1/runtimes/{each['id']}")


def test_checkpoints_count_as_sessions(served: Served, admin: httpx.Client) -> None:
    with _tenant(served, admin, concurrency=2) as client:
        session = client.post("/v1/sessions", json={}).json()["id"]
        kept = client.post(f"/v1/sessions/{session}/checkpoints")
        assert kept.status_code == 200
        assert client.post(f"/v1/sessions/{session}/checkpoints").status_code == 429
        assert client.post("/v1/sessions", json={}).status_code == 429
        # Going back takes nothing more.
        assert (
            client.post(f"/v1/sessions/{session}/restore", json={"checkpoint_id": kept.json()["id"]}).status_code == 200
        )


def test_a_key_revokes_none_that_may_do_more(served: Served, admin: httpx.Client) -> None:
    mine = admin.get("/v1/keys").json()["keys"][0]["id"]
    weak = admin.post("/v1/keys", json={"name": "k", "scopes": ["keys"]}).json()["key"]
    with _client(served, weak) as client:
        refused = client.delete(f"/v1/keys/{mine}")
    assert refused.status_code == 400
    assert "may do more" in refused.json()["message"]


def test_values_of_variables_that_are_named_like_secrets_are_not_kept(admin: httpx.Client) -> None:
    env = {"OPENAI_API_KEY": "correct-horse", "db_password": "battery-staple", "DEBUG": "true"}
    made = admin.post("/v1/execute", json={"language": "python", "code": "1", "env": env}).json()["id"]
    kept = admin.get(f"/v1/executions/{made}").json()["details"]["request"]["env"]
    assert kept == {"OPENAI_API_KEY": "***", "db_password": "***", "DEBUG": "true"}


@pytest.mark.parametrize("there", ["http://[", "//[", "/\\evil.example", "/%5b"])
def test_odd_addresses_on_the_way_in_are_no_failure(served: Served, there: str) -> None:
    assert httpx.get(f"{served.url}/login", params={"next": there}).status_code == 200
    answer = httpx.post(f"{served.url}/login", data={"key": "x", "next": there})
    assert answer.status_code == 401
    assert httpx.post(f"{served.url}/login", data={"key": "x"}, headers={"origin": "http://["}).status_code == 403


def test_logging_in_counts_as_a_request(served: Served, admin: httpx.Client) -> None:
    with _tenant(served, admin, requests_per_minute=30) as client:
        key = client.headers["x-key"]
        seen = [httpx.post(f"{served.url}/login", data={"key": key}).status_code for _each in range(40)]
        assert seen[-1] == 429
        # And leaves a request for what is done when this ends.
        time.sleep(2.2)
