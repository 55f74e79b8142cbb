"""The contract of Piston's API, version 2, as its documentation has it and its clients use it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.testing.served import KEY, Served

PRINT = {"content": "print(6*7)"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data"), "--alias", "python-3.9.4=python") as served:
        yield served


@pytest.fixture(scope="module")
def raw(served: Served) -> Iterator[httpx.Client]:
    # The hosted API took the key alone, without a scheme.
    with httpx.Client(base_url=f"{served.url}/api/v2", headers={"authorization": KEY}, timeout=60) as raw:
        yield raw


@pytest.fixture(scope="module")
def versions(raw: httpx.Client) -> dict[str, str]:
    return {each["language"]: each["version"] for each in raw.get("/runtimes").raise_for_status().json()}


def execute(raw: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = raw.post("/execute", json={"language": "python", "version": "*", **body})
    assert answer.status_code == 200, answer.text
    values: dict[str, Any] = answer.json()
    return values


def test_the_languages_are_listed_with_versions_and_aliases(raw: httpx.Client) -> None:
    listed = raw.get("/runtimes").json()
    python = next(each for each in listed if each["language"] == "python")
    assert python["version"].startswith("3.")
    assert "py" in python["aliases"]
    assert "runtime" not in python
    assert all(each["version"][0].isdigit() for each in listed)
    javascript = [each for each in listed if each["language"] == "javascript"]
    assert [each["runtime"] for each in javascript] == ["node"] * len(javascript)


def test_the_documentations_example_is_answered_as_it_says(raw: httpx.Client, versions: dict[str, str]) -> None:
    body = {
        "language": "js", "version": versions["javascript"],
        "files": [{"name": "my_cool_code.js", "content": "console.log(process.argv.join())"}], "stdin": "", "args": ["1", "2", "3"],
        "compile_timeout": 10000, "run_timeout": 3000, "compile_memory_limit": -1, "run_memory_limit": -1,
    }  # fmt: skip
    answer = execute(raw, **body)
    assert (answer["language"], answer["version"]) == ("javascript", versions["javascript"])
    assert answer["run"]["stdout"].endswith("/my_cool_code.js,1,2,3\n")
    assert (answer["run"]["code"], answer["run"]["signal"]) == (0, None)
    assert answer["run"]["output"] == answer["run"]["stdout"]


def test_files_come_in_three_encodings_and_the_first_text_is_the_program(raw: httpx.Client) -> None:
    code = "import sys; print(open('b', 'rb').read(), open('h').read(), open('t/u').read(), sys.stdin.read(), sys.argv[1:])"
    files = [
        {"name": "b", "content": base64.b64encode(b"\xff").decode(), "encoding": "base64"},
        {"content": code},
        {"name": "h", "content": "6869", "encoding": "hex"},
        {"name": "t/u", "content": "text", "encoding": "utf8"},
    ]
    assert execute(raw, files=files, stdin="in", args=["a"])["run"]["stdout"] == "b'\\xff' hi text in ['a']\n"


def test_output_is_both_streams_in_their_order(raw: httpx.Client) -> None:
    code = "import os, time\nfor s, t in ((1, 'a'), (2, 'b'), (1, 'c')): os.write(s, t.encode()); time.sleep(0.1)"
    run = execute(raw, files=[{"content": code}])["run"]
    assert (run["output"], run["stdout"], run["stderr"]) == ("abc", "ac", "b")


@pytest.mark.parametrize(
    ("code", "more", "wanted"),
    [
        ("import sys; sys.exit(3)", {}, {"code": 3, "signal": None, "status": "RE"}),
        ("import os; os.kill(os.getpid(), 15)", {}, {"code": None, "signal": "SIGTERM", "status": "SG"}),
        ("while True: pass", {"run_timeout": 500}, {"code": None, "signal": "SIGKILL", "status": "TO"}),
        ("while True: pass", {"run_cpu_time": 500}, {"code": None, "status": "TO"}),
    ],
    ids=["exit", "signal", "timeout", "processor"],
)
def test_how_a_program_ended_is_told(
    raw: httpx.Client, code: str, more: dict[str, Any], wanted: dict[str, Any]
) -> None:
    run = execute(raw, files=[{"content": code}], **more)["run"]
    assert run | wanted == run


def test_memory_is_bounded_where_it_is_asked_for(raw: httpx.Client) -> None:
    code = "a = []\nfor _ in range(256): a.append(b'x' * (1 << 20))\nprint('had it')"
    assert "had it" in execute(raw, files=[{"content": code}])["run"]["stdout"]
    assert "had it" not in execute(raw, files=[{"content": code}], run_memory_limit=64 << 20)["run"]["stdout"]


def test_a_version_is_chosen_as_semver_has_it(raw: httpx.Client, versions: dict[str, str]) -> None:
    exact = versions["python"]
    major, minor, _patch = exact.split(".")
    for selector in ("*", "x", major, f"{major}.x", f"{major}.{minor}", f"{major}.{minor}.x", exact, f"^{major}.0.0",
                     f"~{major}.{minor}.0", ">=3.6"):  # fmt: skip
        assert execute(raw, version=selector, files=[PRINT])["version"] == exact, selector
    for selector in (
        "2",
        "2.x",
        f"{major}.{int(minor) + 1}",
        f"^{int(major) + 1}",
        f"~{major}.{int(minor) - 1}.0",
        "new",
    ):
        answer = raw.post("/execute", json={"language": "py", "version": selector, "files": [PRINT]})
        assert (answer.status_code, answer.json()) == (400, {"message": f"py-{selector} runtime is unknown"})


def test_an_operator_lets_a_version_that_programs_carry_stand_for_what_is_there(raw: httpx.Client) -> None:
    assert execute(raw, version="3.9.4", files=[PRINT])["run"]["stdout"] == "42\n"


@pytest.mark.parametrize(
    "body",
    [
        {"stdin": None, "args": None, "run_timeout": None, "run_memory_limit": None, "compile_timeout": None},
        {"run_timeout": 0, "run_cpu_time": 0, "run_memory_limit": 0},
        {"unknown": 1, "files": [{"content": "print(6*7)", "name": None, "encoding": None, "more": 1}]},
        {"files": [{"content": "print(6*7)", "encoding": "latin1"}]},
        {"run_memory_limit": 1},
    ],
    ids=str,
)
def test_what_its_clients_send_besides_is_taken(raw: httpx.Client, body: dict[str, Any]) -> None:
    run = execute(raw, **{"files": [PRINT], **body})["run"]
    assert run["stdout"] == "42\n" or "run_memory_limit" in body


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"{}", {"language": None}, {"language": ""}, {"version": None}, {"version": 3}, {"files": None},
        {"files": {}}, {"files": []}, {"files": ["x"]}, {"files": [{"name": "x"}]}, {"files": [{"content": 1}]},
        {"files": [{"content": "aGk=", "encoding": "base64"}]}, {"files": [PRINT, {"name": "x", "content": "?", "encoding": "base64"}]},
        {"files": [PRINT, {"name": "x", "content": "zz", "encoding": "hex"}]}, {"files": [{"name": "../x", "content": ""}]},
        {"language": "cobol"}, {"args": [1]}, {"args": "x"}, {"stdin": 1}, {"run_timeout": "soon"}, {"run_timeout": -5},
        {"run_timeout": 999_999_999}, {"run_memory_limit": "much"}, {"run_memory_limit": 1 << 50},
    ],
    ids=str,
)  # fmt: skip
def test_a_request_that_cannot_be_is_400_with_a_message(raw: httpx.Client, body: bytes | dict[str, Any]) -> None:
    if isinstance(body, bytes):
        answer = raw.post("/execute", content=body, headers={"content-type": "application/json"})
    else:
        whole = {"language": "python", "version": "*", "files": [PRINT], **body}
        answer = raw.post("/execute", content=json.dumps(whole), headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["message"]
    assert answer.json()["message"]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401), ("wrong", 401), ("Bearer wrong", 401), ("Basic ?", 401), (KEY, 200), (f"Bearer {KEY}", 200),
        (f"Basic {base64.b64encode(f'x:{KEY}'.encode()).decode()}", 200),
    ],
    ids=str,
)  # fmt: skip
def test_a_key_comes_with_a_scheme_or_without(served: Served, header: str | None, status: int) -> None:
    headers = {} if header is None else {"authorization": header}
    answer = httpx.get(f"{served.url}/api/v2/runtimes", headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert answer.json() == {"message": "unauthenticated"}


def test_a_key_needs_the_scope_and_what_ran_is_kept_under_its_door(served: Served, raw: httpx.Client) -> None:
    admin = {"authorization": f"Bearer {KEY}"}
    made = httpx.post(f"{served.url}/v1/keys", headers=admin, json={"name": "r", "scopes": ["read"]}).json()["key"]
    answer = raw.post("/execute", json={}, headers={"authorization": made})
    assert answer.status_code in (400, 403)
    assert raw.get("/runtimes", headers={"authorization": made}).status_code == 403
    execute(raw, files=[{"content": "print('kept')"}])
    kept = httpx.get(f"{served.url}/v1/executions", headers=admin, params={"all": True, "limit": 1}).json()["data"][0]
    assert (kept["door"], kept["language"], kept["exit_code"]) == ("piston", "python", 0)
