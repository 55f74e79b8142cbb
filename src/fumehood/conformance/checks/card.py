"""Family T: the five tests that the model's card gives, to see whether a server's whole work is right, and one more."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from ..asking import SMALL_TALK, STORY, WEB_SERVER, tools, user
from ..card import TODAY, ask, needs_a_model, operations, play, system
from ..check import Family, Severity
from ..drawing import equations
from ..filling import FULL, filled, within
from ..reading import Answer, answer, quote
from ..verdicts import Failed, Skipped
from .exact import exact
from .identity import declared_context

if TYPE_CHECKING:
    from ..asking import Messages
    from ..card import Operation, Turn
    from ..talk import Talk

CARD = Family("The model card's tests")

#: Whole, and streamed.
_WAYS = (False, True)


@CARD.check(
    "T1",
    name="card-one-tool",
    proves="a question that needs a tool brings its call, and the result brings the answer",
    oracle="the card's first test: write_a_story is called once, without arguments; then a story, and no call",
    severity=Severity.CRITICAL,
    meaning="An agent does not get through its simplest turn with this server.",
    cure="See what fails of C and P first; a server that passes those and fails here has a template of another model.",
)
def _one_tool(talk: Talk) -> str:
    needs_a_model(talk)
    for streamed in _WAYS:
        turns = play(talk, [system(talk), user(STORY)], streamed=streamed)
        way = turns[0].answer.way
        calls = [(call.name, call.value()) for turn in turns for call in turn.answer.calls]
        if not calls:
            raise Failed(f"{way}: no tool is called; the answer is {quote(turns[0].answer.content, 80)}")
        if calls != [("write_a_story", {})]:
            raise Failed(f"{way}: called are {quote(calls)}, and not write_a_story once, with nothing")
        if not (turns[-1].answer.content or "").strip():
            raise Failed(f"{way}: after the tool's result the answer is empty")
    return f"called once, then {quote(turns[-1].answer.content, 60)}"


#: What the two equations need, the numbers of sums and products in order; each with what must have been computed before.
_OPERATIONS = {
    ("multiply_number", 2.0, 3.0): None,
    ("add_number", 6.0, 6.0): ("multiply_number", 2.0, 3.0),
    ("add_number", 2.0, 8.0): None,
    ("substract_number", 19.0, 10.0): ("add_number", 2.0, 8.0),
    ("add_number", 1.0, 9.0): ("substract_number", 19.0, 10.0),
}


@CARD.check(
    "T2",
    name="card-one-at-a-time",
    proves="a picture is seen, and calls that build on each other come one after the other",
    oracle="the card's second test on a drawn picture: five operations, each after the one it needs and with words beside it, and "
    "12 and 10 at the end",
    severity=Severity.MAJOR,
    meaning="The model does not see what it is shown, or guesses results that a tool was to give.",
    cure="See P9 for the picture, C4 for words beside calls, P6 for results; else the template is another model's.",
)
def _one_at_a_time(talk: Talk) -> str:
    url, cost = equations()
    question = (
        "Compute the results steps by steps for the equations that involve only numbers displayed in the image. You have to "
        "call tools to perform the operations and can do one operation at a time per equation."
    )
    seen = user([{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}])
    asked = ask(talk, [system(talk), seen], streamed=False, max_tokens=1)
    if 400 <= asked.status < 500:
        raise Skipped(f"the server takes no images and says so: {asked.status} {quote(asked.text, 80)}")
    needs_a_model(talk)
    blind = [system(talk), user([{"type": "text", "text": question}])]
    there = answer(asked).spent("prompt_tokens")
    if there is not None and there - talk.prompt_tokens(blind, tools=tools()) != cost:
        difference = there - talk.prompt_tokens(blind, tools=tools())
        raise Failed(f"the picture costs {difference} tokens and not {cost}: the model does not see it as it is")
    for streamed in _WAYS:
        turns = play(talk, [system(talk), seen], streamed=streamed)
        _check_operations(turns)
    return "five operations in order, then 12 and 10"


def _check_operations(turns: list[Turn]) -> None:
    way = turns[0].answer.way
    when: dict[Operation, int] = {}
    for number, key in operations(turns):
        if key not in _OPERATIONS or key in when:
            raise Failed(f"{way}: {_words(key)} is none of the picture's operations, or was computed before")
        needed = _OPERATIONS[key]
        if needed is not None and when.get(needed, number) >= number:
            raise Failed(f"{way}: {_words(key)} is asked for before {_words(needed)} is known")
        when[key] = number
    missing = [_words(key) for key in _OPERATIONS if key not in when]
    if missing:
        raise Failed(f"{way}: never computed: {'; '.join(missing)}")
    for number, turn in enumerate(turns[:-1], 1):
        if not (turn.answer.content or "").strip():
            raise Failed(
                f"{way}: beside the call of answer {number} no word is said, where the card has some beside each"
            )
    content = turns[-1].answer.content or ""
    if not all(re.search(rf"\b{number}\b", content) for number in (12, 10)):
        raise Failed(f"{way}: the answer does not name 12 and 10: {quote(content)}")


def _words(operation: Operation) -> str:
    name, one, other = operation
    return f"{name}({one:g}, {other:g})"


@CARD.check(
    "T3",
    name="card-long-context",
    proves="a long conversation is seen whole, and the answer's code runs",
    oracle="the card's third test as long as the context allows, up to 10,000 tokens, or at full size (24,004 messages) on "
    "request: the exact count of tokens, Dr. Strange by name, and a Python function that returns him in a sandbox",
    severity=Severity.CRITICAL,
    meaning="Long sessions lose their beginning, although nothing says so.",
    cure="Give the server the context that it declares; see X1, X2 and P3.",
)
def _long_context(talk: Talk) -> str:
    question = (
        "Tell me who is the most powerful being in the universe. Then code a Python function to give what is the most powerful "
        "being in the universe. The function can accept as an argument a time and a location and always return a string."
    )
    messages = [system(talk), *filled(*_size(talk)), user(question)]
    count = _counted(talk, messages)
    needs_a_model(talk)
    for streamed in _WAYS[: 1 if talk.setup.long else 2]:
        told = play(talk, messages, streamed=streamed)[-1].answer
        content = told.content or ""
        if not re.search(r"Dr\.?\s*Strange", content):
            raise Failed(
                f"{told.way}: behind {len(messages)} messages the answer does not name Dr. Strange: {quote(content)}"
            )
        blocks = re.findall(r"```[Pp]y(?:thon)?\d?[^\n]*\n(.*?)```", content, re.DOTALL)
        if not blocks:
            raise Failed(f"{told.way}: the answer holds no block of Python: {quote(content)}")
        value = talk.toolbox().value_of(blocks[0])
        if "Strange" not in value:
            raise Failed(f"{told.way}: the function returns {quote(value, 80)}, and not Dr. Strange")
    return f"{len(messages)} messages, {count} tokens; the function runs"


#: Of the system prompt, the tools, the question and the answer.
_ROOM_TOKENS, _SHORT_TOKENS = 6000, 16_000


def _size(talk: Talk) -> tuple[int, int]:
    declared = declared_context(talk)
    if talk.setup.long:
        return within(declared - _ROOM_TOKENS) if declared else FULL
    return within(max(min(declared or 0, _SHORT_TOKENS) - _ROOM_TOKENS, 500))


def _counted(talk: Talk, messages: Messages) -> int:
    """Return how many tokens the server counts. Raises `Failed` where that is not the number it should be."""
    asked = ask(talk, messages, streamed=False, max_tokens=1)
    if 400 <= asked.status < 500:
        raise Skipped(
            f"{len(messages)} messages are refused, in so many words: {asked.status} {quote(asked.text, 120)}"
        )
    count = answer(asked).spent("prompt_tokens")
    if count is None:
        raise Skipped("the server counts no prompt tokens: its answers have no usage.prompt_tokens")
    try:
        wanted = exact(talk).prompt(messages, tools())
    except Skipped:
        # Without the tokenizer: the card's messages are ten tokens each, and in no vocabulary under eight.
        if count < 8 * len(messages):
            raise Failed(f"{len(messages)} messages are counted as {count} tokens: some were left out") from None
        return count
    if count != wanted:
        what = "some were left out" if count < wanted else "something was added, or the text is cut otherwise"
        raise Failed(f"{len(messages)} messages are counted as {count} tokens, and not {wanted}: {what}")
    return count


#: A heading that has it without a word against it, or its code.
_PHP = re.compile(
    r"^#{1,6} (?!.*\b(?:no|not|without|avoid|instead|than|over|vs)\b).*\bPHP\b.*|^[ \t]*```php\b",
    re.IGNORECASE | re.MULTILINE,
)


@CARD.check(
    "T4",
    name="card-chatting",
    proves="a question that needs no tool is answered at length, in Markdown that is whole",
    oracle="the card's fourth test: no call, over 500 characters, each fence closed, no control token, no heading or code of PHP",
    severity=Severity.MAJOR,
    meaning="The agent calls tools where it should answer, or its answers break off.",
    cure="See C3 and S1; give answers enough max_tokens.",
)
def _chatting(talk: Talk) -> str:
    needs_a_model(talk)
    for streamed in _WAYS:
        told = _said_at_once(talk, WEB_SERVER, streamed=streamed)
        content = told.content or ""
        if len(content) <= 500:
            raise Failed(
                f"{told.way}: the answer has {len(content)} characters, over 500 are expected: {quote(content)}"
            )
        if len(re.findall(r"^[ \t]*```", content, re.MULTILINE)) % 2:
            raise Failed(f"{told.way}: a fence of code is never closed; the end is {quote(content[-80:])}")
        if advice := _PHP.search(content):
            raise Failed(f"{told.way}: PHP is recommended to those who do not like it: {quote(advice[0])}")
    return f"{len(content)} characters"


@CARD.check(
    "T5",
    name="card-small-talk",
    proves="the model says who it is and which day it is, as its system prompt tells it",
    oracle="the card's fifth test: no call; Devstral, Mistral AI and 14 March 2031, a date that only the system prompt has",
    severity=Severity.MAJOR,
    meaning="The system prompt does not reach the model, or another one does.",
    cure="See D2 and P10; start llama-server with --jinja.",
)
def _small_talk(talk: Talk) -> str:
    needs_a_model(talk)
    for streamed in _WAYS:
        told = _said_at_once(talk, SMALL_TALK, streamed=streamed)
        content = told.content or ""
        for what, found in (
            ("its name, Devstral,", "devstral" in content.lower()),
            ("Mistral AI", "mistral" in content.lower().replace("devstral", "")),
            (f"the date, {TODAY},", _has_date(content)),
        ):
            if not found:
                raise Failed(f"{told.way}: {what} is not in the answer: {quote(content)}")
    return quote(content, 80)


def _said_at_once(talk: Talk, question: str, *, streamed: bool) -> Answer:
    turns = play(talk, [system(talk), user(question)], streamed=streamed)
    if len(turns) > 1:
        names = [call.name for call in turns[0].answer.calls]
        raise Failed(f"{turns[0].answer.way}: {quote(names)} is called, where nothing is to be")
    return turns[0].answer


def _has_date(content: str) -> bool:
    spelled = "2031" in content and re.search(r"\bMar(ch|\.)?\b", content) and re.search(r"\b14(th)?\b", content)
    return bool(spelled or re.search(r"2031[-/.]0?3[-/.]14|14[-/.]0?3[-/.]2031|0?3/14/2031", content))


@CARD.check(
    "T6",
    name="code-is-executed",
    proves="a program that the model writes is run, and its output is what the answer is made of",
    oracle="none of the card's: asked for the SHA-256 of a text, the model runs a program in the sandbox and tells eight digits",
    severity=Severity.CRITICAL,
    meaning="An agent tells results that nothing has computed.",
    cure="See C2 for the arguments, P5 for results in the prompt.",
)
def _code_is_executed(talk: Talk) -> str:
    needs_a_model(talk)
    text = "fumehood 2031-03-14"
    wanted = hashlib.sha256(text.encode()).hexdigest()[:8]
    question = (
        f"What are the first eight hexadecimal digits of the SHA-256 of this text, without quotes: {text}\n"
        "Run a Python program to find out, and tell me the digits."
    )
    for streamed in _WAYS:
        turns = play(talk, [system(talk), user(question)], streamed=streamed)
        way, said = turns[0].answer.way, turns[-1].answer.content or ""
        printed = [told for turn in turns for told in turn.results]
        if not printed:
            raise Failed(f"{way}: no program was run, and the answer is {quote(said)}")
        if not any(wanted in told for told in printed):
            raise Failed(f"{way}: the model's programs do not print {wanted}: {quote(printed)}")
        if wanted not in said:
            raise Failed(f"{way}: the program printed {wanted}, the answer says {quote(said)}")
    return f"run in the sandbox, {wanted} told"
