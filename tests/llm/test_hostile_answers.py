"""What no server ought to send, byte for byte: each ends as a sound answer or as one clear sentence, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from fumehood.errors import ModelMisbehaved, ModelRefused
from fumehood.llm.mistral import MistralModel
from fumehood.llm.openai_compatible import OpenAICompatible
from fumehood.llm.port import (
    AssistantMessage,
    ChatModel,
    Completion,
    Message,
    ToolCall,
    ToolMessage,
    ToolSchema,
    UserMessage,
)
from tests.testing.raw_server import RawServer, events, whole

KEY = "sk-a-secret-key"
TOOL = ToolSchema(name="exec_python", description="Run.", parameters={"type": "object"})
EVENTS = "text/event-stream"


@pytest.fixture(params=["openai", "mistral"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def client(kind: str, server: RawServer) -> ChatModel:
    if kind == "mistral":
        return MistralModel("m", key=KEY, server_url=server.url, timeout_seconds=10)
    return OpenAICompatible("m", base_url=f"{server.url}/v1", key=KEY, timeout_seconds=10)


def ask(kind: str, body: bytes, *, status: int = 200, content_type: str = "application/json") -> Completion:
    with RawServer(body, status=status, kind=content_type) as server:
        streamed = content_type == EVENTS
        return client(kind, server).complete(
            [UserMessage(text="q")], tools=[TOOL], on_text=(lambda _piece: None) if streamed else None
        )


def piece(
    arguments: str, *, index: int | None = None, call_id: str | None = None, name: str | None = None
) -> dict[str, Any]:
    call: dict[str, Any] = {"function": {"arguments": arguments}}
    if name is not None:
        call["function"]["name"] = name
    given = {"index": index, "id": call_id}
    return {"tool_calls": [call | {field: value for field, value in given.items() if value is not None}]}


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_a_refused_question_is_asked_once(kind: str, status: int) -> None:
    with RawServer(b"{}", status=status) as server:
        with pytest.raises(ModelRefused, match=f"answered {status}"):
            client(kind, server).complete([UserMessage(text="q")])
        assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b'{"error": {"message": "bad %s"}}', b'{"message": "bad %s"}', b"bad %s"])
def test_a_key_that_a_server_echoes_is_not_shown(kind: str, body: bytes) -> None:
    with pytest.raises(ModelRefused, match=r"bad \[the key\]") as caught:
        ask(kind, body % KEY.encode(), status=401)
    assert KEY not in str(caught.value)


def test_pieces_without_an_index_make_one_call(kind: str) -> None:
    name = "" if kind == "mistral" else None
    pieces = [piece('{"code"', call_id="abcdefghi", name="exec_python"), piece(': "1"}', name=name)]
    completion = ask(kind, events(*pieces, finish_reason="tool_calls"), content_type=EVENTS)
    assert [(call.id, call.parsed()) for call in completion.tool_calls] == [("abcdefghi", {"code": "1"})]


def test_calls_that_are_all_numbered_0_stay_apart(kind: str) -> None:
    pieces = [piece(f'{{"code": "{n}"}}', index=0, call_id=f"abcdefgh{n}", name="exec_python") for n in (1, 2)]
    completion = ask(kind, events(*pieces, finish_reason="tool_calls"), content_type=EVENTS)
    assert [call.parsed()["code"] for call in completion.tool_calls] == ["1", "2"]


def test_calls_in_pieces_are_put_together_on_a_server_of_mistrals_api_too(kind: str) -> None:
    pieces = [piece('{"code"', index=0, call_id="abcdefghi", name="exec_python"), piece(': "1"}', index=0)]
    (call,) = ask(kind, events(*pieces), content_type=EVENTS).tool_calls
    assert (call.id, call.parsed()) == ("abcdefghi", {"code": "1"})


@pytest.mark.parametrize("call_id", ["null", "", "abc", "abcdefghié"])
def test_an_id_that_servers_refuse_is_replaced(kind: str, call_id: str) -> None:
    calls = [{"id": call_id, "type": "function", "function": {"name": "exec_python", "arguments": "{}"}}]
    (call,) = ask(kind, whole({"content": None, "tool_calls": calls})).tool_calls
    assert call.id != call_id
    assert len(call.id) == 9
    assert call.id.isascii()
    assert call.id.isalnum()


@pytest.mark.parametrize("reason", ["error", "content_filter"])
def test_an_answer_that_was_given_up_is_none(kind: str, reason: str) -> None:
    with pytest.raises(ModelMisbehaved, match=reason):
        ask(kind, whole({"content": "half"}, finish_reason=reason))


def test_usage_without_its_numbers_counts_nothing(kind: str) -> None:
    completion = ask(kind, whole({"content": "x"}, usage={}))
    assert (completion.text, completion.usage.prompt_tokens) == ("x", 0)


def test_text_that_is_null_is_empty(kind: str) -> None:
    assert ask(kind, whole({"content": None})).text == ""


BROKEN = {
    "choices_null": (whole({"content": "x"}, choices=None), "application/json"),
    "choices_empty": (whole({"content": "x"}, choices=[]), "application/json"),
    "page": (b"<html>Welcome</html>", "text/html"),
    "another_object": (b'{"models": []}', "application/json"),
    "number": (b"7", "application/json"),
    "deep": (b"[" * 50_000, "application/json"),
    "half_an_event": (b'data: {"cho\n\n', EVENTS),
    "no_events": (b"", EVENTS),
    "no_finish_reason": (events({"content": "x"}, finish_reason=None).replace(b"data: [DONE]\n\n", b""), EVENTS),
    "not_utf_8": (b'data: {"choices": "\xff\xfe"}\n\n', EVENTS),
}


@pytest.mark.parametrize(("body", "content_type"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_completion_is_said_in_one_line(kind: str, body: bytes, content_type: str) -> None:
    with pytest.raises(ModelMisbehaved) as caught:
        ask(kind, body, content_type=content_type)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


MID_STREAM = {
    "openai": b'data: {"error": {"message": "the engine died"}}',
    "text": b'data: {"error": "the engine died"}',
    "mistral": b'event: error\ndata: {"object": "error", "message": "the engine died"}',
    "fastapi": b'data: {"detail": "the engine died"}',
    "llama_cpp": b'error: {"message": "the engine died"}',
}


@pytest.mark.parametrize("error", MID_STREAM.values(), ids=MID_STREAM.keys())
def test_an_error_in_the_middle_of_a_stream_keeps_the_servers_words(kind: str, error: bytes) -> None:
    body = events({"content": "x"}).split(b"\n\n")[0] + b"\n\n" + error + b"\n\n"
    with pytest.raises(ModelRefused, match="gave up in the middle of its answer: the engine died"):
        ask(kind, body, content_type=EVENTS)


def test_half_characters_become_valid_unicode(kind: str) -> None:
    assert ask(kind, whole({"content": "a\ud800b"})).text == "a\ufffdb"
    assert ask(kind, events({"content": "\ud83d"}, {"content": "\ude00"}), content_type=EVENTS).text == "\U0001f600"


@pytest.mark.parametrize(
    "arguments", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000], ids=["lists", "objects", "number"]
)
def test_arguments_that_bring_a_parser_down_are_a_mistake_of_the_model(arguments: str) -> None:
    with pytest.raises(ValueError, match="arguments are not"):
        ToolCall(id="abcdefghi", name="exec_python", arguments=arguments).parsed()


def test_what_a_model_once_got_wrong_is_not_sent_back_as_it_was(kind: str) -> None:
    call = ToolCall(id="abcdefghi", name="rm -rf [ARGS]", arguments="{broken")
    history: list[Message] = [
        UserMessage(text="q"),
        AssistantMessage(tool_calls=(call,)),
        ToolMessage(call_id="abcdefghi", name=call.name, text="there is no such tool"),
        AssistantMessage(),
        UserMessage(text="go on"),
    ]
    with RawServer(whole({"content": "x"})) as server:
        client(kind, server).complete(history, tools=[TOOL])
    sent = server.requests[0]["messages"]
    assert sent[1]["tool_calls"][0]["function"] == {"name": "unknown_tool", "arguments": '{"unreadable": "{broken"}'}
    assert sent[2].get("name", "unknown_tool") == "unknown_tool"
    assert sent[3]["content"] == "(no answer)"


def test_no_proxy_is_asked_for_a_server_on_this_machine(kind: str) -> None:
    program = (
        "import sys\nfrom fumehood.llm.mistral import MistralModel\nfrom fumehood.llm.openai_compatible import OpenAICompatible\n"
        "from fumehood.llm.port import UserMessage\nkind, url = sys.argv[1:]\n"
        "mistral = lambda: MistralModel('m', key='k', server_url=url)\nopenai = lambda: OpenAICompatible('m', base_url=url + '/v1')\n"
        "print((mistral if kind == 'mistral' else openai)().complete([UserMessage(text='q')]).text)"
    )
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:1") | {
        "NO_PROXY": "",
        "no_proxy": "",
    }
    with RawServer(whole({"content": "there"})) as server:
        words = [sys.executable, "-c", program, kind, server.url]
        done = subprocess.run(words, env={**os.environ, **proxies}, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("there\n", "")
