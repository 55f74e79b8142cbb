"""What the loop and direct prompting do where model, server or program behave oddly. No sandbox is needed for these."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fumehood.agent import json_mode, loop, tools
from fumehood.agent.tools import ExecPython
from fumehood.errors import InvalidRequest, ModelMisbehaved, SandboxUnavailable
from fumehood.llm.openai_compatible import OpenAICompatible
from fumehood.llm.scripted import ScriptedModel
from fumehood.protocol.credentials import Bearer
from fumehood.protocol.execution import ExecutionRequest, ExecutionResult, OutputFile
from fumehood.protocol.executor import OutputListener
from fumehood.protocol.limits import Limits
from fumehood.protocol.network import Allow, Network, Refusal
from tests.testing.chat_servers import ChatServer
from tests.testing.raw_server import RawServer, whole


class CannedExecutor:
    """An executor whose results are given; an error among them is raised. It remembers the programs."""

    def __init__(self, *results: ExecutionResult | Exception) -> None:
        self.codes: list[str] = []
        self._results = list(results)

    def execute(self, request: ExecutionRequest, *, on_output: OutputListener | None = None) -> ExecutionResult:
        assert on_output is None
        self.codes.append(request.code)
        result = self._results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


class Heard:
    """An observer that remembers, in order."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def text(self, piece: str) -> None:
        self.all.append(("text", piece))

    def code(self, code: str) -> None:
        self.all.append(("code", code))

    def result(self, told: str) -> None:
        self.all.append(("result", told))


def printed(stdout: str, **values: Any) -> ExecutionResult:
    facts: dict[str, Any] = {"id": "1", "language": "python", "reason": "exited", "exit_code": 0}
    return ExecutionResult(**{**facts, "stdout_bytes": stdout.encode(), **values})


def call(code: str) -> dict[str, Any]:
    return {"calls": [{"name": "exec_python", "arguments": json.dumps({"code": code})}]}


def answer(server: ChatServer | RawServer, executor: CannedExecutor, heard: Heard | None = None) -> Any:
    model = OpenAICompatible("m", base_url=server.url + "/v1")
    return loop.answer(
        "q", model=model, executor=executor, observer=heard or Heard(), tool=ExecPython(Limits()), stream=False
    )


def direct(server: ChatServer | RawServer, executor: CannedExecutor, heard: Heard | None = None) -> Any:
    model = OpenAICompatible("m", base_url=server.url + "/v1")
    return json_mode.answer("q", model=model, executor=executor, observer=heard or Heard(), tool=ExecPython(Limits()))


def test_an_observer_hears_each_program_before_it_runs_and_each_result() -> None:
    heard = Heard()
    with ChatServer(call("print(1)"), {"text": "one"}) as server:
        answer(server, CannedExecutor(printed("1\n")), heard)
    assert heard.all == [("code", "print(1)"), ("result", "1\n"), ("text", "one")]


def test_an_answer_that_was_cut_off_is_marked_in_the_transcript() -> None:
    with ChatServer({"text": "The answer is", "finish_reason": "length"}) as server:
        assert answer(server, CannedExecutor()).as_json()["cut_off"] is True
    with ChatServer({"text": "42"}) as server:
        assert answer(server, CannedExecutor()).as_json()["cut_off"] is False


def test_half_a_character_in_a_program_goes_back_to_the_model() -> None:
    executor = CannedExecutor()
    arguments = {"calls": [{"name": "exec_python", "arguments": '{"code": "print(\'\\ud800\')"}'}]}
    with ChatServer(arguments, {"text": "ok"}) as server:
        answer(server, executor)
    assert "not valid Unicode" in server.requests[1]["messages"][-1]["content"]
    assert executor.codes == []


def test_a_program_that_the_executor_refuses_goes_back_to_the_model() -> None:
    with ChatServer(call("x"), {"text": "ok"}) as server:
        answer(server, CannedExecutor(InvalidRequest("files hold too much")))
    assert "files hold too much" in server.requests[1]["messages"][-1]["content"]


@pytest.mark.parametrize("error", [SandboxUnavailable("no walls"), ValueError("a fault of ours")], ids=["host", "ours"])
def test_a_fault_that_is_not_the_models_is_not_told_to_the_model(error: Exception) -> None:
    with ChatServer(call("x"), {"text": "ok"}) as server:
        with pytest.raises(type(error), match=str(error)):
            answer(server, CannedExecutor(error))
        assert len(server.requests) == 1


