"""Family C, the second part: who decides whether a tool is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..asking import STORY, call_exactly, called, repeat, tools, user
from ..check import Family, Severity
from ..reading import Answer, answer, quote
from ..verdicts import Failed, NeedsRealWeights, Skipped

if TYPE_CHECKING:
    from ..talk import Talk

CHOICE = Family("Choice of tools")


@CHOICE.check(
    "C11a",
    name="choice-none",
    proves="with tool_choice none nothing is called, and no call leaks into the text",
    oracle="the card's first question, which brings a call where nothing forbids it, gives text without control tokens",
    severity=Severity.MAJOR,
    meaning="An agent that asks for a summary gets a call that it does not execute, or the call's source text.",
    cure="Leave the tools out of such requests.",
    issues=("ollama/ollama#17921",),
)
def _choice_none(talk: Talk) -> str:
    for told in talk.both([user(STORY)], tools=tools(), tool_choice="none"):
        if told.calls:
            raise Failed(f"{told.way}: {quote(told.calls[0].name)} is called")
        if told.marker:
            raise Failed(f"{told.way}: the call leaks into the content: {quote(told.content)}")
    called(answer(talk.whole([user(STORY)], tools=tools())), "write_a_story")
    return "text alone"


@CHOICE.check(
    "C11b",
    name="choice-required",
    proves="with tool_choice required something is called",
    oracle="asked to repeat a sentence, the answer is a call",
    severity=Severity.MAJOR,
    meaning="An agent that must have a call gets prose, and has to ask again.",
    cure="Take a server that holds the model to it by a grammar (vLLM, llama-server), or a prompt that insists.",
    issues=("ollama/ollama#17921", "ollama/ollama#8421", "ollama/ollama#11171"),
)
def _choice_required(talk: Talk) -> str:
    for told in talk.both(repeat("The sky is blue."), tools=tools("write_a_story"), tool_choice="required"):
        _called_or_cut(told)
    return "called, whole and streamed"


@CHOICE.check(
    "C11c",
    name="choice-named",
    proves="with a tool named in tool_choice that one is called",
    oracle="asked for a story with python named, the call is of python",
    severity=Severity.MAJOR,
    meaning="The agent gets another tool's call, with arguments that do not fit.",
    cure="Offer the one tool alone, and ask with required.",
)
def _choice_named(talk: Talk) -> str:
    named = {"type": "function", "function": {"name": "python"}}
    for told in talk.both([user(STORY)], tools=tools("write_a_story", "python"), tool_choice=named):
        _called_or_cut(told, "python")
    return "called, whole and streamed"


@CHOICE.check(
    "C11d",
    name="choice-any",
    proves="Mistral's older word for required, any, is kept or refused in so many words",
    oracle="the answer is a call, or an error of the class 4xx",
    severity=Severity.MINOR,
    meaning="Programs written for Mistral's API get prose, or believe that the server is broken.",
    cure="Send required.",
)
def _choice_any(talk: Talk) -> str:
    asked = talk.whole(repeat("The sky is blue."), tools=tools("write_a_story"), tool_choice="any")
    if 400 <= asked.status < 500:
        raise Skipped(f"the server does not know it and says so: {asked.status} {quote(asked.text, 80)}")
    _called_or_cut(answer(asked))
    return "kept"


def _called_or_cut(told: Answer, name: str = "") -> None:
    # Without a name any call will do: whether an offered tool was called is C7's matter.
    if name and any(call.name != name for call in told.calls):
        raise Failed(f"{told.way}: {quote([call.name for call in told.calls])} was called and not {name}")
    if told.calls and not told.cut:
        for call in told.calls:
            call.value()
    if told.calls:
        return
    if told.cut:
        raise NeedsRealWeights(f"{told.way}: the answer was cut before it held a call")
    raise Failed(f"{told.way}: nothing was called; the content is {quote(told.content)}")


@CHOICE.check(
    "C12",
    name="one-call-at-a-time",
    proves="with parallel_tool_calls false an answer holds one call",
    oracle="a question that brings two calls brings one with it",
    severity=Severity.MINOR,
    meaning="An agent that takes calls one by one drops the second, and the model waits for its result.",
    cure="Execute all calls of an answer, in order.",
)
def _one_call_at_a_time(talk: Talk) -> str:
    asked = call_exactly(("add_number", {"a": "1", "b": "2"}), ("multiply_number", {"a": "3", "b": "4"}))
    sums = tools("add_number", "multiply_number")
    if max(len(told.calls) for told in talk.both(asked, tools=sums)) < 2:
        raise NeedsRealWeights("asked for two calls at once, the model made none or one")
    for told in talk.both(asked, tools=sums, parallel_tool_calls=False):
        if len(told.calls) > 1:
            raise Failed(f"{told.way}: {len(told.calls)} calls")
    return "one call where there were two"
