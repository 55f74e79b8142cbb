"""Requests are read strictly where they ask for something, and leniently where they only carry more."""

from __future__ import annotations

from typing import Any

import pytest

from fumehood.errors import ChatRequestInvalid
from fumehood.models.asking import TEMPERATURE, Named, read
from tests.models.conftest import RUN, asked

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "messages_missing": ({"messages": None}, "messages"),
    "messages_empty": ({"messages": []}, "messages"),
    "messages_as_text": ({"messages": "hello"}, "messages"),
    "message_as_text": ({"messages": ["hello"]}, "messages"),
    "two_answers": ({"n": 2}, "n"),
    "logprobs": ({"logprobs": True}, "logprobs"),
    "penalty": ({"frequency_penalty": 0.5}, "frequency_penalty"),
    "bias": ({"logit_bias": {"1": 2}}, "logit_bias"),
    "temperature_below": ({"temperature": -1}, "temperature"),
    "temperature_not_finite": ({"temperature": float("nan")}, "temperature"),
    "temperature_beyond_floats": ({"temperature": 10**400}, "temperature"),
    "share_beyond_floats": ({"top_p": -(10**400)}, "top_p"),
    "temperature_as_text": ({"temperature": "0"}, "temperature"),
    "temperature_as_flag": ({"temperature": True}, "temperature"),
    "no_share": ({"top_p": 0}, "top_p"),
    "no_tokens": ({"max_tokens": 0}, "max_tokens"),
    "half_a_token": ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
    "seed_as_text": ({"seed": "1"}, "seed"),
    "empty_stop": ({"stop": ["a", ""]}, "stop"),
    "many_stops": ({"stop": ["a"] * 17}, "stop"),
    "tools_as_object": ({"tools": {}}, "tools"),
    "tool_without_name": ({"tools": [{"type": "function", "function": {}}]}, "tools[0]"),
    "tool_of_another_kind": ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, "tools[0]"),
    "tool_offered_twice": ({"tools": [RUN, RUN]}, "tools"),
    "parameters_as_text": ({"tools": [{"function": {"name": "a", "parameters": "{}"}}]}, "tools[0]"),
    "forced_without_tools": ({"tool_choice": "required"}, "tool_choice"),
    "forced_unknown": ({"tools": [RUN], "tool_choice": {"function": {"name": "rm"}}}, "tool_choice"),
    "unknown_choice": ({"tools": [RUN], "tool_choice": "maybe"}, "tool_choice"),
    "parallel_as_text": ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
    "unknown_format": ({"response_format": {"type": "xml"}}, "response_format"),
    "format_without_schema": ({"response_format": {"type": "json_schema"}}, "response_format"),
    "json_and_a_forced_call": (
        {"tools": [RUN], "tool_choice": "any", "response_format": {"type": "json_object"}},
        "response_format",
    ),
}


@pytest.mark.parametrize(("fields", "param"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_done_is_refused_by_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ChatRequestInvalid) as caught:
        read(asked() | fields)
    assert caught.value.param == param
    assert str(caught.value).startswith(param)


def test_nulls_and_fields_that_nobody_knows_are_left_alone() -> None:
    nothing = dict.fromkeys(("tools", "tool_choice", "stop", "n", "seed", "max_tokens", "response_format", "logprobs"))
    ask = read({"messages": [{"role": "user"}], **nothing, "temperature": None, "zork": 1, "presence_penalty": 0.0})
    assert ask.sampling.temperature == TEMPERATURE
    assert (ask.tools, ask.choice, ask.schema, ask.sampling.stop) == ([], "auto", None, ())


def test_each_clients_words_for_the_same_are_known() -> None:
    assert read(asked(random_seed=3)).sampling.seed == read(asked(seed=3)).sampling.seed == 3
    assert read(asked(max_tokens=5)).sampling.max_tokens == 5
    assert read(asked(max_completion_tokens=6, max_tokens=5)).sampling.max_tokens == 6
    assert read(asked(tools=[RUN], tool_choice="any")).choice == "required"
    named = read(asked(tools=[RUN], tool_choice={"type": "function", "function": {"name": "exec_python"}}))
    assert named.choice == Named(name="exec_python")
    assert read(asked(stop="a")).sampling.stop == ("a",)
