"""The loop of the model card's tests: a conversation with six tools that are executed, until the model has no more calls."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..protocol.record import Record
from .asking import assistant, called, result, tools
from .reading import Answer, answer, quote
from .talk import SENTENCE
from .verdicts import Failed, NeedsRealWeights

if TYPE_CHECKING:
    from .asking import Messages
    from .talk import Talk

#: The card's.
TEMPERATURE = 0.15
NAME = "Devstral-Small-2-24B-Instruct-2512"
#: Far from every day on which a model may think that it lives.
TODAY, YESTERDAY = "2031-03-14", "2031-03-13"
#: Where none is given: what the card's tests ask for, in few words.
_TEMPLATE = (
    "You are {name}, a language model made by Mistral AI, a company from Paris. Today's date is {today}, yesterday was "
    "{yesterday}. Answer in Markdown. Call the tools that you have where they help; where they do not, answer at once."
)
_MOST_TURNS = 12

#: A tool's name, and its two numbers.
Operation = tuple[str, float, float]
_MOST_TOKENS = 4096
#: So many tokens have seldom more than five characters each. What is searched in them may take the square of their number.
_MOST_CHARACTERS = 60_000
_MOST_CALLS = 8


class Turn(Record):
    """One answer, and the results of its calls in their order."""

    answer: Answer
    results: tuple[str, ...] = ()


def system(talk: Talk) -> dict[str, Any]:
    """Return the system prompt's message, its template filled in."""
    values = {"name": NAME, "today": TODAY, "yesterday": YESTERDAY}
    template = _TEMPLATE if talk.setup.system_prompt is None else talk.setup.system_prompt

    # Not by str.format: a template that somebody else wrote could reach into objects by it.
    def filled(found: re.Match[str]) -> str:
        return found[0][0] if found[1] is None else values[found[1]]

    return {"role": "system", "content": re.sub(r"\{\{|\}\}|\{(name|today|yesterday)\}", filled, template)}


def needs_a_model(talk: Talk) -> None:
    """Raise `NeedsRealWeights` where the model does not even repeat a sentence: the card's tests would say nothing of it."""
    said = talk.repeated()
    if SENTENCE not in (said or ""):
        raise NeedsRealWeights(f"asked to repeat {quote(SENTENCE)}, the model says {quote(said, 80)}")


def play(talk: Talk, messages: Messages, *, streamed: bool) -> list[Turn]:
    """Hold the conversation to its end, and return its turns; the last one calls nothing.

    Raises `Failed` for what no right server and model do, whatever was asked: calls without end, an answer that is cut,
    control tokens in a text, a reason that does not fit.
    """
    said, turns = list(messages), list[Turn]()
    for _turn in range(_MOST_TURNS):
        told = answer(ask(talk, said, streamed=streamed))
        where = f"{told.way}, answer {len(turns) + 1}"
        if len(told.content or "") > _MOST_CHARACTERS:
            raise Failed(f"{where}: {len(told.content or '')} characters came, where max_tokens was {_MOST_TOKENS}")
        if told.marker:
            raise Failed(f"{where}: {told.marker} stands in the content: {quote(told.content)}")
        if told.finish_reason not in (("tool_calls",) if told.calls else ("stop",)):
            raise Failed(f"{where}: with {len(told.calls)} calls the reason is {quote(told.finish_reason)}")
        if not told.calls:
            return [*turns, Turn(answer=told)]
        if len(told.calls) > _MOST_CALLS:
            raise Failed(f"{where}: {len(told.calls)} calls at once, where none of the questions needs more than five")
        results = tuple(talk.toolbox().execute(call) for call in called(told, "a tool").calls)
        turns.append(Turn(answer=told, results=results))
        said += _turn_as_messages(turns[-1])
    raise Failed(f"after {_MOST_TURNS} answers the model still calls: {quote(_names(turns)[-3:])}")


def ask(talk: Talk, messages: Messages, *, streamed: bool, **fields: Any) -> Any:
    """Ask as the card does, with its tools; the longest answer is what fits, for the card's 262,144 tokens fit nowhere."""
    asking = talk.streamed if streamed else talk.whole
    settings = {
        "temperature": TEMPERATURE,
        "max_tokens": _MOST_TOKENS,
        "tools": tools(),
        "tool_choice": "auto",
        **fields,
    }
    return asking(messages, **settings)


def _turn_as_messages(turn: Turn) -> Messages:
    calls = [(call.id, str(call.name), str(call.arguments)) for call in turn.answer.calls]
    for id_, name, _arguments in calls:
        if not isinstance(id_, str) or not id_:
            raise Failed(f"{turn.answer.way}: the call of {name} has the id {quote(id_)}: no result can be given to it")
    results = [result(id_, told) for (id_, _name, _arguments), told in zip(calls, turn.results, strict=True)]
    return [assistant(turn.answer.content or "", *calls), *results]


def _names(turns: list[Turn]) -> list[str]:
    return [str(call.name) for turn in turns for call in turn.answer.calls]


def operations(turns: list[Turn]) -> list[tuple[int, Operation]]:
    """Return the number of each turn, with each sum that was asked for in it. The two numbers of a sum or product are in order."""
    found = []
    for number, turn in enumerate(turns):
        for call in turn.answer.calls:
            given = call.value()
            try:
                one, other = float(given.get("a", "")), float(given.get("b", ""))
            except (TypeError, ValueError, OverflowError):
                raise Failed(f"{call.name} was called with {quote(given)}: no two numbers") from None
            if call.name != "substract_number":
                one, other = sorted((one, other))
            found.append((number, (str(call.name), one, other)))
    return found
