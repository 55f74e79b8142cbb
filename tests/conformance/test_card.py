"""The card's tools, files and pictures: executed in a sandbox, read with care, drawn to be seen."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fumehood.conformance.asking import user
from fumehood.conformance.card import system
from fumehood.conformance.check import Outcome
from fumehood.conformance.checks import chosen
from fumehood.conformance.counting import counter
from fumehood.conformance.drawing import equations, picture
from fumehood.conformance.files import model_file, system_prompt
from fumehood.conformance.reading import Call
from fumehood.conformance.running import run
from fumehood.conformance.talk import Memory, Setup, Talk
from fumehood.conformance.toolbox import Toolbox
from fumehood.conformance.verdicts import Failed, Skipped
from fumehood.conformance.wire import Wire
from fumehood.engine import Engine
from fumehood.errors import InvalidRequest
from fumehood.protocol.execution import ExecutionRequest, ExecutionResult
from fumehood.protocol.executor import OutputListener

from .scripted_server import MODEL, ScriptedServer


@pytest.fixture(scope="module")
def toolbox() -> Iterator[Toolbox]:
    with Engine() as engine:
        yield Toolbox(engine)


def call(name: str, **given: Any) -> Call:
    return Call(id="aaaaaaaa1", name=name, arguments=json.dumps(given))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (call("add_number", a="6", b="6"), "12.0"),
        (call("multiply_number", a=2, b="3"), "6.0"),
        (call("substract_number", a="19", b="10"), "9.0"),
        (call("add_number", a="six"), "error: could not convert string to float: 'six'"),
        (call("add_number", a=[1], b=2), "error: float() argument must be"),
        (call("multiply_number", a=10**400, b=2), "error: int too large to convert to float"),
        (call("write_a_story"), "A long time ago in a galaxy far far away..."),
        (call("terminal", command="echo", args="a | tr a b"), "b"),
        (call("terminal", command="exit 3"), "[exited, exit code 3]"),
        (call("terminal", command=7), "error: the argument command must be text"),
        (call("python", code="x = sum(range(5))", result_variable="x"), "10"),
        (call("python", code="print('a')\nx = 1", result_variable="x"), "a\n1"),
        (call("python", code="x = 1", result_variable="'; import os #"), "there is no variable"),
        (call("python", code="x = '\ud83e'", result_variable="x"), "error: the program holds half of a character"),
        (call("rm", a="b"), "error: there is no tool 'rm'"),
    ],
    ids=["add", "multiply", "substract", "no-number", "a-list", "huge", "story", "pipe", "exit", "no-text", "python", "printed",
         "variable", "surrogate", "unknown"],
)  # fmt: skip
def test_a_call_is_executed_and_its_output_told(toolbox: Toolbox, asked: Call, told: str) -> None:
    assert told in toolbox.execute(asked)


def test_the_models_programs_run_behind_the_walls(toolbox: Toolbox) -> None:
    # The number of the process, and files of this host, are what a program outside would see.
    told = toolbox.execute(call("python", code="import os\nx = (os.getpid(), os.path.exists('/proc/1/root/srv'))",
                                result_variable="x"))  # fmt: skip
    assert told != f"({os.getpid()}, True)"
    assert toolbox.execute(call("terminal", command=f"test -e {__file__} || echo unseen")) == "unseen"


def test_programs_without_end_are_not_run() -> None:
    class Counted:
        """An executor that runs nothing: what is counted is how often it is asked to."""

        times = 0

        def execute(self, request: ExecutionRequest, *, on_output: OutputListener | None = None) -> ExecutionResult:
            self.times += 1
            return ExecutionResult(id="1", language="bash", reason="exited", exit_code=0)

    executor = Counted()
    toolbox = Toolbox(executor)
    for _time in range(60):
        toolbox.execute(call("terminal", command="true"))
    with pytest.raises(Failed, match="more than 60 programs"):
        toolbox.execute(call("terminal", command="true"))
    assert executor.times == 60


def test_without_a_sandbox_a_program_is_not_run() -> None:
    with pytest.raises(Skipped, match="no sandbox"):
        Toolbox(None).execute(call("terminal", command="touch /tmp/was-here"))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("def f(time, place): return 'Dr. Strange'", ""),
        ("def f(): return 'Dr. Strange'", "does not run"),
        ("x = 1", "defines no function"),
        ("def f(*all): raise SystemExit(0)", "does not run"),
        ("def f(*all): open('value.json', 'w').write('[' * 99999); import os; os._exit(0)", "wrote over"),
        ("def f(*all): return ['Dr. Strange']", "of type list"),
        ("(" * 5000, "does not run"),
    ],
    ids=["right", "no-arguments", "no-function", "exits", "forges", "a-list", "nested"],
)
def test_the_function_of_an_answer_is_called_in_the_sandbox(toolbox: Toolbox, source: str, why: str) -> None:
    if not why:
        assert toolbox.value_of(source) == "Dr. Strange"
        return
    with pytest.raises(Failed, match=why):
        toolbox.value_of(source)


def test_a_template_is_filled_in_and_cannot_reach_into_objects() -> None:
    template = "I am {name}, {{today}} is {today}, not {yesterday}. {name.__class__} {0} {other}"
    with ScriptedServer() as server, Wire(server.url) as wire:
        said = system(Talk(wire, MODEL, Memory(), Setup(system_prompt=template)))
    assert said["content"] == (
        "I am Devstral-Small-2-24B-Instruct-2512, {today} is 2031-03-14, not 2031-03-13. {name.__class__} {0} {other}"
    )


def test_a_models_folder_is_read_as_a_clone_or_as_the_hubs_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "cache" / "snapshots" / "0abc"
    snapshot.mkdir(parents=True)
    (snapshot / "SYSTEM_PROMPT.txt").write_text("b")
    (tmp_path / "cache" / "refs").mkdir()
    (tmp_path / "cache" / "refs" / "main").write_text("0abc\n")
    (tmp_path / "CHAT_SYSTEM_PROMPT.txt").write_text("a")
    (tmp_path / "SYSTEM_PROMPT.txt").write_text("c")
    assert [system_prompt(tmp_path), system_prompt(tmp_path / "cache")] == ["a", "b"]
    assert system_prompt(tmp_path / "SYSTEM_PROMPT.txt") == "c"


def test_what_is_no_models_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="has no tekken.json"):
        model_file(tmp_path, "tekken.json")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        system_prompt(tmp_path / "gone.txt")
    (tmp_path / "SYSTEM_PROMPT.txt").write_bytes(b"\xff")
    with pytest.raises(InvalidRequest, match="is not UTF-8"):
        system_prompt(tmp_path)
    (tmp_path / "SYSTEM_PROMPT.txt").write_bytes(b"a" * (1 << 19))
    with pytest.raises(InvalidRequest, match="no system prompt"):
        system_prompt(tmp_path)
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "main").write_text("../../etc")
    with pytest.raises(InvalidRequest, match="names no revision"):
        system_prompt(tmp_path)


def test_the_pictures_cost_what_mistral_common_says() -> None:
    url, cost = equations()
    counts = counter(None)
    for address, tokens in ((url, cost), (picture(280, 140), 55), (picture(64, 64), 12)):
        parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": address}}]
        assert counts.prompt([user(parts)]) - counts.prompt([user("a")]) == tokens


def test_the_equations_are_drawn_in_black_on_white() -> None:
    data = base64.b64decode(equations()[0].partition(",")[2])
    width = int.from_bytes(data[16:20])
    start = data.index(b"IDAT") + 4
    rows = zlib.decompressobj().decompress(data[start:])
    lines = [rows[at + 1 : at + 1 + width] for at in range(0, len(rows), width + 1)]
    # Row 31 is the middle of a dot's height in the first line: the top of 6, of 2 and of 3.
    assert set(rows) == {0, 255}
    assert lines[0] == b"\xff" * width
    assert lines[31].count(b"\xff\0") == 3


def test_the_command_plays_the_cards_tests_with_the_models_files(tmp_path: Path) -> None:
    (tmp_path / "CHAT_SYSTEM_PROMPT.txt").write_text("You are {name}, by Mistral AI. It is {today}.")
    fumehood = str(Path(sys.executable).with_name("fumehood"))
    with ScriptedServer() as server:
        words = ["--base-url", server.url, "--model", MODEL, "--only", "T", "--system-prompt", str(tmp_path), "--json"]
        answer = subprocess.run([fumehood, "model", "verify", *words], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert [check["id"] for check in told["checks"]] == ["T1", "T2", "T3", "T4", "T5", "T6"]
    assert told["outcomes"]["pass"] == 6


def test_programs_that_cannot_run_here_skip_their_test_alone() -> None:
    with ScriptedServer() as server, Wire(server.url) as wire:
        results = {result.check.id: result for result in run(wire, MODEL, chosen(["T1", "T3", "T6"]))}
    assert results["T1"].outcome is Outcome.PASS
    assert results["T3"].outcome is results["T6"].outcome is Outcome.SKIPPED
    assert "cannot run here" in results["T6"].seen


class Hub(BaseHTTPRequestHandler):
    """Hugging Face's hub, as its library asks for one file."""

    files: ClassVar[dict[str, bytes]] = {
        "/owner/name/resolve/main/SYSTEM_PROMPT.txt": b"You are {name}. It is {today}."
    }
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        data = self.files.get(self.path)
        self.send_response(404 if data is None else 200)
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", str(len(data or b"")))
        self.send_header(*(("X-Error-Code", "EntryNotFound") if data is None else ("ETag", '"b"')))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.files.get(self.path, b""))

    def log_message(self, *_words: object) -> None:
        pass


def test_a_system_prompt_is_fetched_from_the_hub_and_kept(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    ask = (
        "from fumehood.conformance.files import PROMPTS, place, system_prompt\n"
        "import sys\n"
        "print(system_prompt(place(sys.argv[1], *PROMPTS)))"
    )

    def fetched(name: str, endpoint: str, offline: str = "0") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": offline}
        return subprocess.run(
            [sys.executable, "-c", ask, name], env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        first, none = fetched("hub:owner/name", endpoint), fetched("hub:../../etc", endpoint)
        server.shutdown()
        thread.join()
    assert first.stdout == "You are {name}. It is {today}.\n", first.stderr
    # Without the hub what was fetched is still there, and what was not is told in a sentence.
    assert fetched("hub:owner/name", endpoint, offline="1").stdout == first.stdout
    for answer in (none, fetched("hub:owner/other", endpoint, offline="1")):
        assert "InvalidRequest: hub:" in answer.stderr
        assert answer.stdout == ""
