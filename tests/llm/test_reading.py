"""Whatever JSON a server sends ends as an answer or as one of two things that the client puts into words."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fumehood.errors import ModelMisbehaved
from fumehood.llm.answers import Answer, Asked
from fumehood.llm.port import CALL_ID, Completion
from fumehood.llm.reading import Malformed, Refusal, add_piece, add_whole, object_in

TEXTS = st.sampled_from(["", "exec_python", "stop", "length", "null", "{}", '{"a": 1}', '{"a', "[TOOL_CALLS]",
                         "[TOOL_CALLS]exec_python[ARGS]{}", "\ud800", "abcdefghi"])  # fmt: skip
ODD: list[Any] = [None, True, False, 0, -1, 1.5, 10**30, float("nan"), "", "x", [], [None], [[]], [{}], [7], {}, {"a": 1},
                  {"text": "x"}, [{"text": "x"}, {"text": 7}], {"message": "m"}, {"prompt_tokens": "7"}, "\ud83d"]  # fmt: skip
ANYTHING = st.sampled_from(ODD)


def nearly(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw an object of the right form, of which any part may be something else, or missing."""
    return st.fixed_dictionaries(
        {}, optional={name: st.one_of(field, field, field, ANYTHING) for name, field in fields.items()}
    )


CALLS = st.lists(nearly(id=TEXTS, index=st.integers(0, 2), function=nearly(name=TEXTS, arguments=TEXTS)), max_size=3)
MESSAGE = nearly(role=TEXTS, content=TEXTS, tool_calls=CALLS)
PIECE = nearly(
    choices=st.lists(nearly(delta=MESSAGE, message=MESSAGE, finish_reason=TEXTS), max_size=2), usage=ANYTHING
)
ASKED = st.builds(
    Asked,
    model=st.just("m"),
    tool_choice=st.sampled_from(["auto", "none", "required"]),
    offered=st.sampled_from([frozenset(), frozenset({"exec_python"})]),
)


def judged(answer: Answer, add: Callable[[dict[str, Any], Answer], object], values: list[Any]) -> Completion | None:
    with contextlib.suppress(Malformed, Refusal, ModelMisbehaved):
        for value in values:
            add(object_in(json.dumps(value).encode()), answer)
        return answer.completion()
    return None


def check(completion: Completion | None, heard: list[str]) -> None:
    if completion is None:
        return
    ids = [call.id for call in completion.tool_calls]
    assert all(CALL_ID.fullmatch(each) for each in ids)
    assert len(set(ids)) == len(ids)
    for text in (completion.text, *heard, *(f"{call.name}{call.arguments}" for call in completion.tool_calls)):
        text.encode()
    if completion.finish_reason == "tool_calls":
        assert completion.tool_calls
    if completion.finish_reason == "stop":
        assert not completion.tool_calls


@settings(deadline=None)
@given(ASKED, st.lists(PIECE, max_size=3))
def test_any_stream_is_an_answer_or_a_typed_failure(asked: Asked, values: list[Any]) -> None:
    heard: list[str] = []
    check(judged(Answer(asked, heard.append), add_piece, values), heard)


@settings(deadline=None)
@given(ASKED, PIECE)
def test_any_whole_answer_is_one_or_a_typed_failure(asked: Asked, value: Any) -> None:
    check(judged(Answer(asked), add_whole, [value]), [])
