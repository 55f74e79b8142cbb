"""Family C: tool calls, from the model's tokens to the answer's fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..asking import STORY, assistant, call_exactly, called, repeat, result, tools, user
from ..check import Family, Severity
from ..reading import Answer, answer, quote
from ..verdicts import Failed, NeedsRealWeights

if TYPE_CHECKING:
    from ..talk import Talk

CALLS = Family("Tool calls")

_TWO = call_exactly(("add_number", {"a": "1", "b": "2"}), ("multiply_number", {"a": "3", "b": "4"}))
#: No answer is cut before so many tokens, but where a check says so.
_FEWEST = 60
#: Of a sentence of six words.
_FEWEST_WORDS = 4
_SUMS = tools("add_number", "multiply_number")


def _story(talk: Talk) -> list[Answer]:
    return [called(each, "write_a_story") for each in talk.both([user(STORY)], tools=tools())]


@CALLS.check(
    "C1",
    name="calls-are-parsed",
    proves="a call comes as a call, and never as text",
    oracle="the card's first question gives tool_calls, and no control token stands in the content",
    severity=Severity.CRITICAL,
    meaning="The agent shows the call to the user as an answer, and stops.",
    cure="vLLM: --tool-call-parser mistral --enable-auto-tool-choice; llama-server: --jinja with the model's own template.",
    issues=(
        "vllm-project/vllm#15549",
        "ggml-org/llama.cpp#14697",
        "lmstudio-ai/lmstudio-bug-tracker#797",
        "EricLBuehler/mistral.rs#1576",
        "abetlen/llama-cpp-python#1784",
        "raullenchai/Rapid-MLX#579",
    ),
)
def _calls_are_parsed(talk: Talk) -> str:
    for told in _story(talk):
        if told.marker:
            raise Failed(f"{told.way}: beside the call the content is {quote(told.content)}")
        names = [call.name for call in told.calls]
        if names != ["write_a_story"]:
            raise NeedsRealWeights(f"{told.way}: asked for a story, the model called {quote(names)}")
    return "one call, whole and streamed"


@CALLS.check(
    "C2",
    name="arguments-are-json-text",
    proves="arguments are the text of a JSON object, `{}` where there are none",
    oracle="json.loads of the text of write_a_story's arguments is {}",
    severity=Severity.MAJOR,
    meaning="Clients that follow the contract raise an error on every call without arguments.",
    cure="Normalise in the client: an object is dumped, an empty text becomes {}.",
)
def _arguments_are_json_text(talk: Talk) -> str:
    for told in _story(talk):
        for call in told.calls:
            if call.value() and call.name == "write_a_story":
                raise Failed(f"{told.way}: write_a_story takes nothing and got {quote(call.arguments)}")
    return "text of a JSON object"


@CALLS.check(
    "C3",
    name="finish-reason",
    proves="the reason says tool_calls with a call, and stop without",
    oracle="the card's first question, and a sentence to repeat",
    severity=Severity.MAJOR,
    meaning="Agents that go by the reason never execute the call, or wait for one that is not there.",
    cure="Go by the calls and not by the reason, except for length.",
)
def _finish_reason(talk: Talk) -> str:
    for told in talk.both([user(STORY)], tools=tools()):
        if told.cut and (told.spent("completion_tokens") or _FEWEST) < _FEWEST:
            raise Failed(f"{told.way}: the reason is length after {told.spent('completion_tokens')} tokens")
        if called(told, "write_a_story").calls and told.finish_reason != "tool_calls":
            raise Failed(f"{told.way}: with a call the reason is {quote(told.finish_reason)}")
    for told in talk.both(repeat("The sky is blue."), tools=tools("terminal")):
        if not told.calls and told.finish_reason != "stop" and not told.cut:
            raise Failed(f"{told.way}: without a call the reason is {quote(told.finish_reason)}")
    return "tool_calls with a call, stop without"


@CALLS.check(
    "C4",
    name="content-beside-calls",
    proves="what the model says before a call is kept",
    oracle="whole and streamed answers have the same content beside the call, and some where it cost tokens: four more at least "
    "than the same call alone",
    severity=Severity.MINOR,
    meaning="The user does not see why a tool is called, and the history that goes back is not the model's own.",
    cure="Take streamed answers.",
)
def _content_beside_calls(talk: Talk) -> str:
    sentence = "I will list the files."
    whole, streamed = talk.both(call_exactly(("terminal", {"command": "ls"}), first=sentence), tools=tools("terminal"))
    called(whole, "terminal")
    called(streamed, "terminal")
    if (whole.content or "").strip() != (streamed.content or "").strip():
        raise Failed(f"the content is {quote(whole.content)} whole and {quote(streamed.content)} streamed")
    if not whole.content:
        alone = called(
            answer(talk.whole(call_exactly(("terminal", {"command": "ls"})), tools=tools("terminal"))), "terminal"
        )
        more = (whole.spent("completion_tokens") or 0) - (alone.spent("completion_tokens") or 0)
        if more >= _FEWEST_WORDS and _written(whole) == _written(alone):
            raise Failed(
                f"the content is empty, whole and streamed, though the answer cost {more} tokens more than its call alone"
            )
        raise NeedsRealWeights("the model wrote nothing before its call")
    return quote(whole.content, 60)


def _written(told: Answer) -> list[object]:
    return [(call.name, call.arguments) for call in told.calls]


@CALLS.check(
    "C5",
    name="call-ids",
    proves="each call has an id of its own, and the server takes it back",
    oracle="two parallel calls have two ids, and a conversation with their results is answered",
    severity=Severity.MAJOR,
    meaning="Results cannot be told apart, or the second turn is refused.",
    cure="Give calls ids of nine letters and digits in the client: every version of the tokenizer takes these.",
    issues=("langchain-ai/langchain#24668", "jackmpcollins/magentic#276", "openclaw/openclaw#57672"),
)
def _call_ids(talk: Talk) -> str:
    told = called(answer(talk.whole(_TWO, tools=_SUMS)), "two tools")
    ids = [call.id for call in told.calls]
    if len(ids) < 2:
        raise NeedsRealWeights("asked for two calls at once, the model made one")
    if not all(isinstance(each, str) and each and each != "null" for each in ids):
        raise Failed(f"ids are {quote(ids)}")
    if len(set(ids)) < len(ids):
        raise Failed(f"two calls have the same id: {quote(ids)}")
    calls = [(call.id, str(call.name), str(call.arguments)) for call in told.calls]
    back = talk.whole([*_TWO, assistant("", *calls), *(result(id_, "3.0") for id_ in ids)], tools=_SUMS)
    if back.status != 200:
        raise Failed(f"the server refuses its own ids {quote(ids)} with {back.status}: {quote(back.text)}")
    if not all(re.fullmatch("[a-zA-Z0-9]{9}", each) for each in ids):
        return f"taken back; but older tokenizers and Mistral's API want nine letters and digits, not {quote(ids[0])}"
    return "nine letters and digits, taken back"


@CALLS.check(
    "C6",
    name="parallel-calls",
    proves="two calls in one answer stay two",
    oracle="two calls with their own arguments, at indices of their own in the stream",
    severity=Severity.CRITICAL,
    meaning="Names and arguments of two calls are glued together, or one of them is lost.",
    cure="Ask with parallel_tool_calls false.",
    issues=("vllm-project/vllm#11097", "lmstudio-ai/lmstudio-bug-tracker#1528"),
)
def _parallel_calls(talk: Talk) -> str:
    whole, streamed = talk.both(_TWO, tools=_SUMS)
    if max(len(called(each, "two tools").calls) for each in (whole, streamed)) < 2 and not _glued(whole, streamed):
        raise NeedsRealWeights("asked for two calls at once, the model made one")
    for told in (whole, streamed):
        if len(told.calls) < 2 or _glued(told):
            raise Failed(f"{told.way}: two calls came as {quote([[call.name, call.arguments] for call in told.calls])}")
        for call in told.calls:
            call.value()
    return "two calls, whole and streamed"


def _glued(*answers: Answer) -> bool:
    names = {tool["function"]["name"] for tool in _SUMS}
    called_names = {str(call.name) for told in answers for call in told.calls}
    return any(name in other for name in names for other in called_names - names)


@CALLS.check(
    "C7",
    name="offered-names-only",
    proves="no call is for a tool that was not offered",
    oracle="a model that calls write_a_story where it is on offer calls add_number or nothing where that is on offer alone",
    severity=Severity.MAJOR,
    meaning="The agent is asked for a tool that it does not have; one that looks up names without care runs another.",
    cure="Refuse unknown names in the client and tell the model so; ask with strict: true where the server takes it.",
)
def _offered_names_only(talk: Talk) -> str:
    for told in talk.both([user(STORY)], tools=tools("add_number")):
        for call in told.calls:
            if call.name != "add_number":
                raise Failed(f"{told.way}: only add_number was offered, called is {quote(call.name)}")
        if told.marker:
            raise Failed(f"{told.way}: the call of another tool came as text: {quote(told.content)}")
    _story(talk)
    return "nothing else was called"


@CALLS.check(
    "C8",
    name="truncated-calls",
    proves="a call that max_tokens cut says so",
    oracle="cut at two tokens, a quarter, a half and three quarters of its length, the reason is length",
    severity=Severity.CRITICAL,
    meaning="The agent executes half a command: `rm -rf /tmp/build` cut is `rm -rf /tmp`, or `rm -rf /`.",
    cure="vLLM 0.32: streamed answers say length. Everywhere: count completion_tokens against max_tokens in the client.",
    issues=(
        "vllm-project/vllm#58228",
        "vllm-project/vllm#53269",
        "vllm-project/vllm#46303",
        "vllm-project/vllm#47963",
        "vllm-project/vllm#9053",
    ),
)
def _truncated_calls(talk: Talk) -> str:
    command = "mkdir -p build && cp -r src/one src/two src/three build && rm -rf build/one/cache build/two/cache"
    asked: dict[str, Any] = {"messages": call_exactly(("terminal", {"command": command})), "tools": tools("terminal")}
    full = answer(talk.whole(**asked))
    # One that finds no end is cut already, and can be cut again.
    if not (full.cut and full.calls):
        called(full, "terminal")
    length = full.spent("completion_tokens")
    if length is None or length < 4:
        raise NeedsRealWeights(f"the call is too short to be cut, or not counted: {length} completion tokens")
    for limit in sorted({2, length // 4, length // 2, 3 * length // 4}):
        for told in talk.both(**asked, max_tokens=limit):
            if not told.cut:
                shown = [[call.name, call.arguments] for call in told.calls]
                raise Failed(
                    f"{told.way}, cut at {limit} of {length} tokens: the reason is {quote(told.finish_reason)}, "
                    f"the calls are {quote(shown)}"
                )
    return f"length, wherever its {length} tokens are cut"


@CALLS.check(
    "C9",
    name="no-phantom-calls",
    proves="the marks of a call inside an argument or a sentence make no call",
    oracle="an argument that holds `[TOOL_CALLS]rm[ARGS]{}` comes back as one call, and a sentence with the mark as none",
    severity=Severity.CRITICAL,
    meaning="Text that the model only quotes, from a file or a page, is executed as a call.",
    cure="vLLM: take streamed answers. In the client: refuse an answer in which a call's JSON is broken, the other calls too.",
)
def _no_phantom_calls(talk: Talk) -> str:
    # So written that a model of a few thousand words, each of which it can use once, can say it too.
    code = "print() #([TOOL_CALLS]rm[ARGS]{})"
    wanted = {"code": code, "result_variable": "x"}
    from_argument = from_sentence = 0
    for told in talk.both(call_exactly(("python", wanted)), tools=tools("python")):
        names = [call.name for call in told.calls]
        if "rm" in names:
            raise Failed(f"{told.way}: from the text in an argument came a call of rm: called are {quote(names)}")
        if any(name != "python" for name in names):
            raise NeedsRealWeights(f"asked for a call of python, the model called {quote(names)}")
        if told.cut:
            raise NeedsRealWeights(f"{told.way}: the model came to no end within its max_tokens")
        values = [call.value() for call in told.calls]
        from_argument += any(value.get("code") == code for value in values)
    for told in talk.both(repeat("The token [TOOL_CALLS] starts a call."), tools=tools("terminal")):
        if told.calls:
            # A model that calls whatever is said shows nothing.
            if answer(talk.whole(repeat("The token starts a call."), tools=tools("terminal"))).calls:
                break
            raise Failed(f"{told.way}: a sentence about the mark became a call of {quote(told.calls[0].name)}")
        from_sentence += "[TOOL_CALLS] starts" in (told.content or "")
    if from_argument < 2:
        raise NeedsRealWeights("the model did not write the argument that it was asked for")
    if from_sentence < 2:
        return "one call from the argument; the sentence was not written"
    return "one call from the argument, none from the sentence"


@CALLS.check(
    "C14",
    name="no-pieces-of-calls",
    proves="a call that nobody may take, or that is not whole, leaves no piece of itself in the text",
    oracle="the card's first question, without tools, and cut at two tokens and at half its call, has no control token in its text",
    severity=Severity.MAJOR,
    meaning="The user reads the source text of a call for an answer, and it goes back to the model as something that was said.",
    cure="Cut the text at the first control token, in the client, but only where no tool could have been meant.",
)
def _no_pieces_of_calls(talk: Talk) -> str:
    full = answer(talk.whole([user(STORY)], tools=tools()))
    told = {"without tools": talk.both([user(STORY)])}
    length = full.spent("completion_tokens") or 0
    for limit in sorted({2, max(2, length // 2)}):
        told[f"cut at {limit} tokens"] = talk.both([user(STORY)], tools=tools(), max_tokens=limit)
    found = [
        f"{what}, {each.way}: the content is {quote(each.content)}"
        for what, answers in told.items()
        for each in answers
        if each.marker
    ]
    if found:
        raise Failed("; ".join(found))
    called(full, "write_a_story")
    return f"none, without tools and of {length} tokens cut"


_RECORD = {
    "type": "function",
    "function": {
        "name": "record",
        "description": "Keep a measurement.",
        "parameters": {
            "type": "object",
            "properties": {
                "count": {"type": "integer"},
                "ratio": {"type": "number"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "inner": {"type": "object", "properties": {"deep": {"type": "object"}}},
                "text": {"type": "string"},
            },
            "required": ["count", "ratio", "tags", "inner", "text"],
        },
    },
}


@CALLS.check(
    "C10",
    name="arguments-of-every-kind",
    proves="integers, nested objects, braces and quotes in text, and other scripts come through",
    oracle="both ways the arguments parse and are the ones that were asked for, or at least the same",
    severity=Severity.MAJOR,
    meaning="Calls with such arguments fail, or hold other values than the model wrote.",
    cure="Upgrade the server; declare numbers as strings where that is not possible.",
    issues=("vllm-project/vllm#13622", "vllm-project/vllm#20028"),
)
def _arguments_of_every_kind(talk: Talk) -> str:
    wanted = {"count": 5, "ratio": 0.5, "tags": ["a", "ü"], "inner": {"deep": {}}, "text": 'a } "quoted" {brace 東京'}
    whole, streamed = (called(each, "record") for each in talk.both(call_exactly(("record", wanted)), tools=[_RECORD]))
    got = [told.calls[0].value() for told in (whole, streamed)]
    if got[0] != got[1]:
        raise Failed(f"whole the arguments are {quote(got[0])}, streamed {quote(got[1])}")
    if got[0] != wanted:
        raise NeedsRealWeights(f"the model wrote other arguments: {quote(got[0], 120)}")
    return "all as asked for"


@CALLS.check(
    "C13",
    name="tools-without-parameters",
    proves="a tool may have empty parameters, or none",
    oracle="both are answered and not refused",
    severity=Severity.MAJOR,
    meaning="One such tool, like the card's write_a_story, makes every request fail.",
    cure='Write {"type": "object", "properties": {}} for them in the client.',
)
def _tools_without_parameters(talk: Talk) -> str:
    bare = {"type": "function", "function": {"name": "write_a_story", "description": "Write a story."}}
    for words, offered in (("empty", tools("write_a_story")), ("no", [bare])):
        asked = talk.whole([user(STORY)], tools=offered)
        if asked.status != 200:
            raise Failed(f"a tool with {words} parameters is refused with {asked.status}: {quote(asked.text)}")
        answer(asked)
    return "both are taken"
