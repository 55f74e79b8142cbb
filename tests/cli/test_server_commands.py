"""The commands that look after a server: keys, secrets, tools, executions and runtimes, as a user meets them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.testing.served import FUMEHOOD, KEY, Served

TOKEN = "correct-horse-battery-staple"
ID = re.compile(r"[0-9A-Z]{26}\n")
#: It would set a terminal's title, and turn what follows around.
HOSTILE = "a\x1b]0;owned\x07\u202eb"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data")) as served:
        yield served


class Caller:
    """Runs commands against one server."""

    def __init__(self, url: str, key: str = KEY) -> None:
        self.environment = {**os.environ, "FUMEHOOD_SERVER": url, "FUMEHOOD_API_KEY": key}

    def __call__(
        self, *words: str, stdin: str = "", code: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        answer = subprocess.run(
            [FUMEHOOD, *words], input=stdin, capture_output=True, text=True, check=False, timeout=60,
            env=self.environment | environment,
        )  # fmt: skip
        assert answer.returncode == code, (answer.stdout, answer.stderr)
        assert "/fumehood/cli/" not in answer.stderr  # a traceback of ours
        return answer

    def json(self, *words: str, **options: Any) -> Any:
        return json.loads(self(*words, "--json", **options).stdout)


@pytest.fixture(scope="module")
def call(served: Served) -> Caller:
    return Caller(served.url)


def test_a_key_is_made_shown_once_and_revoked(served: Served, call: Caller) -> None:
    made = call("key", "create", "ci", "--scope", "execute", "--scope", "read")
    key = made.stdout.strip()
    assert key.startswith("fh_")
    assert "may execute read" in made.stderr
    other = Caller(served.url, key)
    assert other("execution", "list").returncode == 0
    refused = other("key", "list", code=77)
    assert "'keys'" in refused.stderr
    shown = call("key", "list")
    assert key not in shown.stdout
    (row,) = [line.split() for line in shown.stdout.splitlines() if " ci " in line]
    assert row[1:4] == ["ci", "execute", "read"]
    call("key", "revoke", row[0])
    assert "401" in other("execution", "list", code=77).stderr
    (kept,) = [each for each in call.json("key", "list") if each["id"] == row[0]]
    assert kept["revoked_at"]


def test_an_empty_server_is_this_machines_whatever_the_environment_names() -> None:
    elsewhere = Caller("http://127.0.0.1:1")
    assert "http://127.0.0.1:1 " in elsewhere("key", "list", code=69).stderr
    answer = subprocess.run(
        [FUMEHOOD, "key", "list", "--server", ""],
        capture_output=True,
        text=True,
        check=False,
        env=elsewhere.environment,
    )
    # Whether one serves there is this machine's affair.
    assert "http://127.0.0.1:1 " not in answer.stderr


@pytest.mark.alone
def test_the_set_up_is_done_in_any_shell(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    for name in ("pyproject.toml", "README.md", "LICENSE", "src", "scripts"):
        (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").symlink_to(root / ".venv" / "bin" / "uv")
    # A server that the environment names is not asked; what is activated is not taken to make itself anew.
    usual = {name: value for name, value in os.environ.items() if name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
    path = f"{tmp_path / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    environment = {**usual, "PATH": path, "FUMEHOOD_SERVER": "http://127.0.0.1:1"}
    script = "./scripts/setup && . .venv/bin/activate && ./scripts/setup && fumehood --version"
    answer = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment, timeout=110
    )
    assert answer.returncode == 0, answer.stderr
    made, version = answer.stdout.splitlines()
    assert (made, version[:9]) == ("setup: installing Fumehood into .venv", "fumehood ")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "nowhere.invalid"], "choose another by --host"),
        (["--host", "192.0.2.1", "--key", "some key"], "choose another by --host"),
        (["--database", "nonsense"], "postgresql+psycopg://user@host/name"),
    ],
)
def test_a_service_that_cannot_begin_says_what_to_change(tmp_path: Path, options: list[str], says: str) -> None:
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "FUMEHOOD_API_KEY": KEY}
    answer = subprocess.run(
        [FUMEHOOD, "serve", *options], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert (answer.returncode, answer.stdout) == (78, "")
    assert says in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_secret_is_read_from_input_or_a_variable_and_given_to_a_tool(call: Caller, tmp_path: Path) -> None:
    made = call("secret", "create", "piped", stdin=f"{TOKEN}\n")
    assert ID.fullmatch(made.stdout)
    call("secret", "create", "env", "--from-env", "GIVEN", GIVEN=f"{TOKEN}-2")
    listed = call("secret", "list")
    assert ("piped" in listed.stdout, "env" in listed.stdout, TOKEN in listed.stdout) == (True, True, False)
    code = tmp_path / "reads.py"
    code.write_text("import os\ndef execute(_): return [os.environ['A'][::-1], os.environ['B'][::-1]]")
    call("tool", "create", str(code))
    answer = call.json("tool", "run", "reads", "--secret", "A=piped", "--secret", f"B={made.stdout.strip()}")
    assert answer["output"] == [TOKEN[::-1], TOKEN[::-1]]
    call("secret", "delete", "piped")
    call("secret", "delete", "env")
    assert call.json("secret", "list") == []
    assert call("secret", "list").stdout == "There are no secrets.\n"


def test_a_secret_that_is_typed_is_not_shown(call: Caller) -> None:
    near, far = pty.openpty()
    with subprocess.Popen(
        [FUMEHOOD, "secret", "create", "typed"], stdin=far, stdout=far, stderr=far, env=call.environment,
        start_new_session=True,
    ) as process:  # fmt: skip
        os.close(far)
        shown = ""
        while "not shown: " not in shown:
            shown += os.read(near, 4096).decode()
        os.write(near, f"{TOKEN}\n".encode())
        with contextlib.suppress(OSError):  # the terminal's other end closes
            while piece := os.read(near, 4096):
                shown += piece.decode()
        assert process.wait(20) == 0
    os.close(near)
    assert TOKEN not in shown
    call("secret", "delete", "typed")


def test_a_tool_is_made_run_changed_and_deleted(call: Caller, tmp_path: Path) -> None:
    code, schema = tmp_path / "area.py", tmp_path / "schema.json"
    code.write_text("def execute(input):\n    print('working')\n    return {'area': 3 * input['r'] ** 2}\n")
    schema.write_text('{"type": "object", "required": ["r"]}')
    made = call("tool", "create", str(code), "--description", "An area", "--input-schema", str(schema))
    assert ID.fullmatch(made.stdout)
    ran = call("tool", "run", "area", "--input", '{"r": 2}')
    assert (json.loads(ran.stdout), ran.stderr) == ({"area": 12}, "working\n")
    assert json.loads(call("tool", "run", "area", "-i", "-", stdin='{"r": 1}').stdout) == {"area": 3}
    first = call.json("tool", "show", "area")
    assert (first["name"], first["language"], first["description"]) == ("area", "python", "An area")
    shown = call("tool", "show", made.stdout.strip()).stdout
    assert "code:\ndef execute(input):" in shown
    code.write_text("def execute(input): return input['r']")
    assert call("tool", "update", "area", str(code)).stdout == made.stdout
    assert call("tool", "run", "area", "-i", '{"r": 7}').stdout == "7\n"
    assert json.loads(call("tool", "run", "area", "-i", '{"r": 1}', "--revision", first["revision_id"]).stdout) == {
        "area": 3
    }
    refused = call("tool", "run", "area", "-i", "{}", code=64)
    assert "'r' is a required property" in refused.stderr
    assert [line.split()[:3] for line in call("tool", "list").stdout.splitlines() if "area" in line] == [
        [made.stdout.strip(), "area", "python"]
    ]
    call("tool", "delete", "area")
    assert "'area'" in call("tool", "show", "area", code=77).stderr


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [("import sys; sys.exit(3)", 3, ""), ("1 / 0", 1, "ZeroDivisionError"), ("return object()", 1, "json_serialization_error")],
    ids=["exits", "raises", "returns what is no JSON"],
)  # fmt: skip
def test_a_tool_that_fails_fails_the_command(call: Caller, tmp_path: Path, body: str, code: int, says: str) -> None:
    file = tmp_path / "fails.py"
    file.write_text(f"def execute(input):\n    {body}\n")
    tool = call("tool", "create", str(file)).stdout.strip()
    answer = call("tool", "run", tool, code=code)
    assert (answer.stdout, says in answer.stderr) == ("", True)
    call("tool", "delete", tool)


def test_executions_are_listed_shown_and_forgotten(call: Caller) -> None:
    call("run", "-c", "print('six', 6 * 7)")
    call("run", "-c", "import sys; print('oh', file=sys.stderr); sys.exit(9)", code=9)
    newest, second = call.json("execution", "list", "--limit", "2")
    assert (newest["exit_code"], second["exit_code"], second["door"]) == (9, 0, "native")
    failed = call("execution", "list", "--failed").stdout.splitlines()
    assert failed[0].split()[:4] == ["ID", "STARTED", "DURATION", "MS"]
    assert failed[1].split()[0] == newest["id"]
    assert not [line for line in failed if second["id"] in line]
    shown = call("execution", "show", second["id"]).stdout
    assert re.search(r"(?m)^exit code: +0$", shown)
    assert "code:\nprint('six', 6 * 7)" in shown
    assert "stdout:\nsix 42" in shown
    assert call.json("execution", "show", newest["id"])["details"]["response"]["stderr"] == "oh\n"
    call("execution", "delete", newest["id"])
    assert newest["id"] in call("execution", "show", newest["id"], code=77).stderr


def test_a_list_is_read_to_its_end(served: Served, call: Caller) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=served.url, headers=headers) as api:
        made = [api.post("/v1/secrets", json={"name": f"s{n}", "value": "v"}).json()["id"] for n in range(105)]
        assert [each["id"] for each in call.json("secret", "list")] == made
        for each in made:
            api.delete(f"/v1/secrets/{each}")


def test_a_runtime_is_built_at_a_server_used_looked_at_and_removed(call: Caller, tmp_path: Path) -> None:
    empty = tmp_path / "requirements.txt"
    empty.write_text("# nothing\n")
    built = call("runtime", "build", "--requirements", str(empty), "--name", "bare")
    revision = built.stdout.strip()
    assert ID.fullmatch(built.stdout)
    assert f"revision {revision}: succeeded" in built.stderr
    assert call("run", "-l", revision, "-c", "print(6 * 7)").stdout == "42\n"
    assert re.search(rf"bare +python +succeeded +{revision}", call("runtime", "list").stdout)
    second = call("runtime", "build", "-r", str(empty), "--name", "bare", "--no-wait").stdout.strip()
    assert second != revision
    shown = call("runtime", "show", "bare").stdout
    assert (revision in shown, second in shown) == (True, True)
    assert call("runtime", "log", "bare", "--revision", revision).returncode == 0
    call("runtime", "remove", "bare")
    assert call("runtime", "list").stdout == "There are no runtimes.\n"


def test_runtimes_of_this_machine_are_as_before(call: Caller) -> None:
    here = call("runtime", "list", "--server", "", "--json")
    assert "path" in json.loads(here.stdout)[0]
    refused = call("runtime", "build", "--standard-library", "--name", "x", code=2)
    assert "--standard-library" in refused.stderr


def test_what_cannot_be_built_is_refused_in_the_servers_words(call: Caller, tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("-e .\n")
    assert "requirements.txt line 1" in call("runtime", "build", "-r", str(file), "--name", "x", code=64).stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["key"], 2, "create, list, revoke"), (["key", "make"], 2, "'make'"), (["key", "create"], 2, "NAME"),
        (["key", "create", "x", "--scope", "all"], 64, "scopes"), (["key", "revoke", "../keys"], 77, "404"),
        (["secret", "create"], 2, "NAME"), (["secret", "create", "x"], 2, "empty"),
        (["secret", "create", "x", "--from-env", "NO_SUCH_THING"], 2, "NO_SUCH_THING"), (["secret", "delete", "x"], 77, "'x'"),
        (["tool", "create", "nowhere.py"], 2, "nowhere.py"), (["tool", "create", "-"], 2, "--language"),
        (["tool", "run", "x", "--input", "{"], 2, "--input"), (["tool", "run"], 2, "TOOL"), (["tool", "update", "x"], 2, "what changes"),
        (["tool", "run", "x", "--secret", "A"], 2, "VARIABLE=SECRET"), (["execution", "show"], 2, "ID"),
        (["execution", "show", ".."], 77, "404"), (["execution", "list", "--limit", "0"], 2, "--limit"),
        (["runtime", "show"], 2, "RUNTIME"), (["runtime", "build", "--name", "x"], 2, "--requirements"),
        (["key", "list", "--server", "ftp://x"], 64, "ftp://x"), (["key", "list", "--server", "http://127.0.0.1:1"], 69, "reached"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(call: Caller, words: list[str], code: int, says: str) -> None:
    answer = call(*words, code=code)
    assert answer.stdout == ""
    assert says in answer.stderr
    assert answer.stderr.count("\n") == 1


@contextlib.contextmanager
def saying(*bodies: str, status: int = 200) -> Iterator[str]:
    """Serve these, one a request."""
    pending = list(bodies)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            """Keep the tests' output clean."""

        def do_GET(self) -> None:
            body = pending.pop(0).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_nothing_that_a_server_says_drives_the_terminal() -> None:
    rows = [{"id": HOSTILE, "name": HOSTILE, "language": 7, "description": [HOSTILE]}]
    pages = [json.dumps({"tools": rows}), json.dumps({"tools": []}), json.dumps({"code": 5, "message": HOSTILE})]
    for bodies, words, status in ((pages[:2], ("tool", "list"), 200), (pages[2:], ("key", "list"), 404)):
        with saying(*bodies, status=status) as url:
            answer = Caller(url)(*words, code=0 if status == 200 else 77)
        shown = answer.stdout + answer.stderr
        assert "owned" in shown
        assert not set(shown) & set("\x1b\x07\u202e")


@pytest.mark.parametrize("body", ["[]", '{"keys": 1}', '{"keys": [1]}', "{", "null"])
def test_an_answer_that_is_none_is_said_to_be_none(body: str) -> None:
    with saying(body) as url:
        said = Caller(url)("key", "list", code=76)
    assert "fumehood serve" in said.stderr


@pytest.mark.parametrize("name", ["key", "secret", "tool", "execution", "runtime"])
def test_help_has_examples_and_costs_no_http_library(name: str) -> None:
    code = (
        f"import sys; from fumehood.cli import main; main([{name!r}, '--help'])\n"
        "assert not {'httpx', 'asyncio'} & set(sys.modules), 'loaded'"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"  fumehood {name} " in answer.stdout.partition("Examples:")[2]


def test_other_commands_do_without_the_http_library() -> None:
    code = "import sys\nfrom fumehood.cli import main\nmain(['runtime', 'list'])\nassert 'httpx' not in sys.modules"
    environment = {name: value for name, value in os.environ.items() if name != "FUMEHOOD_SERVER"}
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
