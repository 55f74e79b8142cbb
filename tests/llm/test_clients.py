"""Both clients against real HTTP: what they send, what they make of answers, streamed and whole, and every failure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from fumehood.errors import ModelError, ModelMisbehaved, ModelRefused, ModelUnreachable
from fumehood.llm.mistral import MistralModel
from fumehood.llm.openai_compatible import OpenAICompatible
from fumehood.llm.port import (
    AssistantMessage,
    ChatModel,
    Completion,
    SystemMessage,
    ToolCall,
    ToolMessage,
    ToolSchema,
    UserMessage,
)
from tests.testing.chat_servers import ChatServer, Strange

TOOL = ToolSchema(name="exec_python", description="Run.", parameters={"type": "object", "properties": {}})
CODE = {"code": 'print("é[TOOL_CALLS]x")'}


@pytest.fixture(params=["openai", "mistral"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def client(kind: str, server: ChatServer, timeout_seconds: float = 10) -> ChatModel:
    if kind == "mistral":
        return MistralModel("m", key="secret-key", server_url=server.url, timeout_seconds=timeout_seconds)
    return OpenAICompatible("m", base_url=f"{server.url}/v1", key="secret-key", timeout_seconds=timeout_seconds)


Ask = Callable[..., tuple[Completion, list[str], ChatServer]]


@pytest.fixture
def ask(kind: str, streamed: bool) -> Ask:
    """Ask a server with this script once; return the answer, the pieces heard, and the server."""

    def run(*replies: Any, **options: Any) -> tuple[Completion, list[str], ChatServer]:
        heard: list[str] = []
        timeout_seconds = options.pop("timeout_seconds", 10)
        with ChatServer(*replies, mistral=kind == "mistral") as server:
            messages = options.pop("messages", [UserMessage(text="hi")])
            completion = client(kind, server, timeout_seconds).complete(
                messages, on_text=heard.append if streamed else None, **options
            )
        return completion, heard, server

    return run


def test_text_arrives_with_its_usage(ask: Ask, streamed: bool) -> None:
    completion, heard, server = ask({"text": "Grüße, 世界!"})
    assert (completion.text, completion.tool_calls, completion.finish_reason) == ("Grüße, 世界!", (), "stop")
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (11, 7)
    assert "".join(heard) == ("Grüße, 世界!" if streamed else "")
    assert server.keys == ["Bearer secret-key"]


def test_several_calls_in_a_turn_keep_their_order_and_ids(ask: Ask) -> None:
    calls = [{"name": "exec_python", "arguments": json.dumps(CODE)}, {"name": "other", "arguments": "{}"}]
    completion, _heard, _server = ask({"text": "Let me see.", "calls": calls}, tools=[TOOL])
    assert completion.text == "Let me see."
    assert [(call.id, call.name, call.parsed()) for call in completion.tool_calls] == [
        ("call00000", "exec_python", CODE),
        ("call00001", "other", {}),
    ]
    assert completion.finish_reason == "tool_calls"


@pytest.mark.parametrize("call_id", ["chatcmpl-tool-8a1f00112233aabb", "x"], ids=["long", "short"])
def test_ids_of_other_servers_become_nine_letters_and_digits(ask: Ask, call_id: str) -> None:
    calls = [{"name": "exec_python", "arguments": text, "id": call_id} for text in ("{}", '{"code": "1"}')]
    completion, _heard, _server = ask({"calls": calls}, tools=[TOOL])
    ids = [call.id for call in completion.tool_calls]
    assert len(set(ids)) == 2
    assert all(len(each) == 9 and each.isalnum() for each in ids)


def test_a_call_that_was_cut_off_says_length(ask: Ask, kind: str) -> None:
    reason = "model_length" if kind == "mistral" else "length"
    calls = [{"name": "exec_python", "arguments": '{"code": "pri'}]
    completion, _heard, _server = ask(
        {"calls": calls, "finish_reason": "length" if kind == "mistral" else reason}, tools=[TOOL]
    )
    assert completion.finish_reason == "length"
    with pytest.raises(ValueError, match="not JSON"):
        completion.tool_calls[0].parsed()


def test_history_is_sent_in_the_order_of_the_calls(ask: Ask, kind: str) -> None:
    calls = tuple(
        ToolCall(id=f"abcdefgh{n}", name="exec_python", arguments=text) for n, text in enumerate(("{}", "{broken"))
    )
    history = [
        SystemMessage(text="s"),
        UserMessage(text="u"),
        AssistantMessage(tool_calls=calls),
        ToolMessage(call_id="abcdefgh1", name="exec_python", text="second"),
        ToolMessage(call_id="abcdefgh0", name="exec_python", text="first"),
    ]
    _completion, _heard, server = ask({"text": "ok"}, messages=history, tools=[TOOL], json_object=True)
    sent = server.requests[0]
    assert [message["role"] for message in sent["messages"]] == ["system", "user", "assistant", "tool", "tool"]
    assert [message["content"] for message in sent["messages"][3:]] == ["first", "second"]
    # A server must not choke for ever on what a model once got wrong.
    assert all(json.loads(call["function"]["arguments"]) is not None for call in sent["messages"][2]["tool_calls"])
    assert ("name" in sent["messages"][3]) == (kind == "mistral")
    assert sent["response_format"]["type"] == "json_object"
    assert sent["tools"][0]["function"]["name"] == "exec_python"


def test_a_forced_call_is_asked_for_in_each_ones_words(ask: Ask, kind: str) -> None:
    _completion, _heard, server = ask(
        {"calls": [{"name": "exec_python", "arguments": "{}"}]}, tools=[TOOL], tool_choice="required"
    )
    assert server.requests[0]["tool_choice"] == ("any" if kind == "mistral" else "required")


def test_no_call_where_one_was_forced_is_the_models_fault(ask: Ask) -> None:
    with pytest.raises(ModelMisbehaved, match="made to call a tool"):
        ask({"text": "I would rather talk."}, tools=[TOOL], tool_choice="required")


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
def test_an_http_error_carries_the_servers_words_and_no_key(ask: Ask, status: int) -> None:
    with pytest.raises(ModelRefused, match=f"answered {status}: .*refused with {status}") as caught:
        ask(status)
    assert "secret-key" not in str(caught.value)


def test_a_server_that_never_answers_is_given_up(ask: Ask) -> None:
    with pytest.raises(ModelUnreachable, match="did not answer"):
        ask(Strange.NEVER, timeout_seconds=0.3)


@pytest.mark.parametrize("reply", [Strange.NO_CHOICES, Strange.GARBAGE], ids=["no_choices", "garbage"])
def test_an_answer_of_another_kind_is_the_models_fault(kind: str, reply: Strange) -> None:
    with ChatServer(reply, mistral=kind == "mistral") as server, pytest.raises(ModelError):
        client(kind, server).complete([UserMessage(text="hi")])


def test_a_stream_that_breaks_off_is_an_error_not_an_answer(kind: str) -> None:
    with ChatServer(Strange.HANG_UP, mistral=kind == "mistral") as server, pytest.raises(ModelError):
        client(kind, server).complete([UserMessage(text="hi")], on_text=lambda _piece: None)


def test_a_port_where_nobody_listens_is_said(kind: str) -> None:
    with ChatServer() as server:
        model = client(kind, server)
    with pytest.raises(ModelUnreachable):
        model.complete([UserMessage(text="hi")])


def test_arguments_as_an_object_and_missing_usage_are_taken() -> None:
    reply = {"calls": [{"name": "exec_python", "arguments": CODE}], "usage": False}
    with ChatServer(reply) as server:
        completion = client("openai", server).complete([UserMessage(text="hi")], tools=[TOOL])
    assert completion.tool_calls[0].parsed() == CODE
    assert completion.usage.prompt_tokens == 0


def test_content_in_parts_loses_its_thinking() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "answer"}]
    with ChatServer({"text": parts}, mistral=True) as server:
        assert client("mistral", server).complete([UserMessage(text="hi")]).text == "answer"


def test_no_http_client_is_loaded_before_it_is_used() -> None:
    program = (
        "import sys, fumehood.agent.loop, fumehood.llm.choose, fumehood.llm.mistral, fumehood.llm.openai_compatible\n"
        "print([name for name in ('httpx', 'pydantic', 'rich') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
