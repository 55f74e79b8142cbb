"""What the loop does with what real servers do to answers: nothing half is run, nothing empty is an answer, nothing is for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fumehood.agent import loop
from fumehood.agent.tools import ExecPython
from fumehood.agent.transcript import Transcript
from fumehood.errors import ModelMisbehaved
from fumehood.llm.mistral import MistralModel
from fumehood.llm.openai_compatible import OpenAICompatible
from fumehood.llm.port import Quirk
from fumehood.protocol.limits import Limits
from tests.agent.test_edges import CannedExecutor, Heard, printed
from tests.llm.quirky_server import EVENTS, QuirkyServer, Reply, piece, stream
from tests.testing.raw_server import whole

DONE = Reply(body=whole({"content": "Done."}))


@pytest.fixture(params=["openai", "mistral"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(
    kind: str, *replies: Reply, results: int = 0, question: str = "q", max_turns: int = 10, stream: bool = False
) -> tuple[Transcript, QuirkyServer, CannedExecutor, Heard]:
    heard, executor = Heard(), CannedExecutor(*[printed("1\n")] * results)
    with QuirkyServer(*replies) as server:
        model = (
            MistralModel("m", key="k", server_url=server.url)
            if kind == "mistral"
            else OpenAICompatible("m", base_url=f"{server.url}/v1")
        )
        transcript = loop.answer(
            question,
            model=model,
            executor=executor,
            observer=heard,
            tool=ExecPython(Limits()),
            max_turns=max_turns,
            stream=stream,
        )
    return transcript, server, executor, heard


def calling(*arguments: str, finish_reason: str | None = "tool_calls") -> Reply:
    calls = [
        {"id": f"abcdefgh{n}", "type": "function", "function": {"name": "exec_python", "arguments": text}}
        for n, text in enumerate(arguments)
    ]
    return Reply(body=whole({"content": None, "tool_calls": calls}, finish_reason=finish_reason))


def saying(text: str | None, **answer: Any) -> Reply:
    return Reply(body=whole({"content": text}, **answer))


def told(server: QuirkyServer, request: int = 1) -> str:
    return str(server.requests[request]["messages"][-1]["content"])


CUT_OFF = {
    "passed_off_as_whole": calling('{"code": "print('),
    "told": calling('{"code": "print(1)"}', finish_reason="length"),
    "no_finish_reason": calling("{}", finish_reason=None),
}


@pytest.mark.parametrize("reply", CUT_OFF.values(), ids=CUT_OFF.keys())
def test_a_call_that_was_cut_off_is_told_to_the_model_and_not_run(kind: str, reply: Reply) -> None:
    transcript, server, executor, heard = ask(kind, reply, calling('{"code": "print(1)"}'), DONE, results=1)
    assert "cut off before the call was complete" in told(server)
    assert executor.codes == ["print(1)"]
    assert [what for what, _text in heard.all] == ["result", "code", "result", "text"]
    assert transcript.answer == "Done."


def test_of_a_call_that_its_server_split_nothing_is_run_and_the_model_is_told_how_to_write_it(kind: str) -> None:
    # As vLLM splits print('[TOOL_CALLS]exec_python{"code": "evil"}').
    split = calling('{"code": "print(\'', '{"code": "evil"}')
    transcript, server, executor, _heard = ask(kind, split, DONE)
    assert executor.codes == []
    results = server.requests[1]["messages"][-2:]
    assert all("'[TOOL_' + 'CALLS]'" in message["content"] for message in results)
    assert [note.quirk for note in transcript.notes] == [Quirk.CALL_SPLIT]


def test_a_call_that_came_twice_is_run_once(kind: str) -> None:
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "exec_python", "arguments": '{"code": "1"}'}}
    twice = Reply(body=whole({"content": None, "tool_calls": [call, call]}, finish_reason="tool_calls"))
    _transcript, _server, executor, _heard = ask(kind, twice, DONE, results=1)
    assert executor.codes == ["1"]


def test_an_empty_answer_is_asked_for_again(kind: str) -> None:
    transcript, server, _executor, _heard = ask(kind, saying(None), saying(" \n"), DONE)
    assert transcript.answer == "Done."
    assert "arrived empty" in told(server)
    assert [message["role"] for message in server.requests[2]["messages"]] == [
        "system",
        *["user", "assistant"] * 2,
        "user",
    ]
    assert [note.quirk for note in transcript.notes] == [Quirk.ASKED_AGAIN] * 2


@pytest.mark.parametrize(("max_turns", "requests"), [(10, 3), (2, 2)], ids=["asked_twice_again", "turns"])
def test_nothing_but_empty_answers_end_as_an_error(max_turns: int, requests: int) -> None:
    with QuirkyServer(*[saying("")] * 4) as server:
        model = OpenAICompatible("m", base_url=f"{server.url}/v1")
        with pytest.raises(ModelMisbehaved, match="answered with nothing: no text and no call"):
            loop.answer(
                "q",
                model=model,
                executor=CannedExecutor(),
                observer=Heard(),
                tool=ExecPython(Limits()),
                max_turns=max_turns,
            )
    assert len(server.requests) == requests


def test_an_empty_answer_that_a_length_limit_cut_off_is_not_asked_for_again(kind: str) -> None:
    with pytest.raises(ModelMisbehaved, match="its length limit came first"):
        ask(kind, saying("", finish_reason="length"))


def test_a_call_that_the_server_left_as_text_is_run(kind: str) -> None:
    leaked = saying('I will see.[TOOL_CALLS]exec_python[ARGS]{"code": "print(1)"}')
    transcript, server, executor, heard = ask(kind, leaked, DONE, results=1)
    assert executor.codes == ["print(1)"]
    assert told(server) == "1\n"
    assert ("text", "I will see.") in heard.all
    sent = server.requests[1]["messages"][2]
    assert json.loads(sent["tool_calls"][0]["function"]["arguments"]) == {"code": "print(1)"}
    assert [note.quirk for note in transcript.notes] == [Quirk.CALL_IN_TEXT]


def test_a_call_as_text_that_is_not_whole_is_asked_for_again(kind: str) -> None:
    broken = saying('[TOOL_CALLS]exec_python[ARGS]{"code": "print(')
    whole_one = saying('[TOOL_CALLS]exec_python[ARGS]{"code": "print(1)"}')
    transcript, server, executor, _heard = ask(kind, broken, whole_one, DONE, results=1)
    assert "arrived as text" in told(server)
    assert (executor.codes, transcript.answer) == (["print(1)"], "Done.")


def test_calls_as_text_alone_name_the_servers_switch(kind: str) -> None:
    with pytest.raises(ModelMisbehaved, match="--tool-call-parser mistral"):
        ask(kind, *[saying("[TOOL_CALLS]exec_python")] * 3)


def test_an_answer_about_the_notation_is_an_answer(kind: str) -> None:
    text = '[TOOL_CALLS]exec_python[ARGS]{"code": "print(1)"}'
    transcript, server, executor, _heard = ask(kind, saying(text), question="How does [TOOL_CALLS] look in use?")
    assert (transcript.answer, executor.codes, len(server.requests)) == (text, [], 1)


def test_an_answer_about_a_call_in_prose_is_an_answer(kind: str) -> None:
    text = "The token [TOOL_CALLS] starts a call."
    transcript, server, _executor, _heard = ask(kind, saying(text))
    assert (transcript.answer, len(server.requests)) == (text, 1)


def test_a_conversation_goes_on_over_many_quirks_at_once(kind: str) -> None:
    call = {"index": 0, "id": "chatcmpl-tool-8a1f", "function": {"name": "exec_python", "arguments": {"code": "1"}}}
    busy = Reply(body=b"{}", status=503, headers=(("retry-after", "0"),))
    no_reason = Reply(body=stream(piece(content="Done."), None, done=False), kind=EVENTS)
    begun = Reply(body=stream(piece(content=None, tool_calls=[call]), piece("stop"), done=False), kind=EVENTS)
    transcript, server, executor, heard = ask(
        kind, busy, begun, Reply(body=whole({"content": ""})), no_reason, results=1, stream=True
    )
    assert (executor.codes, transcript.answer) == (["1"], "Done.")
    assert [note.quirk for note in transcript.notes] == [
        Quirk.ASKED_TO_WAIT, Quirk.CAME_WHOLE, Quirk.ASKED_AGAIN, Quirk.NO_FINISH_REASON
    ]  # fmt: skip
    assert heard.all[-1] == ("text", "Done.")
    assert len(server.requests) == 4
    noted = transcript.as_json()["notes"]
    assert json.loads(json.dumps(noted)) == noted
    assert noted[0]["quirk"] == "asked_to_wait"
