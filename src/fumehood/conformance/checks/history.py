"""Family H: conversations that clients really send back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..asking import STORY, assistant, result, tools, user
from ..check import Family, Severity
from ..reading import answer, quote
from ..verdicts import Failed, Skipped

if TYPE_CHECKING:
    from ..asking import Messages
    from ..talk import Talk

HISTORY = Family("History")

_ID = "aaaaaaaa1"
_CALL = (_ID, "terminal", '{"command": "ls"}')


def _taken(talk: Talk, what: str, messages: Messages) -> None:
    asked = talk.whole(messages, tools=tools("terminal"), max_tokens=1)
    if asked.status != 200:
        raise Failed(f"{what} is refused with {asked.status}: {quote(asked.text)}")
    answer(asked)


@HISTORY.check(
    "H1",
    name="content-null-empty-absent",
    proves="an answer with calls may have content null, empty or absent",
    oracle="all three are taken and make the same prompt",
    severity=Severity.MAJOR,
    meaning="The second turn of every tool call fails, with clients of one kind or the other.",
    cure="Write the content as the server wants it, in the client: an empty text is what most take.",
)
def _content_null_empty_absent(talk: Talk) -> str:
    absent = assistant("", _CALL)
    del absent["content"]
    counts: dict[str, int] = {}
    for what, message in (("null", assistant(None, _CALL)), ("empty", assistant("", _CALL)), ("absent", absent)):
        messages = [user("a"), message, result(_ID, "b")]
        _taken(talk, f"content that is {what}", messages)
        counts[what] = talk.prompt_tokens(messages, tools=tools("terminal"))
    if len(set(counts.values())) > 1:
        raise Failed(f"the prompt's length depends on it: {quote(counts)}")
    return "all three are taken, with the same prompt"


@HISTORY.check(
    "H2",
    name="calls-null-and-empty",
    proves="an answer without calls may have tool_calls null or []",
    oracle="both are taken",
    severity=Severity.MAJOR,
    meaning="Agents that send back the message as they got it are refused.",
    cure="Drop the field where it is empty, in the client.",
)
def _calls_null_and_empty(talk: Talk) -> str:
    empty: tuple[object, ...] = (None, [])
    for value in empty:
        _taken(talk, f"tool_calls {quote(value)}", [user("a"), {**assistant("b"), "tool_calls": value}, user("c")])
    return "both are taken"


@HISTORY.check(
    "H3",
    name="extra-fields",
    proves="fields that other servers and clients add to messages are taken",
    oracle="name on a tool's result, index in a call and reasoning_content in an answer are not refused",
    severity=Severity.MINOR,
    meaning="A conversation that began on another server cannot go on here.",
    cure="Send the contract's fields alone.",
    issues=("vllm-project/vllm#20973", "vllm-project/vllm#18629"),
)
def _extra_fields(talk: Talk) -> str:
    called = assistant("", _CALL)
    indexed = assistant("", _CALL)
    indexed["tool_calls"][0]["index"] = 0
    thought: dict[str, Any] = {**assistant("b"), "reasoning_content": "c"}
    _taken(talk, "name on a tool's result", [user("a"), called, result(_ID, "b", name="terminal")])
    _taken(talk, "index in a call", [user("a"), indexed, result(_ID, "b")])
    _taken(talk, "reasoning_content in an answer", [user("a"), thought, user("d")])
    return "all three are taken"


@HISTORY.check(
    "H4",
    name="user-after-tool",
    proves="a user may speak right after a tool's result",
    oracle="the conversation user, assistant with a call, tool, user is taken, and the last message is in the prompt; "
    "or refused by Mistral's own code, 3230",
    severity=Severity.MINOR,
    meaning="An agent that is interrupted, or told something beside a result, is stuck: every further request is refused.",
    cure="Put an answer like `Understood.` between the two, in the client. Mistral's API refuses it too (code 3230).",
    issues=(
        "zed-industries/zed#31736",
        "NousResearch/hermes-agent#20154",
        "aliou/pi-neuralwatt#12",
        "charmbracelet/crush#279",
    ),
)
def _user_after_tool(talk: Talk) -> str:
    before: Messages = [user("a"), assistant("", _CALL), result(_ID, "b")]
    offered = tools("terminal")
    asked = talk.whole([*before, user("c")], tools=offered, max_tokens=1)
    if asked.status == 400 and re.search(r'"code":\s*"?3230\b', asked.text):
        raise Skipped(f"the server keeps Mistral's order of roles and says so: {quote(asked.text, 80)}")
    _taken(talk, "user after tool", [*before, user("c")])
    more = talk.prompt_tokens([*before, user("c")], tools=offered) - talk.prompt_tokens(before, tools=offered)
    if more < 1:
        raise Failed(f"it is taken, but costs {more} tokens: the user's words do not reach the model")
    return f"it is taken, and costs {more} tokens"


@HISTORY.check(
    "H5",
    name="two-users",
    proves="two messages of the user's may follow each other",
    oracle="the conversation user, user is taken, and both messages are in the prompt",
    severity=Severity.MINOR,
    meaning="Clients that add context in a message of its own are refused.",
    cure="Join them with an empty line, as mistral-common does, in the client or the template.",
    issues=("sterlp/eclipse-peon-ai#75", "anomalyco/opencode#5034"),
)
def _two_users(talk: Talk) -> str:
    _taken(talk, "user after user", [user("a"), user("b")])
    more = min(talk.prompt_tokens([user("a"), user("b")]) - talk.prompt_tokens([user(one)]) for one in ("a", "b"))
    if more < 1:
        raise Failed(f"two messages cost {more} tokens more than one: the other does not reach the model")
    return f"both are in the prompt: {more} tokens more than one"


@HISTORY.check(
    "H6",
    name="broken-arguments",
    proves="a call with broken arguments in the history does not break the server",
    oracle="arguments that are no JSON, or empty, are answered or refused, and never give an error of the class 5xx",
    severity=Severity.MAJOR,
    meaning="One bad call of the model's makes every later request of that conversation fail, and nothing says why.",
    cure="Replace such arguments by {} before they are sent back, in the client.",
)
def _broken_arguments(talk: Talk) -> str:
    talk.needs_answers()
    seen, broke = [], []
    for arguments in ("{'command': 'ls'}", '{"command": "l', ""):
        messages = [user("a"), assistant("", (_ID, "terminal", arguments)), result(_ID, "b")]
        asked = talk.whole(messages, tools=tools("terminal"), max_tokens=1)
        if asked.status >= 500:
            broke.append(f"the arguments {quote(arguments)} give {asked.status}")
        elif asked.status < 400:
            answer(asked)
        seen.append(str(asked.status))
    if broke:
        raise Failed("; ".join(broke))
    return f"answered {', '.join(seen)}"


@HISTORY.check(
    "H7",
    name="user-content-in-parts",
    proves="a user's message as a list of text parts is read as its text",
    oracle="a list with one part costs as many tokens as the text",
    severity=Severity.MAJOR,
    meaning="Clients that send parts (most SDKs do beside images) put other words before the model than they think.",
    cure="Send plain text where there is nothing but text.",
)
def _user_content_in_parts(talk: Talk) -> str:
    text = talk.prompt_tokens([user(STORY)])
    parts = talk.prompt_tokens([user([{"type": "text", "text": STORY}])])
    if text != parts:
        raise Failed(f"the text costs {text} tokens, the list {parts}")
    return f"{text} tokens either way"
