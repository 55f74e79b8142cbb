"""The contract of SandboxFusion's `/run_code`, as its clients use it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.testing.served import KEY, Served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data")) as served:
        yield served


@pytest.fixture(scope="module")
def raw(served: Served) -> Iterator[httpx.Client]:
    # Its own client sends no key, but what stands in its endpoint's URL.
    url = f"http://any:{KEY.replace(' ', '%20')}@127.0.0.1:{served.port}"
    with httpx.Client(base_url=url, timeout=60) as raw:
        yield raw


def run(raw: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = raw.post("/run_code", json={"language": "python", **body})
    assert answer.status_code == 200, answer.text
    values: dict[str, Any] = answer.json()
    return values


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_program_is_answered_as_the_documentation_says(raw: httpx.Client) -> None:
    answer = run(raw, code='print("hello")', compile_timeout=10, run_timeout=10, memory_limit_MB=-1, stdin="")
    seconds = answer["run_result"].pop("execution_time")
    assert 0 < seconds < 10
    assert answer == {
        "status": "Success", "message": "", "compile_result": None, "executor_pod_name": None, "files": {},
        "run_result": {"status": "Finished", "return_code": 0, "stdout": "hello\n", "stderr": ""},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("language", "code"),
    [("python", "print(6*7)"), ("nodejs", "console.log(6*7)"), ("typescript", "const n: number = 42; console.log(n)"),
     ("ruby", "puts 6*7"), ("php", "<?php echo 6*7, \"\\n\";"), ("bash", "echo $((6*7))")],
)  # fmt: skip
def test_each_language_that_is_here_runs(raw: httpx.Client, language: str, code: str) -> None:
    answer = run(raw, language=language, code=code)
    if answer["status"] == "SandboxError":
        # Its interpreter is not installed: an answer in this contract.
        assert "install" in answer["message"]
        assert answer["run_result"] is None
        pytest.skip(answer["message"])
    assert answer["run_result"]["stdout"] == "42\n"


@pytest.mark.parametrize(
    ("code", "more", "status", "wanted"),
    [
        ("import sys; print('x', file=sys.stderr); sys.exit(3)", {}, "Failed", {"status": "Finished", "return_code": 3, "stderr": "x\n"}),
        ("print(1, flush=True)\nwhile True: pass", {"run_timeout": 0.5}, "Failed", {"status": "TimeLimitExceeded", "return_code": None, "stdout": "1\n"}),
        ("import os; os.kill(os.getpid(), 9)", {}, "Failed", {"status": "Finished", "return_code": 137}),
    ],
    ids=["exit", "timeout", "signal"],
)  # fmt: skip
def test_a_program_that_fails_is_an_answer(
    raw: httpx.Client, code: str, more: dict[str, Any], status: str, wanted: dict[str, Any]
) -> None:
    answer = run(raw, code=code, **more)
    assert (answer["status"], answer["message"]) == (status, "")
    assert answer["run_result"] | wanted == answer["run_result"]


def test_files_go_in_and_those_that_are_asked_for_come_out(raw: httpx.Client) -> None:
    code = "d = open('in/a', 'rb').read(); open('out.bin', 'wb').write(d[::-1]); open('other', 'w').write('x'); print(input())"
    answer = run(
        raw, code=code, stdin="typed\n", files={"in/a": coded(b"\xff\x00a"), "./b": coded(b"b"), "left out": None},
        fetch_files=["out.bin", "./in/a", "/work/b", "missing", "../etc/passwd"],
    )  # fmt: skip
    assert answer["run_result"]["stdout"] == "typed\n"
    assert answer["files"] == {
        "out.bin": coded(b"a\x00\xff"), "./in/a": coded(b"\xff\x00a"), "/work/b": coded(b"b"),
    }  # fmt: skip


def test_memory_is_bounded_where_it_is_asked_for(raw: httpx.Client) -> None:
    code = "a = []\nfor _ in range(256): a.append(b'x' * (1 << 20))\nprint('had it')"
    assert run(raw, code=code)["status"] == "Success"
    assert run(raw, code=code, memory_limit_MB=64)["status"] == "Failed"


@pytest.mark.parametrize(
    "body", [{"stdin": None}, {"unknown": 1}, {"args": ["a"]}, {"compile_timeout": 1.5, "memory_limit_MB": 0}], ids=str
)
def test_what_its_clients_send_besides_is_taken(raw: httpx.Client, body: dict[str, Any]) -> None:
    assert run(raw, code="print(6*7)", **body)["run_result"]["stdout"] == "42\n"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"{}", {"code": None}, {"code": 1}, {"language": None}, {"language": "cpp"}, {"language": "Python"},
        {"run_timeout": "soon"}, {"run_timeout": -1}, {"run_timeout": 1e9}, {"memory_limit_MB": 1.5}, {"memory_limit_MB": 1 << 30},
        {"files": []}, {"files": {"a": 1}}, {"files": {"a": "?"}}, {"files": {"../a": ""}}, {"files": {"main.py": ""}},
        {"fetch_files": "a"}, {"fetch_files": None}, {"stdin": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_request_that_cannot_be_is_422_with_the_detail(raw: httpx.Client, body: bytes | dict[str, Any]) -> None:
    content = body if isinstance(body, bytes) else json.dumps({"code": "1", "language": "python", **body}).encode()
    answer = raw.post("/run_code", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert list(answer.json()) == ["detail"]
    assert answer.json()["detail"]


@pytest.mark.parametrize("header", [None, "Bearer wrong", f"Basic {coded(b'x:wrong')}"], ids=str)
def test_who_has_no_key_is_401(served: Served, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    answer = httpx.post(f"{served.url}/run_code", json={"code": "1", "language": "python"}, headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": "unauthenticated"})


def test_what_ran_is_kept_under_its_door(served: Served, raw: httpx.Client) -> None:
    run(raw, code="print('kept')")
    headers = {"authorization": f"Bearer {KEY}"}
    kept = httpx.get(f"{served.url}/v1/executions", headers=headers, params={"all": True, "limit": 1}).json()["data"][0]
    assert (kept["door"], kept["language"], kept["exit_code"]) == ("sandboxfusion", "python", 0)


def test_the_description_of_the_api_has_each_contracts_errors(served: Served) -> None:
    paths = httpx.get(f"{served.url}/openapi.json").json()["paths"]
    models = {
        paths[path][method]["responses"]["401"]["content"]["application/json"]["schema"]["$ref"]
        for path, method in (("/run_code", "post"), ("/api/v2/execute", "post"), ("/v1/execute", "post"))
    }
    assert len(models) == 3
