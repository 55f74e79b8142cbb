"""The contract of Riza's API, by its official client, unmodified, and by requests that its other clients send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import rizaio
from rizaio import Riza

from tests.testing.outside import Authority, NameServer
from tests.testing.served import KEY, Served

TOKEN = "correct-horse-battery-staple"
DOUBLE = {"python": "def execute(input): return input * 2", "javascript": "function execute(input) { return input * 2 }",
          "typescript": "function execute(input: number): number { return input * 2 }"}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, database: tuple[str, ...]) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data"), *database, "--alias", "01JM3WYPDEADRUNTIMEOFOLD00=python") as served:
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Riza]:
    with Riza(base_url=served.url, api_key=KEY, _strict_response_validation=True, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def raw(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60) as raw:
        yield raw


def execute(raw: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = raw.post("/v1/execute", json=body)
    assert answer.status_code == 200, answer.text
    values: dict[str, Any] = answer.json()
    return values


# Scripts


def test_a_script_gets_its_arguments_variables_files_and_input(client: Riza) -> None:
    code = "import sys, os; print(sys.argv[1:], sys.stdin.read(), os.environ['A'], open('/mnt/req/d/f.txt').read())"
    answer = client.command.exec(
        code=code,
        language="python",
        args=["one", "two"],
        stdin="in",
        env={"A": "1"},
        files=[{"path": "d/f.txt", "contents": "x"}],
    )
    assert answer.stdout == "['one', 'two'] in 1 x\n"
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert len(answer.id) == 26
    assert answer.duration >= 0


@pytest.mark.parametrize(
    ("language", "code"),
    [("python", "print(6*7)"), ("javascript", "console.log(6*7)"), ("typescript", "const n: number = 42; console.log(n)"),
     ("ruby", "puts 6*7"), ("php", "<?php echo 6*7, \"\\n\";")],
)  # fmt: skip
def test_each_language_runs(client: Riza, language: Any, code: str) -> None:
    try:
        answer = client.command.exec(code=code, language=language)
    except rizaio.InternalServerError as error:
        pytest.skip(str(error))  # its interpreter is not installed
    assert answer.stdout == "42\n"


@pytest.mark.parametrize(
    ("code", "limits", "exit_code", "says"),
    [
        ("import sys; sys.exit(3)", {}, 3, ""),
        ("while True: pass", {"execution_timeout": 1}, 124, "timeout: 1 seconds of wall time are used up\n"),
        ("a = []\nwhile True: a.append(bytes(1 << 20))", {"memory_size": 64}, 137, "out of memory: "),
        ("import os; os.kill(os.getpid(), 9)", {}, 137, "signalled: signal SIGKILL ended it\n"),
    ],
    ids=["exit", "timeout", "memory", "killed"],
)
def test_a_program_that_fails_is_answered_with_its_exit_code(
    client: Riza, code: str, limits: Any, exit_code: int, says: str
) -> None:
    answer = client.command.exec(code=code, language="python", limits=limits)
    if exit_code == 137 and "MemoryError" in answer.stderr:
        return  # where no cgroup bounds it, a limit of its process may come first
    assert answer.exit_code == exit_code
    assert says in answer.stderr


def test_hosts_are_reached_by_rule_with_credentials_that_are_kept_nowhere(tmp_path: Path) -> None:
    authority = Authority()
    with (
        authority.trusted(),
        NameServer({"good.test": [["93.184.215.14"]]}) as names,
        Served(tmp_path, FUMEHOOD_NAMESERVER=names.address) as served,
        Riza(base_url=served.url, api_key=KEY, max_retries=0) as client,
    ):
        code = (
            "import requests\nfor u in ('https://evil.test/', 'http://good.test/'): print(requests.get(u).status_code)"
        )
        allow: Any = [{"host": "good.test", "auth": {"bearer": {"token": TOKEN}}}]
        answer = client.command.exec(code=code, language="python", http={"allow": allow})
        assert answer.stdout == "403\n403\n"  # and not by http, for the credential's sake
        details = client.executions.get(answer.id).details
        assert details is not None
        assert "***" in details.to_json()
        assert TOKEN not in details.to_json()
    assert not [path for path in tmp_path.rglob("server.db*") if TOKEN.encode() in path.read_bytes()]


# Functions and tools


@pytest.mark.parametrize("language", ["python", "javascript", "typescript"])
def test_a_function_returns_a_value(client: Riza, language: Any) -> None:
    try:
        answer = client.command.exec_func(code=DOUBLE[language], language=language, input=21)
    except rizaio.InternalServerError as error:
        pytest.skip(str(error))
    assert (answer.output, answer.output_status, answer.execution.exit_code) == (42, "valid", 0)


@pytest.mark.parametrize(
    ("code", "status", "output"),
    [
        ("def execute(input): print('said'); return {'a': [input]}", "valid", {"a": [None]}),
        ("def execute(input): pass", "valid", None),
        ("async def execute(input): return 1", "valid", 1),
        ("def execute(input): return object()", "json_serialization_error", None),
        ("def execute(input): return float('nan')", "json_serialization_error", None),
        ("def execute(input): 1/0", "error", None),
        ("def other(input): pass", "error", None),
        ("def execute(input): open('function-output.json', 'w').write('[')\nimport atexit\natexit.register(lambda: execute(0))", "error", None),
    ],
    ids=["value", "void", "async", "object", "nan", "raises", "none", "forged"],
)  # fmt: skip
def test_what_a_function_returns_has_a_status(client: Riza, code: str, status: str, output: object) -> None:
    answer = client.command.exec_func(code=code, language="python")
    assert (answer.output_status, answer.output) == (status, output)
    assert (answer.execution.exit_code == 0) == (status != "error" or "atexit" in code)


def test_a_tool_is_made_changed_pinned_listed_and_run(client: Riza) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tool = client.tools.create(
        code="def execute(input): return input['n'] + 1", language="python", name="plus", input_schema=schema
    )
    assert (tool.description, tool.input_schema) == ("", schema)
    changed = client.tools.update(tool.id, code="def execute(input): return input['n'] + 2")
    assert (changed.id, changed.name) == (tool.id, "plus")
    assert changed.revision_id != tool.revision_id
    assert client.tools.exec(tool.id, input={"n": 1}).output == 3
    assert client.tools.exec(tool.id, input={"n": 1}, revision_id=tool.revision_id).output == 2
    assert client.tools.get(tool.id).revision_id == changed.revision_id
    assert tool.id in [each.id for each in client.tools.list()]
    with pytest.raises(rizaio.BadRequestError, match="'n' is a required property"):
        client.tools.exec(tool.id, input={})


def test_a_tool_uses_a_secret_that_nobody_can_read(client: Riza, served: Served) -> None:
    secret = client.secrets.create(name="token", value=TOKEN)
    assert secret.to_dict() == {"id": secret.id, "name": "token"}
    assert {"id": secret.id, "name": "token"} in [each.to_dict() for each in client.secrets.list()]
    tool = client.tools.create(
        code="import os\ndef execute(input): return os.environ['T'][::-1]", language="python", name="t"
    )
    answer = client.tools.exec(tool.id, env=[{"name": "T", "secret_id": secret.id}])
    assert answer.output == TOKEN[::-1]
    data = served._folder
    assert not [path for path in data.rglob("server.db*") if TOKEN.encode() in path.read_bytes()]
    assert oct(next(data.rglob("server.key")).stat().st_mode)[-3:] == "600"


# Lists and errors


def test_lists_end_and_go_on_where_they_stopped(client: Riza, raw: httpx.Client) -> None:
    made = [client.secrets.create(name=f"s{number}", value="v").id for number in range(5)]
    assert [each.id for each in client.secrets.list(limit=2)][-5:] == made
    assert raw.get("/v1/secrets", params={"limit": 0}).json() == {"secrets": []}
    ran = [client.command.exec(code=f"raise SystemExit({code})", language="python").id for code in (0, 1, 0, 1)]
    assert [each.id for each in client.executions.list(limit=3)][:4] == ran[::-1]
    failed = [each.id for each in client.executions.list(only_non_zero_exit_codes=True)]
    assert failed[:2] == [ran[3], ran[1]]
    assert ran[0] not in failed


def test_an_execution_is_kept_with_what_was_asked_and_answered(client: Riza) -> None:
    answer = client.command.exec(code="print(1)", language="python", env={"A": "b"})
    found = client.executions.get(answer.id)
    assert (found.id, found.language, found.exit_code) == (answer.id, "python", 0)
    assert found.details is not None
    details = found.details.to_dict()
    assert details["type"] == "script"
    assert details["request"] == {"code": "print(1)", "env": {"A": "b"}, "language": "python"}
    assert details["response"] == answer.to_dict()


@pytest.mark.parametrize("path", ["/_stainless_unknown_path", "/v1/nothing", "/v1/tools/none", "/v1/executions/none"])
def test_what_is_not_there_is_404_in_the_contracts_shape(raw: httpx.Client, path: str) -> None:
    answer = raw.get(path)
    assert answer.status_code == 404
    assert answer.json()["code"] == 5


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic abc", "Bearer", KEY], ids=str)
def test_who_has_no_key_is_401_word_for_word(served: Served, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    for path in ("/v1/tools", "/v1/unknown"):
        answer = httpx.get(served.url + path, headers=headers)
        assert (answer.status_code, answer.json()) == (401, {"code": 16, "message": "unauthenticated"})


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"x"', b"{}", b'{"code": 1}', b'{"code": "1", "language": "cobol"}', b'{"code": "1", "args": [1]}',
        b'{"code": "1", "env": {"A=": "1"}}', b'{"code": "1", "files": [{"path": "../x", "contents": ""}]}',
        b'{"code": "1", "limits": {"execution_timeout": -1}}', b'{"code": "1", "limits": {"memory_size": 100000}}',
        b'{"code": "1", "http": {"allow": [{"host": "10.0.0.1"}]}}', b'{"code": "\\ud800"}', b"\xff\xfe",
        b'{"code": "1", "runtime_revision_id": "01JM3WYPNOBODYHASTHISONE00"}',
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_is_400_and_says_why(raw: httpx.Client, body: bytes) -> None:
    answer = raw.post("/v1/execute", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == 3
    assert answer.json()["message"]


def test_a_body_that_is_too_long_is_413(raw: httpx.Client) -> None:
    answer = raw.post("/v1/execute", content=b" " * (65 << 20), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, 8)
    assert raw.post("/v1/execute", json={"code": "1" * ((1 << 20) + 1)}).status_code == 400


# What its clients really send


@pytest.mark.parametrize(
    "body",
    [
        {"language": "PYTHON"},
        {"language": None},
        {},
        {
            "runtime_revision_id": None,
            "stdin": None,
            "http": None,
            "limits": None,
            "args": None,
            "env": None,
            "files": None,
        },
        {"env": [], "args": [], "files": [], "input": []},
        {"input": {"x": 1}, "allow_http_hosts": ["a.test"], "revision": "x", "runtime": "y"},
        {"limits": {"execution_timeout": 0, "memory_size": 0}},
        {
            "http": {
                "allow": [
                    {"host": "a.test", "auth": {"bearer": {}}},
                    {"host": "a.test", "auth": {"query": {"key": "key"}}},
                ]
            }
        },
        {"http": {"allow": [{"host": "*.a.test", "auth": {"header": {"name": "X", "token": "abc"}}}]}},
        {"http": {"allow": [{"host": "a.test", "auth": {"basic": {"user_id": "u", "password": "p"}}}, {"host": "*"}]}},
        {"runtime_revision_id": "01JM3WYPDEADRUNTIMEOFOLD00"},
    ],
    ids=[
        "upper",
        "null-language",
        "no-language",
        "nulls",
        "php",
        "old-fields",
        "zeros",
        "empty-auth",
        "token",
        "basic",
        "alias",
    ],
)
def test_a_lenient_request_runs(raw: httpx.Client, body: dict[str, Any]) -> None:
    body = {name: value for name, value in body.items() if name != "language" or value is not None}
    assert execute(raw, code="print(1)", **body)["stdout"] == "1\n"


def test_a_tools_code_is_not_looked_at_and_null_leaves_a_field_alone(raw: httpx.Client) -> None:
    made = raw.post(
        "/v1/tools", json={"code": "code", "language": "TYPESCRIPT", "name": "n", "description": None}
    ).json()
    assert (made["language"], made["description"]) == ("typescript", "")
    body = {"name": "m", "code": None, "input_schema": None, "tool_id": made["id"]}
    changed = raw.post(f"/v1/tools/{made['id']}", json=body).json()
    assert (changed["name"], changed["code"], changed["input_schema"]) == ("m", "code", {})


# The service itself


def test_the_first_start_makes_a_key_and_shows_it_once(tmp_path: Path) -> None:
    with Served(tmp_path, key=None) as first:
        assert first.made_key.startswith("fh_")
        with Riza(base_url=first.url, api_key=first.made_key) as client:
            assert client.command.exec(code="print(1)", language="python").stdout == "1\n"
    with Served(tmp_path) as second, Riza(base_url=second.url, api_key=first.made_key) as client:
        assert client.command.exec(code="print(2)", language="python").stdout == "2\n"
    assert not [path for path in tmp_path.rglob("server.db*") if first.made_key.encode() in path.read_bytes()]


def test_tools_and_secrets_go_by_the_ids_that_programs_carry(tmp_path: Path) -> None:
    with Served(tmp_path) as served, Riza(base_url=served.url, api_key=KEY) as client:
        reads = "import os\ndef execute(i): return [i, os.environ['S']]"
        tool = client.tools.create(code=reads, language="python", name="reads").id
        secret = client.secrets.create(name="s", value=TOKEN).id
        with pytest.raises(rizaio.NotFoundError):
            client.tools.get("01JOLDTOOL")
    aliases = ("--alias", f"01JOLDTOOL={tool}", "--alias", f"01JOLDSECRET={secret}")
    with Served(tmp_path, *aliases) as served, Riza(base_url=served.url, api_key=KEY) as client:
        env: Any = [{"name": "S", "secret_id": "01JOLDSECRET"}]
        assert client.tools.exec("01JOLDTOOL", input=4, env=env).output == [4, TOKEN]
        assert client.tools.get("01JOLDTOOL").id == tool
        assert client.tools.update("01JOLDTOOL", name="renamed").name == "renamed"


def test_nothing_that_was_answered_is_lost_when_it_is_killed(tmp_path: Path) -> None:
    with Served(tmp_path) as served, Riza(base_url=served.url, api_key=KEY) as client:
        tool = client.tools.create(code=DOUBLE["python"], language="python", name="double")
        secret = client.secrets.create(name="s", value=TOKEN)
        ran = [client.command.exec(code=f"print({number})", language="python").id for number in range(20)]
        served.kill()
    with Served(tmp_path) as served, Riza(base_url=served.url, api_key=KEY) as client:
        assert [each.id for each in client.executions.list()] == ran[::-1]
        assert client.tools.exec(tool.id, input=4).output == 8
        assert [each.id for each in client.secrets.list()] == [secret.id]
        reads = client.tools.create(
            code="import os\ndef execute(_): return os.environ['S']", language="python", name="reads"
        )
        assert client.tools.exec(reads.id, env=[{"name": "S", "secret_id": secret.id}]).output == TOKEN


def test_an_address_that_others_reach_needs_a_key_first(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="nobody has a key yet"), Served(tmp_path, "--host", "0.0.0.0", key=None):
        pass


def test_the_health_of_the_process_needs_no_key(served: Served) -> None:
    assert httpx.get(f"{served.url}/healthz").json() == {"status": "ok"}


def test_the_description_of_the_interface_names_every_path_and_no_secret(raw: httpx.Client) -> None:
    paths = raw.get("/openapi.json").json()["paths"]
    assert {
        "/v1/execute",
        "/v1/execute-function",
        "/v1/tools/{tool_id}/execute",
        "/v1/executions/{execution_id}",
    } <= set(paths)
    assert TOKEN not in json.dumps(paths)
