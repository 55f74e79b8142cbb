"""What the clients of Riza's API do beyond single calls: retries, pages, runtimes, prefixes; and requests as each of them words it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import rizaio
from rizaio import AsyncRiza, Riza

from tests.testing.indexes import make_wheel, npm_registry, python_index, serving
from tests.testing.prefix_proxy import below
from tests.testing.served import KEY, Served

KIB, MIB = 1 << 10, 1 << 20
NODE = pytest.mark.skipif(shutil.which("npm") is None or shutil.which("node") is None, reason="no node and npm here")
RUBY = pytest.mark.skipif(shutil.which("ruby") is None, reason="no ruby here")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, database: tuple[str, ...]) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data"), *database) as served:
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Riza]:
    """The official client as its users have it, retries included, but strict about answers."""
    with Riza(base_url=served.url, api_key=KEY, _strict_response_validation=True) as client:
        yield client


@pytest.fixture(scope="module")
def raw(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60) as raw:
        yield raw


def posted(raw: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = raw.post(path, json=body)
    assert answer.status_code == 200, answer.text
    values: dict[str, Any] = answer.json()
    return values


# Requests, word for word as other clients send them

OTHERS = {
    "node 0.11": (
        {
            "accept": "application/json", "content-type": "application/json", "user-agent": "Riza/JS 0.11.0",
            "x-stainless-lang": "js", "x-stainless-package-version": "0.11.0", "x-stainless-os": "Linux",
            "x-stainless-arch": "x64", "x-stainless-runtime": "node", "x-stainless-runtime-version": "v22.13.0",
            "x-stainless-retry-count": "0", "x-stainless-timeout": "60",
        },
        {"code": "print(6*7)", "language": "python"},
    ),
    "node 0.3": (
        {"accept": "application/json", "content-type": "application/json", "user-agent": "Riza/JS 0.3.0"},
        {"code": "print(6*7)", "language": "PYTHON", "allow_http_hosts": [], "env": {}, "stdin": ""},
    ),
    "go 0.12": (
        {
            "accept": "application/json", "content-type": "application/json", "user-agent": "Riza/Go 0.12.0",
            "x-stainless-lang": "go", "x-stainless-runtime": "go", "x-stainless-retry-count": "0", "accept-encoding": "gzip",
        },
        {"code": "print(6*7)", "language": "python", "limits": {"execution_timeout": 0, "memory_size": 0}, "http": {}},
    ),
    "php": (
        {"content-type": "application/json; charset=utf-8", "user-agent": "GuzzleHttp/7", "accept": "*/*"},
        {"code": "print(6*7)", "language": "Python", "args": [], "env": [], "files": [], "input": [], "http": [], "limits": []},
    ),
    "python 0.1": (
        {"accept": "application/json", "content-type": "application/json", "user-agent": "Riza/Python 0.1.0a1"},
        {"code": "print(6*7)"},
    ),
    "python 0.7": (
        {"accept": "application/json", "content-type": "application/json", "user-agent": "Riza/Python 0.7.0"},
        {
            "code": "print(6*7)", "language": "PYTHON", "http": {"allow": [{"auth": None, "host": "a.test"}]}, "limits": None,
            "runtime_revision_id": None, "files": None,
        },
    ),
    "curl": ({"content-type": "APPLICATION/JSON;charset=UTF-8"}, {"code": "print(6*7)", "language": "python"}),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "body"), OTHERS.values(), ids=OTHERS)
def test_the_requests_of_other_clients_run(raw: httpx.Client, headers: dict[str, str], body: dict[str, Any]) -> None:
    answer = raw.post("/v1/execute", content=json.dumps(body), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"id", "exit_code", "stdout", "stderr", "duration"}
    assert (answer.json()["stdout"], answer.json()["exit_code"]) == ("42\n", 0)


@pytest.mark.parametrize("language", ["PHP", "JavaScript", "RUBY", "TYPESCRIPT"])
def test_languages_of_any_case_run_and_are_answered_in_lower_case(raw: httpx.Client, language: str) -> None:
    code = {"PHP": "<?php echo 42;", "RUBY": "puts 42"}.get(language, "console.log(42)")
    answer = raw.post("/v1/execute", json={"code": code, "language": language})
    if answer.status_code == 503:
        pytest.skip(answer.json()["message"])  # its interpreter is not installed
    assert answer.json()["stdout"].strip() == "42"
    assert raw.get(f"/v1/executions/{answer.json()['id']}").json()["language"] == language.lower()


@pytest.mark.parametrize("language", ["javascript", "typescript"])
def test_the_documented_way_to_read_input_works_where_its_interpreter_is(raw: httpx.Client, language: str) -> None:
    body = {"code": "console.log(await new Response(process.stdin).text())", "language": language, "stdin": "in"}
    answer = raw.post("/v1/execute", json=body)
    if answer.status_code == 503:
        pytest.skip(answer.json()["message"])
    assert answer.json()["stdout"] == "in\n", answer.text


@NODE
@pytest.mark.parametrize(
    "code",
    ["function execute(i) { return i }", "async function execute(i) { return i }", "export function execute(i) { return i }",
     "const execute = (i) => i", "export const execute = async (i) => i", "export default function execute(i) { return i }"],
)  # fmt: skip
def test_a_function_of_any_form_is_called(raw: httpx.Client, code: str) -> None:
    answer = posted(raw, "/v1/execute-function", code=code, language="javascript", input={"a": [1, None]})
    assert (answer["output"], answer["output_status"]) == ({"a": [1, None]}, "valid"), answer


@pytest.mark.parametrize(
    "auth",
    [None, [], {}, {"bearer": None}, {"bearer": []}, {"bearer": {}}, {"query": {"key": "key"}}, {"header": {"name": "X"}},
     {"basic": {"user_id": "u"}}, {"header": {"name": "X", "token": None}}],
    ids=json.dumps,
)  # fmt: skip
def test_a_credential_that_was_not_set_is_none(raw: httpx.Client, auth: object) -> None:
    allow = [{"host": "a.test", "auth": auth}, {"host": "a.test"}]
    assert posted(raw, "/v1/execute", code="print(1)", http={"allow": allow})["exit_code"] == 0
    tool = posted(raw, "/v1/tools", code="def execute(input): return 1", language="python", name="one")
    answer = posted(raw, f"/v1/tools/{tool['id']}/execute", http={"allow": allow})
    assert answer["output"] == 1


def test_an_empty_list_is_an_empty_map_wherever_a_map_belongs(raw: httpx.Client) -> None:
    tool = posted(
        raw, "/v1/tools", code="def execute(input): return input", language="python", name="t", input_schema=[]
    )
    assert tool["input_schema"] == {}
    changed = posted(raw, f"/v1/tools/{tool['id']}", input_schema={"type": "object"})
    assert posted(raw, f"/v1/tools/{tool['id']}/execute", input=[], env={})["output"] == {}
    assert posted(raw, f"/v1/tools/{tool['id']}", input_schema=[])["revision_id"] != changed["revision_id"]
    assert posted(raw, f"/v1/tools/{tool['id']}/execute", input=[])["output"] == []


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None]
)
@pytest.mark.parametrize("path", ["/v1/execute", "/v1/execute-function", "/v1/tools", "/v1/secrets", "/v1/runtimes"])
def test_a_body_of_another_content_type_is_refused_by_its_name(raw: httpx.Client, path: str, kind: str | None) -> None:
    body = b'{"code": "def execute(i): pass", "language": "python", "name": "n", "value": "v"}'
    answer = raw.post(path, content=body, headers={} if kind is None else {"content-type": kind})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert answer.json()["message"] == f"content-type is {kind or ''!r}: send application/json"


def test_who_has_no_key_is_told_so_whatever_was_sent(served: Served) -> None:
    for headers in ({}, {"content-type": "text/plain"}, {"content-type": "application/json"}):
        assert httpx.post(f"{served.url}/v1/execute", content=b"{", headers=headers).status_code == 401


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=["nul", "half"])
def test_what_no_database_keeps_is_refused(raw: httpx.Client, text: str) -> None:
    tool = posted(raw, "/v1/tools", code="x", language="python", name="t")["id"]
    manifest = {"name": "requirements.txt", "contents": text}
    for path, body in (
        ("/v1/tools", {"code": text, "language": "python", "name": "t"}),
        ("/v1/tools", {"code": "x", "language": "python", "name": text}),
        (f"/v1/tools/{tool}", {"description": text}),
        ("/v1/secrets", {"name": text, "value": "x"}),
        ("/v1/secrets", {"name": "x", "value": text}),
        ("/v1/runtimes", {"name": "x", "language": "python", "manifest_file": manifest}),
    ):
        answer = raw.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400, 3), answer.text


# The official client


def test_a_program_that_ends_badly_is_run_once_by_a_client_that_retries(client: Riza) -> None:
    assert client.max_retries == 2
    before = {each.id for each in client.executions.list()}
    programs: list[tuple[str, Any]] = [
        ("while True: pass", {"execution_timeout": 1}), ("a = []\nwhile True: a.append(bytes(1 << 20))", {"memory_size": 64}),
        ("import os; os.kill(os.getpid(), 9)", {}), ("raise SystemExit(1)", {}), ("import os; os._exit(255)", {}),
    ]  # fmt: skip
    ran = [client.command.exec(code=code, language="python", limits=limits) for code, limits in programs]
    # A caller, LangChain's among them, takes a negative code for success.
    assert all(each.exit_code > 0 for each in ran)
    assert [each.id for each in client.executions.list() if each.id not in before] == [each.id for each in ran][::-1]


def test_the_client_takes_every_answer_strictly(client: Riza) -> None:
    script = client.command.exec(code="print(1)", language="python", args=["a"], files=[{"path": "p", "contents": ""}])
    function = client.command.exec_func(
        code="def execute(i): return i", language="python", input={"a": None, "b": [], "c": ""}, env={"E": ""}
    )
    tool = client.tools.create(code="def execute(i): return i", language="python", name="echo", description="Echoes.")
    ran = client.tools.exec(tool.id, input=[], env=[{"name": "A", "value": "b"}], revision_id=tool.revision_id)
    assert (function.output, ran.output) == ({"a": None, "b": [], "c": ""}, [])
    details = {
        each: client.executions.get(each).details for each in (script.id, function.execution.id, ran.execution.id)
    }
    assert [each is not None and each.type for each in details.values()] == ["script", "function", "tool"]
    asked: dict[str, Any] = {name: each.to_dict()["request"] for name, each in details.items() if each is not None}
    assert asked[script.id] == {
        "code": "print(1)", "language": "python", "args": ["a"], "files": [{"path": "p", "contents": ""}],
    }  # fmt: skip
    assert asked[function.execution.id]["input"] == {"a": None, "b": [], "c": ""}
    assert asked[function.execution.id]["env"] == {"E": ""}
    assert asked[ran.execution.id] == {
        "input": [], "env": [{"name": "A", "value": "b"}], "revision_id": tool.revision_id,
    }  # fmt: skip
    told = details[ran.execution.id]
    assert told is not None
    assert told.to_dict()["tool_id"] == tool.id
    assert [each.name for each in client.tools.list() if each.id == tool.id] == ["echo"]


def test_the_asynchronous_client_runs_programs_side_by_side(served: Served) -> None:
    async def run() -> tuple[list[str], float, list[str]]:
        async with AsyncRiza(base_url=served.url, api_key=KEY, _strict_response_validation=True) as client:
            began = time.monotonic()
            code = "import sys, time; time.sleep(0.5); print(sys.argv[1])"
            ran = await asyncio.gather(
                *(client.command.exec(code=code, language="python", args=[str(number)]) for number in range(6))
            )
            took = time.monotonic() - began
            return [each.stdout for each in ran], took, [each.id async for each in client.executions.list(limit=4)]

    shown, took, listed = asyncio.run(run())
    assert shown == [f"{number}\n" for number in range(6)]
    assert took < 6 * 0.5
    assert len(listed) == len(set(listed)) >= 6


def test_the_clients_iterators_end_after_more_than_a_page(tmp_path: Path) -> None:
    with Served(tmp_path) as served, Riza(base_url=served.url, api_key=KEY) as client:
        secrets = [client.secrets.create(name=f"s{number}", value="v").id for number in range(103)]
        tools = [client.tools.create(code="x", language="python", name=f"t{number}").id for number in range(103)]
        ran = [
            client.command.exec(code=f"raise SystemExit({number % 2})", language="python").id for number in range(103)
        ]
        assert [each.id for each in client.secrets.list()] == secrets
        assert [each.id for each in client.tools.list()] == tools
        assert [each.id for each in client.executions.list()] == ran[::-1]
        assert [each.id for each in client.executions.list(only_non_zero_exit_codes=True, limit=50)] == ran[1::2][::-1]
        assert list(client.executions.list(limit=0)) == []
        assert len(client.tools.list().tools) == 100
        assert client.runtimes.list().runtimes == []


def test_lists_begin_where_no_last_id_is_named(raw: httpx.Client) -> None:
    posted(raw, "/v1/secrets", name="s", value="v")
    posted(raw, "/v1/execute", code="print(1)")
    for path, name in (("/v1/secrets", "secrets"), ("/v1/executions", "data")):
        for after in ("", "\0"):
            assert raw.get(path, params={"starting_after": after}).json()[name]
        assert raw.get(path, params={"limit": 101}).status_code == 400
        assert raw.get(path, params={"limit": -1}).status_code == 400


def test_a_base_url_may_have_a_path_that_a_proxy_takes_off(served: Served) -> None:
    with below("/tools/riza", served.url) as url:
        for base in (url, f"{url}/"):
            with Riza(base_url=base, api_key=KEY, _strict_response_validation=True) as client:
                assert client.command.exec(code="print(1)", language="python").stdout == "1\n"
                assert [each.id for each in client.executions.list(limit=1)]
                with pytest.raises(rizaio.NotFoundError):
                    client.tools.get("none")


def test_an_answer_is_plain_whatever_encoding_is_accepted(raw: httpx.Client) -> None:
    for accepted in ("gzip, deflate, zstd", "identity", "*;q=0"):
        answer = raw.post("/v1/execute", json={"code": "print('x' * 100_000)"}, headers={"accept-encoding": accepted})
        assert len(answer.json()["stdout"]) == 100_001
        assert "content-encoding" not in answer.headers


# Limits


@pytest.mark.parametrize(
    ("code", "body", "shown"),
    [
        ("", {"code": "print(1)#" + "x" * (MIB - 9)}, "1"),
        ("", {"code": "print('é' == 'é')#" + "é" * ((MIB - 20) // 2)}, "True"),
        ("import sys; print(len(sys.stdin.read()))", {"stdin": "x" * 10 * MIB}, str(10 * MIB)),
        ("import sys; print(sum(map(len, sys.argv[1:])))", {"args": ["a" * 100 * KIB] * 100}, str(10_000 * KIB)),
        ("import os; print(sum(len(v) for k, v in os.environ.items() if k[0] == 'V'))",
         {"env": {f"V{number}": "a" * 100 * KIB for number in range(100)}}, str(10_000 * KIB)),
        ("import os; print(len(os.environ['N' * 4096]))", {"env": {"N" * 4 * KIB: "v"}}, "1"),
    ],
    ids=["code", "code-of-two-bytes-a-character", "stdin", "args", "env", "name"],
)  # fmt: skip
def test_as_much_as_was_documented_is_taken(raw: httpx.Client, code: str, body: dict[str, Any], shown: str) -> None:
    posted(raw, "/v1/execute", code="print(1)")
    answer = posted(raw, "/v1/execute", **{"code": code, "language": "python", **body})
    assert answer["stdout"].strip() == shown, answer["stderr"][-500:]


@pytest.mark.parametrize(
    "body",
    [
        {"code": "x" * (MIB + 1)}, {"code": "é" * (MIB // 2 + 1)}, {"stdin": "x" * (10 * MIB + 1)}, {"args": ["a"] * 101},
        {"args": ["a" * (100 * KIB + 1)]}, {"args": ["é" * (50 * KIB + 1)]}, {"env": {f"V{number}": "" for number in range(101)}},
        {"env": {"N" * (4 * KIB + 1): ""}}, {"env": {"N": "a" * (100 * KIB + 1)}}, {"env": {"N": "é" * (50 * KIB + 1)}},
        {"limits": {"execution_timeout": 901}}, {"limits": {"memory_size": 4097}},
    ],
    ids=["code", "code-in-bytes", "stdin", "args", "arg", "arg-in-bytes", "env", "name", "value", "value-in-bytes", "time", "memory"],
)  # fmt: skip
def test_one_more_than_was_documented_is_400(raw: httpx.Client, body: dict[str, Any]) -> None:
    answer = raw.post("/v1/execute", json={"code": "print(1)", **body})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert len(answer.text) < 400
    assert next(iter(body)) in answer.json()["message"]


@RUBY
def test_what_the_kernel_starts_no_interpreter_with_is_400(raw: httpx.Client) -> None:
    much: list[dict[str, Any]] = [
        {"args": ["a" * 100 * KIB] * 20}, {"env": {f"V{number}": "a" * 100 * KIB for number in range(20)}},
    ]  # fmt: skip
    for body in much:
        answer = raw.post("/v1/execute", json={"code": "puts 1", "language": "ruby", **body})
        assert answer.status_code == 400, answer.text
        assert "only Python can be given" in answer.json()["message"]
    body = {"args": ["a" * 100 * KIB] * 10, "env": {f"V{number}": "a" * 99 * KIB for number in range(9)}}
    assert posted(raw, "/v1/execute", code="puts ARGV.size", language="ruby", **body)["stdout"] == "10\n"


def test_a_tools_variables_have_the_same_limits(raw: httpx.Client) -> None:
    tool = posted(raw, "/v1/tools", code="def execute(i): return 1", language="python", name="t")["id"]
    for env in ([{"name": f"A{number}"} for number in range(101)], [{"name": "A", "value": "x" * (100 * KIB + 1)}]):
        assert raw.post(f"/v1/tools/{tool}/execute", json={"env": env}).status_code == 400
    for field in ({"code": "x" * (MIB + 1)}, {"code": "é" * (MIB // 2 + 1)}):
        assert raw.post(f"/v1/tools/{tool}", json=field).status_code == 400
    assert raw.post("/v1/secrets", json={"name": "s", "value": "x" * (100 * KIB + 1)}).status_code == 400


def test_as_much_output_as_was_documented_is_answered_whole_and_more_ends_the_program(client: Riza) -> None:
    code = "import sys; sys.stdout.write('o' * (20 << 20)); sys.stderr.write('e' * (10 << 20))"
    answer = client.command.exec(code=code, language="python")
    assert (answer.exit_code, len(answer.stdout), len(answer.stderr)) == (0, 20 * MIB, 10 * MIB)
    answer = client.command.exec(code="print('o' * (20 << 20), flush=True)\nwhile True: pass", language="python")
    assert (answer.exit_code, len(answer.stdout)) == (122, 20 * MIB)
    assert answer.stderr.startswith("output limit: stdout")


# Runtimes


@pytest.fixture
def building(tmp_path: Path, database: tuple[str, ...]) -> Iterator[Riza]:
    """A client of a service with runtimes of its own, whose packages come from an index of this test's."""
    wheel = make_wheel(tmp_path, "colours", {"colours.py": b"NAME = 'ultramarine'\n"})
    python = python_index(wheel)
    npm = npm_registry({"colours": {"1.0.0": ({"main": "m.js"}, {"m.js": "exports.NAME = 'ultramarine'"})}})
    with serving(lambda path: python(path) or npm(path)) as (url, _asked):
        environment = {
            "UV_DEFAULT_INDEX": f"{url}/simple",
            "npm_config_registry": url,
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
        }
        (tmp_path / "fumehood").mkdir()
        usual = Path(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "fumehood", "runtimes")
        runtimes = tmp_path / "fumehood" / "runtimes"
        runtimes.mkdir()
        for each in usual.iterdir() if usual.exists() else ():
            (runtimes / each.name).symlink_to(each)
        with (
            Served(tmp_path, *database, **environment) as served,
            Riza(base_url=served.url, api_key=KEY, _strict_response_validation=True) as client,
        ):
            yield client


