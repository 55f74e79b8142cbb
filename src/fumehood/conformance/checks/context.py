"""Family X: the end of the context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..asking import user
from ..check import Family, Severity
from ..filling import FULL, filled, within
from ..reading import answer, quote
from ..verdicts import Failed, NeedsRealWeights, Skipped
from .exact import exact
from .identity import declared_context

if TYPE_CHECKING:
    from ..asking import Messages
    from ..talk import Talk

CONTEXT = Family("Context")

#: Over the 4,096 tokens at which Ollama cuts where nobody sets more.
_WORDS = 6000
#: Of the card's third test: enough to be behind what a server keeps that cuts at 4,096 tokens, and soon answered.
_SOME = (20, 200)
#: For the question, the system prompt, tools and an answer.
_ROOM_TOKENS = 4000
#: Beyond this, a prompt that is too long takes too long to be made.
MOST_WORDS = 300_000


@CONTEXT.check(
    "X1",
    name="no-silent-truncation",
    proves="a prompt that is too long is an error, and never cut in silence",
    oracle="6,000 words, and a tenth more than the declared context, are refused with 4xx, or counted as so many tokens or more; "
    "with mistral-common, exactly as many as it counts",
    severity=Severity.CRITICAL,
    meaning="The model has not seen the beginning: neither the task nor the system prompt.",
    cure="Ollama: OLLAMA_CONTEXT_LENGTH, for /v1 ignores num_ctx; llama-server: --ctx-size; count prompt_tokens in the client.",
    issues=("ralphgrewe/TradingAgents#168", "NousResearch/hermes-agent#43900", "ollama/ollama#5902"),
)
def _no_silent_truncation(talk: Talk) -> str:
    talk.needs_answers()
    sizes = [_WORDS]
    declared = declared_context(talk)
    if declared and _WORDS < declared <= MOST_WORDS:
        sizes.append(declared + declared // 10)
    seen = []
    for words in sizes:
        messages = [user("hello " * words + "Answer with the word yes.")]
        asked = talk.whole(messages, max_tokens=1)
        if 400 <= asked.status < 500:
            seen.append(f"{words} words are refused with {asked.status}")
            continue
        count = talk.prompt_tokens(messages)
        if count < words:
            raise Failed(f"a prompt of {words} words was counted as {count} tokens and answered")
        wanted = _exactly(talk, messages)
        if wanted is not None and count != wanted:
            raise Failed(f"a prompt of {words} words was counted as {count} tokens, and not {wanted}, and answered")
        seen.append(f"{words} words are {count} tokens")
    return "; ".join(seen)


def _exactly(talk: Talk, messages: Messages) -> int | None:
    """Return how many tokens the server is to count, with what it adds to every prompt; None where that cannot be known."""
    try:
        counter = exact(talk)
    except Skipped:
        return None
    short: Messages = [user("a")]
    return counter.prompt(messages) + talk.prompt_tokens(short) - counter.prompt(short)


@CONTEXT.check(
    "X2",
    name="needle",
    proves="the model sees a fact at the beginning of a long conversation",
    oracle="the card's third test with 20 and 200 repetitions, at full size on request: who can answer the question alone can "
    "answer it there",
    severity=Severity.CRITICAL,
    meaning="What the user said at first is forgotten, although the server counts it.",
    cure="Give the server the context that it declares (llama-server: --ctx-size, and no --context-shift).",
    issues=("ralphgrewe/TradingAgents#168",),
)
def _needle(talk: Talk) -> str:
    question = user("Tell me who is the most powerful being in the universe.")
    sizes = [(0, 0), _SOME]
    if talk.setup.long:
        declared = declared_context(talk)
        sizes.append(within(declared - _ROOM_TOKENS) if declared else FULL)
    seen = 0
    for before, after in sizes:
        messages = [*filled(before, after), question]
        exchange = talk.whole(messages)
        if 400 <= exchange.status < 500 and after > _SOME[1]:
            raise Skipped(f"{len(messages)} messages are refused, in so many words: {quote(exchange.text, 120)}")
        told = answer(exchange)
        if "strange" not in (told.content or "").lower():
            if not after:
                raise NeedsRealWeights(f"asked right after the fact, the model says {quote(told.content, 80)}")
            raise Failed(f"after {2 * after} more messages the model says {quote(told.content)}")
        seen = 2 * after
    return f"found behind {seen} messages"


@CONTEXT.check(
    "X3",
    name="large-max-tokens",
    proves="a max_tokens beyond the context is cut to what is left, or refused",
    oracle="ten million give an answer, or an error of the class 4xx",
    severity=Severity.MINOR,
    meaning="Clients that send the card's 262,144 believe that the server is broken.",
    cure="Leave max_tokens out, or count what is left.",
)
def _large_max_tokens(talk: Talk) -> str:
    talk.needs_answers()
    # Left after its first bytes: a model that finds no end would fill the context.
    asked = talk.leave([user("Answer with the word yes.")], max_tokens=10_000_000)
    if asked.status >= 500:
        raise Failed(f"answered {asked.status}: {quote(asked.text)}")
    if not asked.body:
        raise Failed(f"answered {asked.status}, and not a byte follows: {asked.broken or 'the stream ends'}")
    return f"answered {asked.status}"