def test_all_output_of_direct_prompting_is_the_answer_and_is_heard_once() -> None:
    text, heard = "x" * (tools.OUTPUT_CHARACTERS * 2), Heard()
    with ChatServer({"text": '{"code": "1"}'}) as server:
        assert direct(server, CannedExecutor(printed(text)), heard).answer == text
    assert heard.all == [("code", "1")]


def test_a_call_that_nobody_offered_leaves_no_trace_in_the_history() -> None:
    stray = [{"id": "abcdefghi", "type": "function", "function": {"name": "python", "arguments": "{}"}}]
    with RawServer(whole({"content": None, "tool_calls": stray}), whole({"content": '{"code": "1"}'})) as server:
        assert direct(server, CannedExecutor(printed("1"))).answer == "1"
    sent = server.requests[1]["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
    assert "tool_calls" not in sent[2]


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Keep finalizers of earlier tests' objects from running where the stack is used up."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"code": "\\ud800"}'], ids=["deep", "half_a_character"])
@pytest.mark.usefixtures("no_collection")
def test_json_that_brings_a_parser_down_is_a_breach_of_the_form(text: str) -> None:
    with ChatServer({"text": text}, {"text": text}) as server, pytest.raises(ModelMisbehaved, match="JSON mode"):
        direct(server, CannedExecutor())


TOLD = {
    "output": (printed("7\n"), "7\n"),
    "nothing": (printed(""), "[the program printed nothing: print what you want to see]"),
    "exit_code": (printed("a", exit_code=3), "a\n[exit code 3]"),
    "stderr": (printed("", stderr_bytes=b"oops"), "[stderr]\noops"),
    "timeout": (printed("", reason="timeout", exit_code=124, detail="30 s"), "[the program was ended: timeout: 30 s]"),
    "file": (
        printed("", files=(OutputFile(path="a\x1b.txt", data=b""),)),
        r"[it left these files, which are gone now: a\x1b.txt]",
    ),
}


@pytest.mark.parametrize(("result", "told"), TOLD.values(), ids=TOLD.keys())
def test_a_model_is_told_what_came_of_its_program(result: ExecutionResult, told: str) -> None:
    assert tools.told(result) == told


def test_a_refused_network_is_told_to_be_policy_and_not_worth_a_retry() -> None:
    told = tools.told(printed("", network_refused=2))
    assert "by policy" in told
    assert "trying again will not help" in told


def test_a_refused_host_is_told_with_the_reason() -> None:
    refusals = (
        Refusal(host="evil.test", port=0, why="host evil.test is not allowed: only good.test", rule="evil.test"),
        Refusal(host="evil.test", port=443, why="host evil.test is not allowed: only good.test", rule="evil.test"),
    )
    told = tools.told(printed("", refusals=refusals, network_refused=2))
    assert told.count("host evil.test is not allowed: only good.test") == 1
    assert "trying again will not help" in told


def test_a_model_is_told_which_hosts_it_may_reach() -> None:
    plain = ExecPython(Limits())
    assert "there is no network" in plain.schema.description
    assert "there is no network" in plain.system_prompt
    rules = (
        Allow(host="pypi.org"),
        Allow(host="api.good.test", paths=("/v1/*",), credential=Bearer(token="secret-text")),
    )
    tool = ExecPython(Limits(), Network(allow=rules))
    for text in (tool.schema.description, tool.system_prompt):
        assert "these hosts and no others: pypi.org, api.good.test (/v1/*)" in text
        assert "send no credentials" in text
        assert "secret-text" not in text


def test_a_transcript_is_json_whatever_the_program_left(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    turns = [{"calls": [{"name": "exec_python", "arguments": {"code": "1"}}]}, {"text": "{{result}}"}]
    path.write_text(json.dumps({"dialogues": [{"question": "q", "turns": turns}]}))
    left = printed("\x1b[31m", files=(OutputFile(path="b\udcff", data=b"\xff\x00"),))
    transcript = loop.answer(
        "q", model=ScriptedModel(path), executor=CannedExecutor(left), observer=Heard(), tool=ExecPython(Limits())
    ).as_json()
    assert json.loads(json.dumps(transcript, ensure_ascii=False).encode()) == transcript
    assert transcript["executions"][0]["files"][0]["base64"] == "/wA="
    assert [message["role"] for message in transcript["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