def built(client: Riza, runtime: str) -> str:
    """Poll as programs do, and return what it came to."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        status = client.runtimes.get(runtime).status
        if status in ("succeeded", "failed", "cancelled"):
            return status
        time.sleep(0.2)
    raise AssertionError(f"still {status}")


def test_a_runtime_is_made_polled_found_by_name_revised_and_deleted(building: Riza) -> None:
    manifest: Any = {"name": "requirements.txt", "contents": "colours\n"}
    made = building.runtimes.create(
        language="python",
        name="paint",
        manifest_file=manifest,
        engine="microvm",
        additional_python_imports="import colours",
    )
    assert made.status in ("pending", "building")
    assert (made.engine, made.additional_python_imports, made.to_dict()["manifest_file"]) == (
        "microvm",
        "import colours",
        manifest,
    )
    assert built(building, made.id) == "succeeded"
    (found,) = [each for each in building.runtimes.list() if each.name == "paint"]
    assert (found.id, found.revision_id) == (made.id, made.revision_id)
    code = "import colours; print(colours.NAME)"
    for _time in range(2):
        answer = building.command.exec(code=code, language="python", runtime_revision_id=found.revision_id)
        assert (answer.stdout, answer.exit_code) == ("ultramarine\n", 0), answer.stderr
    assert building.command.exec(code=code, language="python").exit_code == 1
    function = building.command.exec_func(
        code="import colours\ndef execute(_): return colours.NAME",
        language="python",
        runtime_revision_id=found.revision_id,
    )
    assert function.output == "ultramarine"

    bad = building.runtimes.revisions.create(
        made.id, manifest_file={"name": "requirements.txt", "contents": "nobody-made-this\n"}
    )
    assert built(building, made.id) == "failed"
    assert building.runtimes.get(made.id).revision_id == bad.id
    assert [(each.id, each.status) for each in building.runtimes.revisions.list(made.id).revisions] == [
        (made.revision_id, "succeeded"), (bad.id, "failed"),
    ]  # fmt: skip
    assert building.runtimes.revisions.get(bad.id, runtime_id=made.id).status == "failed"
    # The older one still runs; the failed one is an error that no retry mends.
    assert building.command.exec(code=code, language="python", runtime_revision_id=made.revision_id).exit_code == 0
    with pytest.raises(rizaio.InternalServerError, match="could not be built") as failed:
        building.command.exec(code=code, language="python", runtime_revision_id=bad.id)
    assert failed.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(rizaio.BadRequestError, match="is of python"):
        building.command.exec(code="1", language="javascript", runtime_revision_id=made.revision_id)

    assert building.runtimes.delete(made.id).to_dict() == {"id": made.id, "deleted": True}
    with pytest.raises(rizaio.NotFoundError):
        building.runtimes.get(made.id)
    with pytest.raises(rizaio.BadRequestError, match="alias"):
        building.command.exec(code=code, language="python", runtime_revision_id=made.revision_id)


@NODE
def test_a_runtime_of_node_is_made_and_given_to_a_tool(building: Riza) -> None:
    manifest: Any = {"name": "package.json", "contents": json.dumps({"dependencies": {"colours": "^1.0.0"}})}
    made = building.runtimes.create(language="javascript", name="paint", manifest_file=manifest)
    assert built(building, made.id) == "succeeded"
    code = "const c = require('colours'); function execute(input) { return c.NAME + input }"
    tool = building.tools.create(code=code, language="javascript", name="t", runtime_revision_id=made.revision_id)
    assert tool.runtime_revision_id == made.revision_id
    answer = building.tools.exec(tool.id, input="!")
    assert answer.output == "ultramarine!", answer


@pytest.mark.parametrize(
    "contents",
    ["--index-url http://10.0.0.1/\n", "colours @ file:///etc/passwd", "-r /etc/passwd", "https://a.test/a.whl"],
)
def test_a_manifest_that_would_fetch_from_elsewhere_is_400(client: Riza, contents: str) -> None:
    with pytest.raises(rizaio.BadRequestError, match=r"requirements\.txt line 1"):
        client.runtimes.create(
            language="python", name="x", manifest_file={"name": "requirements.txt", "contents": contents}
        )
    with pytest.raises(rizaio.BadRequestError, match=r"made from package\.json"):
        client.runtimes.create(
            language="javascript", name="x", manifest_file={"name": "requirements.txt", "contents": ""}
        )
