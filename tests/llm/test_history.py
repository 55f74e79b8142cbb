"""What a conversation looks like when it reaches a server: sound ones as they are, others mended, so that none is refused for ever."""

from __future__ import annotations

import pytest

from fumehood.llm.history import as_dicts, mended
from fumehood.llm.port import (
    AssistantMessage,
    Message,
    Quirk,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from tests.llm.quirky_server import QuirkyServer, Reply, ask
from tests.testing.raw_server import whole

SYSTEM, USER = SystemMessage(text="s"), UserMessage(text="u")
ONE, TWO = (ToolCall(id=f"abcdefgh{n}", name="exec_python", arguments="{}") for n in (1, 2))


def calls(*each: ToolCall, text: str = "") -> AssistantMessage:
    return AssistantMessage(text=text, tool_calls=each)


def result(call: ToolCall, text: str = "r") -> ToolMessage:
    return ToolMessage(call_id=call.id, name=call.name, text=text)


SOUND: dict[str, list[Message]] = {
    "question": [SYSTEM, USER],
    "two_systems": [SYSTEM, SYSTEM, USER],
    "calls": [SYSTEM, USER, calls(ONE, TWO), result(ONE), result(TWO)],
    "turns": [USER, calls(ONE), result(ONE), AssistantMessage(text="a"), USER],
    "ids_again": [USER, calls(ONE), result(ONE), calls(ONE), result(ONE)],
}


@pytest.mark.parametrize("messages", SOUND.values(), ids=SOUND.keys())
def test_a_sound_history_is_sent_as_it_is(messages: list[Message]) -> None:
    assert mended(messages) == (messages, ())


def test_results_follow_in_the_order_of_the_calls() -> None:
    messages, notes = mended([USER, calls(ONE, TWO), result(TWO, "2"), result(ONE, "1")])
    assert [message.text for message in messages[2:]] == ["1", "2"]
    assert notes == ()


LONG = ONE.replace(id="chatcmpl-tool-8a1f00112233aabb")
BROKEN: dict[str, tuple[list[Message], list[str], str]] = {
    "tool_user": (
        [USER, calls(ONE), result(ONE), USER],
        ["user", "assistant", "tool", "assistant", "user"],
        "between a result and the user's words",
    ),
    "no_result": ([USER, calls(ONE, TWO), result(TWO)], ["user", "assistant", "tool", "tool"], "without a result"),
    "no_result_then_user": (
        [USER, calls(ONE), USER],
        ["user", "assistant", "tool", "assistant", "user"],
        "without a result",
    ),
    "orphan": ([USER, result(ONE)], ["user"], "result of no call"),
    "late_result": (
        [USER, calls(ONE), result(ONE), AssistantMessage(text="a"), result(ONE)],
        ["user", "assistant", "tool", "assistant"],
        "result of no call",
    ),
    "second_result": ([USER, calls(ONE), result(ONE), result(ONE)], ["user", "assistant", "tool"], "second result"),
    "same_id_twice": ([USER, calls(ONE, ONE), result(ONE)], ["user", "assistant", "tool"], "the same id"),
    "users_in_a_row": ([USER, USER], ["user"], "joined"),
    "assistants_in_a_row": (
        [USER, AssistantMessage(text="a"), calls(ONE, text="b"), result(ONE)],
        ["user", "assistant", "tool"],
        "joined",
    ),
    "late_system": ([USER, AssistantMessage(text="a"), SYSTEM], ["user", "assistant", "user"], "sent as the user's"),
}


@pytest.mark.parametrize(("messages", "roles", "said"), BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("kind", ["openai", "mistral"])
def test_a_history_that_servers_refuse_is_mended_and_that_is_said(
    kind: str, messages: list[Message], roles: list[str], said: str
) -> None:
    with QuirkyServer(Reply(body=whole({"content": "ok"}))) as server:
        completion, _heard = ask(kind, server, messages=messages)
    sent = server.requests[0]["messages"]
    assert [message["role"] for message in sent] == roles
    assert all(message["content"] or message.get("tool_calls") for message in sent)
    assert said in " ".join(note.words for note in completion.notes)
    assert set(completion.quirks) == {Quirk.HISTORY_MENDED}


def test_what_is_mended_is_sound() -> None:
    for messages, _roles, _said in BROKEN.values():
        once, _notes = mended(messages)
        assert mended(once) == (once, ())


def test_joined_words_are_all_sent() -> None:
    messages, _notes = mended(
        [UserMessage(text="a"), UserMessage(text="b"), AssistantMessage(), AssistantMessage(text="c")]
    )
    assert [message.text for message in messages] == ["a\n\nb", "c"]


def test_an_id_of_another_form_is_replaced_by_the_same_each_time() -> None:
    (_user, assistant, tool), notes = mended([USER, calls(LONG), result(LONG)])
    assert isinstance(assistant, AssistantMessage)
    assert isinstance(tool, ToolMessage)
    assert assistant.tool_calls[0].id == tool.call_id != LONG.id
    assert len(tool.call_id) == 9
    assert notes == ()
    assert mended([USER, calls(LONG), result(LONG)])[0][2] == tool


def test_a_call_that_was_never_run_is_said_to_the_model_in_words() -> None:
    messages, _notes = mended([USER, calls(ONE)])
    assert "was not run" in messages[2].text


@pytest.mark.parametrize("text", ["", " \n"], ids=["empty", "blank"])
def test_an_answer_of_nothing_is_sent_as_words(text: str) -> None:
    (message,) = as_dicts([AssistantMessage(text=text)], named_results=False)
    assert message == {"role": "assistant", "content": "(no answer)"}
