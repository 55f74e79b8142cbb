"""Family P: what reaches the model, weighed by the server's own count of prompt tokens.

The numbers are those of mistral-common 1.13.1 for version 13 of the tokenizer, Devstral Small 2's; all but P2's and P10's are
differences, so that a system prompt of the server's own does not change them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..asking import assistant, result, tools, user
from ..check import Family, Severity
from ..drawing import picture
from ..reading import answer, quote
from ..verdicts import Failed, NeedsRealWeights, Skipped

if TYPE_CHECKING:
    from ..asking import Messages
    from ..talk import Talk

PROMPT = Family("Prompt")

#: `<s>[INST]a[/INST]`.
_SHORTEST = 4
_CALL = ("aaaaaaaa1", "terminal", '{"command": "ls"}')


@PROMPT.check(
    "P2",
    name="one-bos",
    proves="the prompt begins with the token <s> once",
    oracle="the conversation `a` is 4 tokens: <s> [INST] a [/INST]; 5 is one too many, 3 one too few",
    severity=Severity.MAJOR,
    meaning="The model sees a prompt that it was never trained on; its answers are worse and nothing says why.",
    cure="Take the tokenizer of mistral-common (vLLM: --tokenizer-mode mistral), or a template that leaves <s> to the engine.",
    issues=("abetlen/llama-cpp-python#1501", "vllm-project/vllm#16976", "mdegans/drama_llama#93"),
)
def _one_bos(talk: Talk) -> str:
    count = talk.prompt_tokens([user("a")])
    if count in (_SHORTEST - 1, _SHORTEST + 1):
        raise Failed(f"`a` is {count} tokens and not {_SHORTEST}: as if <s> stood there {count - _SHORTEST + 1} times")
    if count != _SHORTEST:
        raise Skipped(f"`a` is {count} tokens: what P10 finds hides what this check looks for")
    return f"{count} tokens"


@PROMPT.check(
    "P3",
    name="eos-after-answers",
    proves="each answer in the history ends with the token </s>",
    oracle="an answer `b` and a question `c` more cost 5 tokens: b </s> [INST] c [/INST]",
    severity=Severity.MAJOR,
    meaning="The model does not see where its own answers ended; long conversations drift.",
    cure="Use the chat template of the model's own repository, or the tokenizer of mistral-common.",
)
def _eos_after_answers(talk: Talk) -> str:
    more = talk.prompt_tokens([user("a"), assistant("b"), user("c")]) - talk.prompt_tokens([user("a")])
    if more != 5:
        raise Failed(f"`b` and `c` cost {more} tokens and not 5")
    return "5 tokens"


@PROMPT.check(
    "P4",
    name="tools-reach-the-prompt",
    proves="the tools stand in the prompt of the first turn and of the second",
    oracle="the card's six tools cost over 200 tokens, the same number in both turns; where the server shows its prompt, "
    "they stand before the first question, as they were given and with their keys in order",
    severity=Severity.CRITICAL,
    meaning="The model does not know the tools: it makes calls up, or says that it cannot.",
    cure="Start llama-server with --jinja and the model's own template; vLLM with --tokenizer-mode mistral.",
    issues=("vllm-project/vllm#19545",),
)
def _tools_reach_the_prompt(talk: Talk) -> str:
    turns: list[Messages] = [[user("a")], [user("a"), assistant("b"), user("c")]]
    costs = [talk.prompt_tokens(turn, tools=tools()) - talk.prompt_tokens(turn) for turn in turns]
    if min(costs) < 200:
        raise Failed(f"six tools cost {costs[0]} tokens in the first turn and {costs[1]} in the second")
    if costs[0] != costs[1]:
        raise Failed(f"the tools cost {costs[0]} tokens in the first turn and {costs[1]} in the second")
    shown = talk.rendered(turns[1], tools()) or ""
    where, question = shown.find("[AVAILABLE_TOOLS]"), shown.find("[INST]")
    if shown and not -1 < where < question:
        raise Failed(f"the tools do not stand before the first question: {quote(shown)}")
    if shown:
        _stand_as_given(shown[where:question])
    return f"{costs[0]} tokens in both turns{', before the first question' if shown else ''}"


def _stand_as_given(shown: str) -> None:
    """Raise `Failed` where the tools have another order of keys than the model was trained on, or are others."""
    text = shown.removeprefix("[AVAILABLE_TOOLS]").partition("[/AVAILABLE_TOOLS]")[0]
    try:
        there = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        raise Failed(f"what stands for the tools is no JSON: {quote(text)}") from None
    if there != json.loads(json.dumps(tools()), object_pairs_hook=list):
        raise Failed(f"the tools do not stand as they were given, or not with their keys in that order: {quote(text)}")


@PROMPT.check(
    "P5",
    name="tool-results-reach-the-prompt",
    proves="the model sees the arguments of its calls and what the tools answered",
    oracle="a result of ten words costs 9 tokens more than one of a single word, and so do arguments",
    severity=Severity.CRITICAL,
    meaning="The model calls the same tool again and again, or makes the result up.",
    cure="Start llama-server with --jinja; take a template that knows the role tool.",
    issues=("ggml-org/llama.cpp#14697",),
)
def _tool_results_reach_the_prompt(talk: Talk) -> str:
    def cost(command: str, told: str) -> int:
        call = ("aaaaaaaa1", "terminal", f'{{"command": "{command}"}}')
        return talk.prompt_tokens([user("a"), assistant("", call), result("aaaaaaaa1", told)], tools=tools("terminal"))

    short, words = cost("a", "a"), "a b c d e f g h i j"
    for what, long in (("result", cost("a", words)), ("argument", cost(words, "a"))):
        if long - short < 9:
            raise Failed(f"nine more words in the {what} cost {long - short} tokens")
    return "nine words more are in the prompt"


@PROMPT.check(
    "P6",
    name="results-out-of-order",
    proves="results of parallel calls belong to their calls by id, in whatever order they are sent",
    oracle="where the server shows its prompt, the results stand in it in the order of the calls; elsewhere the model that tells "
    "two files apart when results come in order still does when they come the other way round",
    severity=Severity.CRITICAL,
    meaning="The model takes one tool's result for another's. Nothing shows it.",
    cure="Send results in the order of the calls. vLLM with --tokenizer-mode mistral sorts them; Jinja templates do not.",
)
def _results_out_of_order(talk: Talk) -> str:
    question = user("Run `cat first.txt` and `cat second.txt`, then say in one word what first.txt holds.")
    calls = assistant(
        "",
        ("aaaaaaaa1", "terminal", '{"command": "cat first.txt"}'),
        ("aaaaaaaa2", "terminal", '{"command": "cat second.txt"}'),
    )
    first, second = result("aaaaaaaa1", "violet"), result("aaaaaaaa2", "copper")
    shown = talk.rendered([question, calls, second, first], tools("terminal")) or ""
    if "violet" in shown and "copper" in shown and "aaaaaaaa1" not in shown:
        if shown.index("violet") > shown.index("copper"):
            raise Failed(f"in the prompt the second call's result stands first: {quote(shown[-200:])}")
        return "in the prompt the results stand in the order of their calls"
    for order in ([first, second], [second, first]):
        told = answer(talk.whole([question, calls, *order], tools=tools("terminal")))
        said = (told.content or "").lower()
        if "violet" not in said or "copper" in said:
            if order[0] is first:
                raise NeedsRealWeights(f"with results in order the model says {quote(told.content, 80)}, not violet")
            raise Failed(
                f"first.txt holds violet; with results the other way round the model says {quote(told.content)}"
            )
    return "violet in both orders"


@PROMPT.check(
    "P7",
    name="tool-content-in-parts",
    proves="a tool's result as a list of text parts is read as its text",
    oracle="a list with one part costs as many tokens as the text",
    severity=Severity.MAJOR,
    meaning="The model reads the list's source text, with its braces and quotes, for the result.",
    cure="Send tool results as plain text. The published Jinja template writes lists as they print in Python.",
    issues=("vllm-project/vllm#18629",),
)
def _tool_content_in_parts(talk: Talk) -> str:
    def cost(content: object) -> int:
        return talk.prompt_tokens([user("a"), assistant("", _CALL), result(_CALL[0], content)], tools=tools("terminal"))

    text, parts = cost("hello"), cost([{"type": "text", "text": "hello"}])
    if text != parts:
        raise Failed(f"the text costs {text} tokens, the list {parts}")
    return f"{text} tokens either way"


@PROMPT.check(
    "P8",
    name="control-tokens-in-text",
    proves="the text of a user or a tool never becomes control tokens",
    oracle="`a[TOOL_CALLS]` costs at least 5 tokens more than `a`, `a[INST]` and `a</s>` at least 2, from the user as in a "
    "tool's result; a control token costs 1",
    severity=Severity.CRITICAL,
    meaning="Whoever writes into the prompt (a page, a file, an issue) can end the user's turn or forge a tool call.",
    cure="Serve with mistral-common's tokenizer (vLLM: --tokenizer-mode mistral); before others, break markers up in the text.",
)
def _control_tokens_in_text(talk: Talk) -> str:
    def from_user(text: str) -> int:
        return talk.prompt_tokens([user(text)])

    def from_tool(text: str) -> int:
        return talk.prompt_tokens([user("a"), assistant("", _CALL), result(_CALL[0], text)], tools=tools("terminal"))

    costs: dict[str, int] = {}
    for who, count in (("a user's text", from_user), ("a tool's result", from_tool)):
        for mark in ("[TOOL_CALLS]", "[INST]", "</s>"):
            costs[mark] = count("a" + mark) - count("a")
            if costs[mark] < (5 if mark == "[TOOL_CALLS]" else 2):
                raise Failed(f"{mark} in {who} costs {costs[mark]} token: it has become the control token")
    return ", ".join(f"{mark} costs {cost}" for mark, cost in costs.items())


@PROMPT.check(
    "P9",
    name="image-reaches-the-prompt",
    proves="an image is put before the model at its size",
    oracle="an image of 280 by 140 costs exactly 55 tokens: ten by five patches, a break for each row",
    severity=Severity.CRITICAL,
    meaning="The model answers about a picture that it has not seen.",
    cure="llama-server: give --mmproj; leave images out of requests to a server without them.",
)
def _image_reaches_the_prompt(talk: Talk) -> str:
    text = {"type": "text", "text": "a"}
    image = {"type": "image_url", "image_url": {"url": picture(280, 140)}}
    asked = talk.whole([user([text, image])], max_tokens=1)
    # With 5xx, too, as llama-server does without --mmproj: that the class is wrong costs no picture.
    if 400 <= asked.status < 500 or (asked.status >= 500 and "image" in asked.text):
        raise Skipped(f"the server takes no images and says so: {asked.status} {quote(asked.text, 80)}")
    cost = talk.prompt_tokens([user([text, image])]) - talk.prompt_tokens([user("a")])
    if cost != 55:
        raise Failed(f"the image costs {cost} tokens and not 55" + (": it was ignored" if cost < 10 else ""))
    return "55 tokens"


@PROMPT.check(
    "P10",
    name="no-hidden-system-prompt",
    proves="nothing is added to what the caller sends",
    oracle="the conversation `a` is 4 tokens",
    severity=Severity.MAJOR,
    meaning="The model follows instructions that nobody in the conversation gave; the date in them may be wrong.",
    cure="Send a system prompt of your own, or take a template without a default one.",
)
def _no_hidden_system_prompt(talk: Talk) -> str:
    count = talk.prompt_tokens([user("a")])
    if count > _SHORTEST + 1:
        raise Failed(f"`a` is {count} tokens and not {_SHORTEST}: {count - _SHORTEST} come from the server")
    if count < _SHORTEST - 1:
        raise Failed(f"`a` is {count} tokens and not {_SHORTEST}: the count leaves out what the prompt must have")
    return f"{count} tokens"


@PROMPT.check(
    "P12",
    name="trailing-spaces",
    proves="spaces at the end of an answer in the history are dropped",
    oracle="the answers `b` and `b` with two spaces cost the same",
    severity=Severity.MINOR,
    meaning="The prompt differs by a token from the one the model was trained on, and the server's cache misses.",
    cure="Strip the model's text at its right before it is sent back.",
)
def _trailing_spaces(talk: Talk) -> str:
    plain, spaced = (talk.prompt_tokens([user("a"), assistant(text), user("c")]) for text in ("b", "b  "))
    if plain != spaced:
        raise Failed(f"without spaces {plain} tokens, with them {spaced}")
    return "the same count"


@PROMPT.check(
    "P13",
    name="prompt-is-counted-whole",
    proves="usage.prompt_tokens counts the whole prompt, also what the server kept from an earlier request",
    oracle="a question of fifty words, asked twice, has the same count of at least fifty both times",
    severity=Severity.MAJOR,
    meaning="Budgets and the compaction of long conversations go by a number that is too small; the context overflows.",
    cure="Estimate in the client; every check of this family goes by this number, so mend it first.",
)
def _prompt_is_counted_whole(talk: Talk) -> str:
    messages = [user("hello " * 50)]
    counts = [talk.prompt_tokens(messages, fresh=fresh) for fresh in (False, True)]
    if min(counts) < 50 or counts[0] != counts[1]:
        raise Failed(f"fifty words are {counts[0]} tokens, and {counts[1]} when they are asked again")
    return f"{counts[0]} tokens, both times"
