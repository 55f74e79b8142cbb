"""Family P, the second part: the prompt's length to the token, as `mistral-common` encodes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..asking import SMALL_TALK, STORY, WEB_SERVER, assistant, result, tools, user
from ..card import system as card_system
from ..check import Family, Severity
from ..reading import quote
from ..verdicts import Failed, Skipped

if TYPE_CHECKING:
    from ..asking import Messages
    from ..counting import Counter
    from ..talk import Talk

EXACT = Family("Prompt, token by token")

_PLAIN = "Pack my box with five dozen liquor jugs."

#: What wrong rules for cutting text into words, and servers that normalise it, are known to count otherwise.
_SAMPLES = {
    "words after quotes": "'The' 'Thus' 'Table'",
    "paths and line ends": "/usr/bin/\n/etc/\n",
    "Devanagari": "नमस्ते दुनिया",
    "Thai": "สวัสดีชาวโลก",
    "Japanese": "東京都に行きます。",
    "accents of their own": "cafe\u0301 Zu\u0308rich",
    "emoji": "👩\u200d🔬 🧪 🇫🇷",
    "digits": "1234567890 3.14159 0x7f",
    "code": "def f(x):\n    if x:\n\t\treturn [x]\n\n\n",
    "odd spaces": "a\u00a0b\u200bc  d",
}


def exact(talk: Talk) -> Counter:
    """Return the counter. Raises `Skipped` where the server's vocabulary is another: nothing can be compared then."""
    counter = talk.counter()
    one = talk.prompt_tokens([user(_PLAIN)]) - talk.prompt_tokens([user("a")])
    other = counter.prompt([user(_PLAIN)]) - counter.prompt([user("a")])
    if one != other:
        raise Skipped(
            f"{quote(_PLAIN)} is {one} tokens more than `a` there and {other} here: another vocabulary; "
            "name the model's own tekken.json by --tokenizer"
        )
    return counter


@EXACT.check(
    "P1",
    name="exact-prompts",
    proves="a conversation of every kind of message makes the prompt that the model was trained on",
    oracle="usage.prompt_tokens is mistral-common's own number, for the card's questions with its six tools and for a tool's turn",
    severity=Severity.CRITICAL,
    meaning="The model sees a prompt that it was never trained on: it calls tools badly, and nothing says why.",
    cure="Take the tokenizer of mistral-common (vLLM: --tokenizer-mode mistral), or the template of the model's own repository.",
    issues=("vllm-project/vllm#19545", "vllm-project/vllm#16976"),
)
def _exact_prompts(talk: Talk) -> str:
    counter = exact(talk)
    system = {"role": "system", "content": "You are a helpful assistant.\nToday's date is 2031-03-14."}
    card = card_system(talk)
    calls = assistant(
        "Let me do both.",
        ("aaaaaaaa1", "add_number", '{"a": "1", "b": "2"}'),
        ("aaaaaaaa2", "python", '{"code": "x=\\"é\\"", "result_variable": "x"}'),
    )
    turn: Messages = [system, user(STORY), calls, result("aaaaaaaa1", "3.0"), result("aaaaaaaa2", "é")]
    asked: dict[str, tuple[Messages, bool]] = {
        "a question": ([user(STORY)], False),
        "a system prompt and a question": ([system, user(STORY)], False),
        "a question with six tools": ([system, user(STORY)], True),
        "the card's first test": ([card, user(STORY)], True),
        "the card's fourth test": ([card, user(WEB_SERVER)], True),
        "the card's fifth test": ([card, user(SMALL_TALK)], True),
        "two calls and their results": (turn, True),
        "what follows them": ([*turn, assistant("Done."), user("Thanks.")], True),
    }
    seen = []
    for what, (messages, offered) in asked.items():
        more = {"tools": tools()} if offered else {}
        there, here = talk.prompt_tokens(messages, **more), counter.prompt(messages, tools() if offered else None)
        if there != here:
            raise Failed(f"{what}: the server counts {there} tokens, mistral-common {here}")
        seen.append(str(here))
    return f"{', '.join(seen)} tokens, as mistral-common counts"


@EXACT.check(
    "P11",
    name="text-is-cut-as-trained",
    proves="text in every script, code and odd spaces become the tokens that the model was trained on",
    oracle="ten samples cost what mistral-common says that they do",
    severity=Severity.MAJOR,
    meaning="The model reads such text in pieces that it never saw; it spells, counts and edits worse there.",
    cure="transformers: fix_mistral_regex=True; convert the model again; or take the tokenizer of mistral-common.",
    issues=("huggingface/transformers#42299", "huggingface/transformers#42591", "ml-explore/mlx-lm#1049"),
)
def _text_is_cut_as_trained(talk: Talk) -> str:
    counter = exact(talk)
    wrong = []
    for what, sample in _SAMPLES.items():
        there, here = talk.prompt_tokens([user(sample)]), counter.prompt([user(sample)])
        if there - talk.prompt_tokens([user("a")]) != here - counter.prompt([user("a")]):
            wrong.append(f"{what} ({there}, not {here})")
    if wrong:
        raise Failed(f"counted otherwise than by mistral-common: {'; '.join(wrong)}")
    return f"{len(_SAMPLES)} samples, as mistral-common counts"
