"""What real servers do to answers, over real HTTP: taken where it is certain, and then noted."""

from __future__ import annotations

from typing import Any

import pytest

from fumehood.errors import ModelMisbehaved, ModelRefused
from fumehood.llm.answers import ends_early
from fumehood.llm.port import Completion, Quirk
from tests.llm.quirky_server import EVENTS, QuirkyServer, Reply, ask, piece, stream
from tests.testing.raw_server import whole

STREAMED, WHOLE = True, False


@pytest.fixture(params=["openai", "mistral"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def once(kind: str, body: bytes, *, streamed: bool = False, **options: Any) -> Completion:
    with QuirkyServer(Reply(body=body, kind=EVENTS if streamed else "application/json")) as server:
        return ask(kind, server, streamed=streamed, **options)[0]


def call(arguments: Any, *, call_id: str = "abcdefghi", name: str = "exec_python", **more: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def calling(*calls: dict[str, Any], finish_reason: str | None = "tool_calls") -> bytes:
    return whole({"content": None, "tool_calls": list(calls)}, finish_reason=finish_reason)


# Fields that are null, or of another type


def test_null_fields_of_a_delta_are_nothing(kind: str) -> None:
    body = stream(
        piece(role="assistant", content=None, tool_calls=None),
        piece(content="hi", tool_calls=None),
        piece("stop"),
        None,
    )
    completion = once(kind, body, streamed=True)
    assert (completion.text, completion.tool_calls, completion.notes) == ("hi", (), ())
    assert completion.usage.completion_tokens == 4


def test_a_delta_that_is_null_is_nothing(kind: str) -> None:
    body = stream(piece(content="hi"), {"delta": None, "finish_reason": None}, {"delta": None, "finish_reason": "stop"})
    assert once(kind, body, streamed=True).text == "hi"


def test_null_arguments_of_a_piece_add_nothing(kind: str) -> None:
    begun = {"index": 0, "id": "abcdefghi", "function": {"name": "exec_python", "arguments": None}}
    pieces = [begun, {"index": 0, "function": {"name": None, "arguments": '{"code"'}}]
    pieces.append({"index": 0, "id": None, "type": None, "function": {"arguments": ': "1"}'}})
    completion = once(kind, stream(*(piece(tool_calls=[each]) for each in pieces), piece("tool_calls")), streamed=True)
    assert [each.parsed() for each in completion.tool_calls] == [{"code": "1"}]


@pytest.mark.parametrize("streamed", [STREAMED, WHOLE], ids=["streamed", "whole"])
def test_arguments_as_an_object_are_as_good_as_text(kind: str, streamed: bool) -> None:
    one = call({"code": "print('é[TOOL_CALLS]')"}, index=0)
    body = stream(piece(tool_calls=[one]), piece("tool_calls")) if streamed else calling(one)
    completion = once(kind, body, streamed=streamed)
    assert [each.parsed() for each in completion.tool_calls] == [{"code": "print('é[TOOL_CALLS]')"}]
    assert (completion.finish_reason, completion.notes) == ("tool_calls", ())


@pytest.mark.parametrize("arguments", [[], 0, False], ids=["list", "number", "false"])
def test_arguments_of_another_type_do_not_pass_for_none(kind: str, arguments: object) -> None:
    (one,) = once(kind, calling(call(arguments))).tool_calls
    with pytest.raises(ValueError, match="not a JSON object"):
        one.parsed()


# Cut off


CUT = [
    '{"command',
    '{"code": "print(',
    '{"code": "a\\',
    '{"code": "\\u00',
    '{"a": tr',
    '{"a": 1.',
    "{",
    '{"a": [1, 2',
    '{"a": "b",',
]


@pytest.mark.parametrize("arguments", CUT)
def test_a_call_that_was_cut_off_says_so_whatever_the_server_says(kind: str, arguments: str) -> None:
    completion = once(kind, calling(call(arguments)))
    assert completion.finish_reason == "length"
    assert completion.quirks == (Quirk.CALL_CUT_OFF,)


@pytest.mark.parametrize(
    "arguments", ["", "{}", '{"a": "}"}', "{'a': 1}", '{"a": print}', '{"a": "b\nc"}', "[1", "print(1)"]
)
def test_what_is_whole_or_otherwise_wrong_is_not_called_cut_off(arguments: str) -> None:
    assert not ends_early(arguments)


def test_no_call_is_made_of_a_marker_inside_an_argument(kind: str) -> None:
    # As vLLM splits print('[TOOL_CALLS]rm{}').
    split = [call('{"code": "print(\''), call("{}", call_id="bcdefghij", name="exec_python")]
    completion = once(kind, calling(*split))
    assert (completion.finish_reason, completion.quirks) == ("length", (Quirk.CALL_SPLIT,))


@pytest.mark.parametrize("finish_reason", ["stop", "tool_calls", "length"])
def test_text_that_is_empty_is_no_call_and_no_error(kind: str, finish_reason: str) -> None:
    completion = once(kind, whole({"content": ""}, finish_reason=finish_reason))
    assert (completion.text, completion.tool_calls, completion.notes) == ("", (), ())
    assert completion.finish_reason == ("length" if finish_reason == "length" else "stop")


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_answer_that_was_aborted_is_none(kind: str, reason: str) -> None:
    with pytest.raises(ModelMisbehaved, match=reason):
        once(kind, whole({"content": "half"}, finish_reason=reason))


def test_a_forced_call_that_was_cut_off_before_it_began_is_an_answer_that_was_cut_off(kind: str) -> None:
    completion = once(kind, whole({"content": "I will"}, finish_reason="length"), tool_choice="required")
    assert (completion.finish_reason, completion.tool_calls) == ("length", ())


# Missing finish reasons


def test_an_answer_that_came_whole_needs_no_finish_reason(kind: str) -> None:
    completion = once(kind, whole({"content": "hi"}, finish_reason=None))
    assert (completion.text, completion.finish_reason) == ("hi", "stop")
    assert completion.quirks == (Quirk.NO_FINISH_REASON,)


ENDS = {
    "tokens": stream(piece(content="hi"), None, done=False),
    "mark": stream(piece(content="hi")),
    "both": stream(piece(content="hi"), None),
}


@pytest.mark.parametrize("body", ENDS.values(), ids=ENDS.keys())
def test_the_count_of_tokens_and_the_end_mark_end_a_stream_too(kind: str, body: bytes) -> None:
    completion = once(kind, body, streamed=True)
    assert (completion.text, completion.finish_reason) == ("hi", "stop")
    assert completion.quirks == (Quirk.NO_FINISH_REASON,)


def test_a_stream_that_just_ends_is_no_answer(kind: str) -> None:
    with pytest.raises(ModelMisbehaved, match="stopped in the middle of its answer"):
        once(kind, stream(piece(content="hi"), done=False), streamed=True)


@pytest.mark.parametrize(
    ("arguments", "finish"), [('{"code": "1"}', "tool_calls"), ("{}", "length"), ('{"c', "length")]
)
def test_without_a_finish_reason_only_whole_calls_count(kind: str, arguments: str, finish: str) -> None:
    completion = once(kind, calling(call(arguments), finish_reason=None))
    assert completion.finish_reason == finish
    assert completion.notes


# Whole where a stream was asked for


def test_an_answer_that_comes_whole_where_a_stream_was_asked_for_is_taken(kind: str) -> None:
    body = whole({"content": "Let me see.", "tool_calls": [call('{"code": "1"}')]}, finish_reason="tool_calls")
    with QuirkyServer(Reply(body=body, kind="application/json; charset=utf-8")) as server:
        completion, heard = ask(kind, server, streamed=True)
        assert len(server.requests) == 1
    assert ("".join(heard), completion.text) == ("Let me see.", "Let me see.")
    assert [each.parsed() for each in completion.tool_calls] == [{"code": "1"}]
    assert completion.usage.prompt_tokens == 1
    assert completion.quirks == (Quirk.CAME_WHOLE,)


def test_a_whole_answer_in_one_event_is_taken(kind: str) -> None:
    body = b"data: " + whole({"content": "hi"}) + b"\n\ndata: [DONE]\n\n"
    assert once(kind, body, streamed=True).text == "hi"


def test_a_stream_that_comes_where_a_whole_answer_was_asked_for_is_taken(kind: str) -> None:
    completion = once(kind, stream(piece(content="h"), piece(content="i"), piece("stop"), None))
    assert (completion.text, completion.usage.completion_tokens) == ("hi", 4)
    assert completion.quirks == (Quirk.CAME_STREAMED,)


def test_a_stream_under_jsons_name_is_still_a_stream(kind: str) -> None:
    with QuirkyServer(Reply(body=stream(piece(content="hi"), piece("stop")))) as server:
        completion, heard = ask(kind, server, streamed=True)
    assert (heard, completion.text, completion.notes) == (["hi"], "hi", ())


@pytest.mark.parametrize("body", [b'{"error": {"message": "no such model"}}', b'{"error": "no such model"}'])
def test_an_error_under_status_200_keeps_its_words(kind: str, body: bytes) -> None:
    with QuirkyServer(Reply(body=body)) as server, pytest.raises(ModelRefused, match="refused: no such model"):
        ask(kind, server, streamed=True)


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"choices": [7]}', b'{"choices": null}'])
def test_json_that_is_no_answer_is_said_where_a_stream_was_asked_for(kind: str, body: bytes) -> None:
    with QuirkyServer(Reply(body=body)) as server, pytest.raises(ModelMisbehaved):
        ask(kind, server, streamed=True)


# Calls that come twice, or unasked


def test_a_call_that_comes_twice_under_its_id_is_one(kind: str) -> None:
    completion = once(kind, calling(call('{"code": "1"}'), call('{"code": "1"}')))
    assert len(completion.tool_calls) == 1
    assert completion.quirks == (Quirk.CALL_REPEATED,)


def test_the_same_call_under_two_ids_is_two(kind: str) -> None:
    completion = once(kind, calling(call('{"code": "1"}'), call('{"code": "1"}', call_id="bcdefghij")))
    assert (len(completion.tool_calls), completion.notes) == (2, ())


def test_a_stream_that_repeats_a_call_at_its_end_makes_one(kind: str) -> None:
    one = piece(tool_calls=[call('{"code": "1"}', index=0)])
    completion = once(kind, stream(one, one, piece("tool_calls")), streamed=True)
    assert [each.parsed() for each in completion.tool_calls] == [{"code": "1"}]
    assert completion.quirks == (Quirk.CALL_REPEATED,)


def test_a_stream_that_repeats_the_name_in_each_piece_makes_one_call(kind: str) -> None:
    pieces = [piece(tool_calls=[call(text)]) for text in ('{"code"', ': "1"}')]
    completion = once(kind, stream(*pieces, piece("tool_calls")), streamed=True)
    assert [each.parsed() for each in completion.tool_calls] == [{"code": "1"}]


@pytest.mark.parametrize("name", ["exec_python[ARGS]", " exec_python", "exec_python[CALL_ID]abcdefghi[ARGS]"])
def test_marks_behind_the_name_of_a_tool_are_taken_off(kind: str, name: str) -> None:
    assert once(kind, calling(call("{}", name=name))).tool_calls[0].name == "exec_python"
    # Of a tool that nobody offered the name stays as it came.
    assert once(kind, calling(call("{}", name=f"x{name}"))).tool_calls[0].name == f"x{name}"


def test_a_call_where_none_was_allowed_is_left_out(kind: str) -> None:
    body = whole({"content": "words", "tool_calls": [call('{"code": "1"}')]}, finish_reason="tool_calls")
    completion = once(kind, body, tool_choice="none")
    assert (completion.text, completion.tool_calls, completion.finish_reason) == ("words", (), "stop")
    assert completion.quirks == (Quirk.CALL_NOT_ALLOWED,)
