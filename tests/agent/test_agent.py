"""Both methods against real servers and the real sandbox: what the model is sent, and every way it can go wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from fumehood import Engine, ExecutionResult, Limits
from fumehood.agent import json_mode, loop, tools
from fumehood.agent.tools import ExecPython
from fumehood.agent.transcript import Transcript
from fumehood.errors import ModelMisbehaved, TurnLimitReached
from fumehood.llm.mistral import MistralModel
from fumehood.llm.openai_compatible import OpenAICompatible
from tests.testing.chat_servers import ChatServer

FIBONACCI = "a, b = 0, 1\nfor _ in range(50):\n    print(a)\n    a, b = b, a + b"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


class Heard:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.codes: list[str] = []
        self.results: list[str] = []
        self.text = self.texts.append
        self.code = self.codes.append
        self.result = self.results.append


def call(code: object, name: str = "exec_python") -> dict[str, Any]:
    return {"name": name, "arguments": code if isinstance(code, str) else json.dumps(code)}


def answer(
    engine: Engine, *replies: Any, mistral: bool = False, stream: bool = True, **options: Any
) -> tuple[Transcript, ChatServer, Heard]:
    heard = Heard()
    with ChatServer(*replies, mistral=mistral) as server:
        model = (
            MistralModel("m", key="k", server_url=server.url)
            if mistral
            else OpenAICompatible("m", base_url=server.url + "/v1")
        )
        transcript = loop.answer(
            "q",
            model=model,
            executor=engine,
            observer=heard,
            tool=ExecPython(Limits(wall_seconds=10)),
            stream=stream,
            **options,
        )
    return transcript, server, heard


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("mistral", [True, False], ids=["mistral", "openai"])
def test_a_program_runs_and_its_output_goes_back(engine: Engine, mistral: bool, stream: bool) -> None:
    transcript, server, heard = answer(
        engine, {"calls": [call({"code": FIBONACCI})]}, {"text": "Done."}, mistral=mistral, stream=stream
    )
    assert transcript.answer == "Done."
    assert server.requests[1]["messages"][-1]["content"].split()[-1] == "7778742049"
    assert [len(request["tools"]) for request in server.requests] == [1, 1]
    assert heard.codes == [FIBONACCI]
    assert "".join(heard.texts) == "Done."
    record = transcript.as_json()
    assert record["usage"] == {"prompt_tokens": 22, "completion_tokens": 14}
    assert record["executions"][0]["exit_code"] == 0
    json.dumps(record)


def test_a_question_that_needs_no_program_makes_no_call(engine: Engine) -> None:
    transcript, server, heard = answer(engine, {"text": "A haiku."})
    assert (transcript.answer, heard.codes, len(server.requests)) == ("A haiku.", [], 1)


def test_several_calls_in_a_turn_are_answered_in_their_order(engine: Engine) -> None:
    calls = [call({"code": f"print({number})"}) for number in (1, 2, 3)]
    _transcript, server, _heard = answer(engine, {"calls": calls}, {"text": "ok"})
    assert [message["content"] for message in server.requests[1]["messages"][-3:]] == ["1\n", "2\n", "3\n"]


MISTAKES = {
    "broken_json": (call('{"code": print}'), "not JSON"),
    "not_an_object": (call("[1]"), "not a JSON object"),
    "unknown_tool": (call({"code": "1"}, name="rm_rf"), "no tool 'rm_rf'"),
    "no_code": (call({"program": "1"}), "needs the argument code"),
    "code_of_another_type": (call({"code": 5}), "needs the argument code"),
}


@pytest.mark.parametrize(("mistake", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_goes_back_to_the_model_which_may_mend_it(
    engine: Engine, mistake: dict[str, Any], words: str
) -> None:
    transcript, server, _heard = answer(
        engine, {"calls": [mistake]}, {"calls": [call({"code": "print(5)"})]}, {"text": "5"}
    )
    assert words in server.requests[1]["messages"][-1]["content"]
    assert server.requests[2]["messages"][-1]["content"] == "5\n"
    assert transcript.answer == "5"


def test_a_call_that_was_cut_off_is_not_run(engine: Engine) -> None:
    reply = {"calls": [call({"code": "print('half a program')"})], "finish_reason": "length"}
    _transcript, server, heard = answer(engine, reply, {"text": "sorry"})
    assert heard.codes == []
    assert "cut off" in server.requests[1]["messages"][-1]["content"]


def test_a_program_that_fails_is_told_with_its_reason(engine: Engine) -> None:
    _transcript, server, _heard = answer(engine, {"calls": [call({"code": "import os; os.abort()"})]}, {"text": "ok"})
    assert "signalled" in server.requests[1]["messages"][-1]["content"]


def test_trying_the_network_is_told_to_be_policy(engine: Engine) -> None:
    code = "import urllib.request\nurllib.request.urlopen('http://example.com')"
    _transcript, server, _heard = answer(engine, {"calls": [call({"code": code})]}, {"text": "ok"})
    assert "by policy" in server.requests[1]["messages"][-1]["content"]


def test_a_model_that_never_answers_meets_the_limit_on_turns(engine: Engine) -> None:
    replies = [{"calls": [call({"code": "print(1)"})]}] * 3
    with pytest.raises(TurnLimitReached, match="3 turns"):
        answer(engine, *replies, max_turns=3)


def direct(engine: Engine, *replies: Any, mistral: bool = False) -> tuple[Transcript, ChatServer]:
    with ChatServer(*replies, mistral=mistral) as server:
        model = (
            MistralModel("m", key="k", server_url=server.url)
            if mistral
            else OpenAICompatible("m", base_url=server.url + "/v1")
        )
        transcript = json_mode.answer(
            "q", model=model, executor=engine, observer=Heard(), tool=ExecPython(Limits(wall_seconds=10))
        )
    return transcript, server


@pytest.mark.parametrize("mistral", [True, False], ids=["mistral", "openai"])
def test_direct_prompting_runs_the_program_and_its_output_is_the_answer(engine: Engine, mistral: bool) -> None:
    transcript, server = direct(engine, {"text": json.dumps({"code": FIBONACCI})}, mistral=mistral)
    assert transcript.answer.split()[-1] == "7778742049"
    assert server.requests[0]["response_format"]["type"] == "json_object"


FORMS = {
    "fenced": '```json\n{"code": "1"}\n```',
    "no_json": "print(1)",
    "no_object": '"print(1)"',
    "another_property": '{"code": "print(1)", "lang": "python"}',
    "no_text": '{"code": 1}',
    "empty": '{"code": " "}',
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS.keys())
def test_an_answer_of_another_form_may_be_mended_once(engine: Engine, text: str) -> None:
    transcript, server = direct(engine, {"text": text}, {"text": '{"code": "print(5)"}'})
    assert transcript.answer == "5\n"
    assert "not what was asked for" in server.requests[1]["messages"][-1]["content"]
    with pytest.raises(ModelMisbehaved, match="JSON mode"):
        direct(engine, {"text": text}, {"text": text})


def test_what_the_model_is_told_is_bounded() -> None:
    result = ExecutionResult(id="1", language="python", reason="exited", exit_code=0, stdout_bytes=b"a" * 99_999 + b"z")
    told = tools.told(result)
    assert len(told) < tools.OUTPUT_CHARACTERS + 100
    assert told.startswith("aaa")
    assert told.endswith("az")
    assert "84000 characters left out" in told
