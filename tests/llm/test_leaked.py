"""Calls that a server left in the text: taken for calls only where nothing else is possible."""

from __future__ import annotations

from typing import Any

import pytest

from fumehood.llm.leaked import is_quoted, recovered
from fumehood.llm.port import AssistantMessage, Message, Quirk, SystemMessage, ToolCall, ToolMessage, UserMessage
from tests.llm.quirky_server import EVENTS, QUESTION, TOOL, QuirkyServer, Reply, ask, piece, stream
from tests.testing.raw_server import whole

CALL = '[TOOL_CALLS]exec_python[ARGS]{"code": "print(1)"}'
OFFERED = frozenset({"exec_python", "terminal"})


@pytest.fixture(params=["openai", "mistral"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[True, False], ids=["streamed", "whole"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def say(kind: str, streamed: bool, text: str, **options: Any) -> Any:
    finish = options.pop("finish_reason", "stop")
    pieces = [piece(content=text[start : start + 5]) for start in range(0, len(text), 5)]
    body = stream(*pieces, piece(finish)) if streamed else whole({"content": text}, finish_reason=finish)
    with QuirkyServer(Reply(body=body, kind=EVENTS if streamed else "application/json")) as server:
        return ask(kind, server, streamed=streamed, **options)


def test_a_call_in_the_text_is_made_one_and_not_shown(kind: str, streamed: bool) -> None:
    completion, heard = say(kind, streamed, CALL)
    assert [(call.name, call.parsed()) for call in completion.tool_calls] == [("exec_python", {"code": "print(1)"})]
    assert (completion.text, completion.finish_reason, heard) == ("", "tool_calls", [])
    assert completion.quirks == (Quirk.CALL_IN_TEXT,)


def test_words_before_a_call_stay_words(kind: str, streamed: bool) -> None:
    completion, heard = say(kind, streamed, f"Let me do [both].{CALL}{CALL}")
    assert (completion.text, len(completion.tool_calls)) == ("Let me do [both].", 2)
    assert "".join(heard) == ("Let me do [both]." if streamed else "")
    assert len({call.id for call in completion.tool_calls}) == 2


WHOLE_CALLS: dict[str, tuple[str, list[tuple[str, object]]]] = {
    "version_11": ('[TOOL_CALLS]terminal[CALL_ID]abcdefghi[ARGS]{"a": 1}', [("terminal", {"a": 1})]),
    "version_3": ('[TOOL_CALLS][{"name": "terminal", "arguments": {}, "id": "abcdefghi"}]', [("terminal", {})]),
    "two": ("[TOOL_CALLS]terminal[ARGS]{}[TOOL_CALLS]terminal[ARGS]{}", [("terminal", {}), ("terminal", {})]),
    "end_mark": ("[TOOL_CALLS]terminal[ARGS]{}</s>\n", [("terminal", {})]),
    "no_args_mark": ('[TOOL_CALLS]terminal{"a": "é"}', [("terminal", {"a": "é"})]),
    "mark_inside": (
        '[TOOL_CALLS]terminal[ARGS]{"a": "print(\'[TOOL_CALLS]exec_python[ARGS]{}\')"}',
        [("terminal", {"a": "print('[TOOL_CALLS]exec_python[ARGS]{}')"})],
    ),
}


@pytest.mark.parametrize(("text", "calls"), WHOLE_CALLS.values(), ids=WHOLE_CALLS.keys())
def test_all_notations_are_read(text: str, calls: list[tuple[str, object]]) -> None:
    found = recovered(text, OFFERED)
    assert found is not None
    assert list(found.calls) == calls


UNCERTAIN = {
    "prose": "The token [TOOL_CALLS] starts a call.",
    "prose_about_a_call": f"The notation is {CALL}",
    "on_a_line_of_its_own": f"The notation is:\n{CALL}",
    "code": f"The notation is `:{CALL}",
    "fence": f"```\n.{CALL}",
    "cut_off": CALL[:-3],
    "name_alone": "[TOOL_CALLS]exec_python",
    "nothing": "[TOOL_CALLS]",
    "another_tool": "[TOOL_CALLS]rm_rf[ARGS]{}",
    "one_of_another_tool": f"{CALL}[TOOL_CALLS]rm_rf[ARGS]{{}}",
    "words_behind": f"{CALL} and then we see.",
    "list": "[TOOL_CALLS]exec_python[ARGS][1]",
    "words_for_arguments": "[TOOL_CALLS]exec_python[ARGS]print(1)",
    "array_cut_off": '[TOOL_CALLS][{"name": "exec_python", "arguments": {}',
    "array_without_arguments": '[TOOL_CALLS][{"name": "exec_python"}]',
    "array_of_words": '[TOOL_CALLS]["exec_python"]',
    "empty_array": "[TOOL_CALLS][]",
    "deep": "[TOOL_CALLS]exec_python[ARGS]" + '{"a":' * 100_000,
    "inside_json": '{"code": "[TOOL_CALLS]exec_python[ARGS]{}"}',
    "very_many": "[TOOL_CALLS]exec_python[ARGS]{}" * 101,
}


@pytest.mark.parametrize("text", UNCERTAIN.values(), ids=UNCERTAIN.keys())
def test_what_may_be_something_else_stays_text(text: str) -> None:
    assert recovered(text, OFFERED) is None


STAYS = {name: UNCERTAIN[name] for name in ("prose", "prose_about_a_call", "cut_off")} | {
    "brackets": "[[TOOL_ [TOOL_CALLS",
    "sentence_then_cut_off": f"I see.{CALL[:-3]}",
}


@pytest.mark.parametrize("text", STAYS.values(), ids=STAYS.keys())
def test_text_that_stays_text_is_shown_and_noted(kind: str, streamed: bool, text: str) -> None:
    completion, heard = say(kind, streamed, text)
    assert (completion.text, completion.tool_calls) == (text, ())
    assert "".join(heard) == (text if streamed else "")
    assert completion.quirks == ((Quirk.MARK_IN_TEXT,) if "[TOOL_CALLS]" in text else ())


def test_words_without_a_mark_are_shown_at_once(kind: str) -> None:
    body = stream(*(piece(content=text) for text in ("a [", "b", " [TOOL", "_CALLS] c", " d")), piece("stop"))
    with QuirkyServer(Reply(body=body, kind=EVENTS)) as server:
        _completion, heard = ask(kind, server, streamed=True)
    assert heard == ["a ", "[b", " ", "[TOOL_CALLS] c", " d"]


def test_an_answer_that_was_cut_off_holds_no_call(kind: str, streamed: bool) -> None:
    completion, _heard = say(kind, streamed, CALL, finish_reason="length")
    assert (completion.tool_calls, completion.finish_reason) == ((), "length")


def test_no_call_is_looked_for_where_none_may_be_made(kind: str, streamed: bool) -> None:
    assert say(kind, streamed, CALL, tool_choice="none")[0].tool_calls == ()


QUOTED = ToolCall(id="abcdefghi", name="exec_python", arguments='{"code": "print(\'[TOOL_CALLS]\')"}')
ECHOES: dict[str, list[Message]] = {
    "system": [SystemMessage(text=CALL), *QUESTION],
    "user": [UserMessage(text="What does [TOOL_CALLS] mean?")],
    "result": [*QUESTION, AssistantMessage(tool_calls=(QUOTED.replace(arguments="{}"),)),
               ToolMessage(call_id="abcdefghi", name="exec_python", text=CALL)],
    "own_program": [*QUESTION, AssistantMessage(tool_calls=(QUOTED,)),
                    ToolMessage(call_id="abcdefghi", name="exec_python", text="")],
    "own_words": [*QUESTION, AssistantMessage(text=UNCERTAIN["prose"]), *QUESTION],
}  # fmt: skip


@pytest.mark.parametrize("messages", ECHOES.values(), ids=ECHOES.keys())
def test_a_model_that_was_shown_the_notation_may_be_repeating_it(
    kind: str, streamed: bool, messages: list[Message]
) -> None:
    completion, _heard = say(kind, streamed, CALL, messages=messages)
    assert (completion.text, completion.tool_calls) == (CALL, ())


def test_a_tool_that_speaks_of_the_notation_shows_it() -> None:
    assert is_quoted([], [TOOL.replace(parameters={"description": CALL})])
    assert is_quoted([], [TOOL.replace(description=CALL)])
    assert not is_quoted([], [TOOL])


def test_a_failed_attempt_of_its_own_is_no_echo(kind: str, streamed: bool) -> None:
    messages = [*QUESTION, AssistantMessage(text=UNCERTAIN["cut_off"]), UserMessage(text="Call the tool again.")]
    assert len(say(kind, streamed, CALL, messages=messages)[0].tool_calls) == 1
