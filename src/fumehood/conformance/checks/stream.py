"""Family S: streams, event by event."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ...errors import ModelUnreachable
from ..asking import STORY, call_exactly, called, repeat, tools, user
from ..check import Family, Severity
from ..reading import Answer, answer, call_deltas, deltas, quote
from ..verdicts import Failed, NeedsRealWeights, Skipped
from ..wire import Exchange, events
from .context import MOST_WORDS
from .errors import says_what
from .identity import declared_context

if TYPE_CHECKING:
    from ..talk import Talk

STREAM = Family("Stream")

#: Brackets, quotes and an emphasis: what parsers of calls are known to eat.
_BRACKETS = 'The list is [1, 2], the map {"a": [3]} and the text "]".'
_SCRIPTS = "Äpfel, naïve café, 東京, 🧪 and 👩‍🔬."
#: More than the places that servers have unless told otherwise.
_HANG_UPS = 32
_LS = call_exactly(("terminal", {"command": "ls -la /usr/share/doc"}))


@STREAM.check(
    "S1",
    name="stream-equals-whole",
    proves="a stream put together again is the whole answer",
    oracle="content, calls and reason of four questions are the same both ways, where the whole answer repeats itself",
    severity=Severity.CRITICAL,
    meaning="The agent acts on another text than the model wrote; brackets of a list or of code are lost.",
    cure="Ask for whole answers.",
    issues=("vllm-project/vllm#20028",),
)
def _stream_equals_whole(talk: Talk) -> str:
    for messages in (repeat(_BRACKETS), repeat(_SCRIPTS), [user(STORY)], _LS):
        whole, streamed = talk.both(messages, tools=tools())
        if _said(whole) != _said(streamed):
            again = answer(talk.whole(messages, tools=tools(), fresh=True))
            if "\ufffd" in (whole.content or ""):
                raise NeedsRealWeights("the model wrote bytes that are no text, which comes out as either will have it")
            if _said(again) != _said(whole):
                raise Skipped("the server does not repeat itself at temperature 0, so nothing can be compared")
            raise Failed(f"whole {quote(_said(whole), 300)}, streamed {quote(_said(streamed), 300)}")
    return "the same, for text and calls"


def _said(told: Answer) -> list[object]:
    return [told.content or "", [[call.name, call.arguments] for call in told.calls], told.finish_reason]


@STREAM.check(
    "S2",
    name="call-deltas",
    proves="a streamed call has an index, and its id and name once",
    oracle="the first piece of a call has id and name, later ones neither",
    severity=Severity.MAJOR,
    meaning="Clients that join the pieces get names like `terminalterminal`.",
    cure="Take id and name from the first piece alone, in the client.",
    issues=("raullenchai/Rapid-MLX#579",),
)
def _call_pieces(talk: Talk) -> str:
    exchange = talk.streamed(_LS, tools=tools("terminal"))
    told = answer(exchange)
    known: set[int] = set()
    pieces = [part for choice in deltas(exchange) for part in call_deltas(choice)]
    for part in pieces:
        index = part.get("index")
        if not isinstance(index, int) or isinstance(index, bool):
            raise Failed(f"a piece of a call has no index: {quote(part)}")
        name = (part.get("function") or {}).get("name")
        if index not in known and not (part.get("id") and name):
            raise Failed(f"the first piece of a call lacks its id or name: {quote(part)}")
        if index in known and (part.get("id") or name):
            raise Failed(f"a later piece of a call has an id or a name again: {quote(part)}")
        known.add(index)
    if not pieces:
        called(told, "terminal")
    return f"{len(pieces)} pieces, the first with id and name"


@STREAM.check(
    "S3",
    name="argument-pieces-join",
    proves="the pieces of a call's arguments make JSON",
    oracle="joined in their order they are the text of an object",
    severity=Severity.CRITICAL,
    meaning="Every streamed call is lost, or runs with other arguments than the model wrote.",
    cure="Ask for whole answers where tools are offered.",
    issues=("vllm-project/vllm#20028", "vllm-project/vllm#13622", "vllm-project/vllm#30328"),
)
def _argument_pieces_join(talk: Talk) -> str:
    told = called(answer(talk.streamed(_LS, tools=tools("terminal"))), "terminal")
    return quote([call.value() for call in told.calls], 80)


@STREAM.check(
    "S4",
    name="stream-ends",
    proves="a stream is one of server-sent events and says that it has ended",
    oracle="content-type text/event-stream, JSON in every event, one finish_reason, `data: [DONE]` last",
    severity=Severity.MAJOR,
    meaning="A client cannot tell an answer at its end from one that was cut off.",
    cure="Treat a stream without finish_reason as cut off, in the client.",
)
def _stream_ends(talk: Talk) -> str:
    exchange = talk.streamed(repeat("The sky is blue."))
    answer(exchange)
    kind = exchange.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        raise Failed(f"the content-type is {quote(kind)}")
    reasons = [choice["finish_reason"] for choice in deltas(exchange) if choice.get("finish_reason")]
    if len(reasons) != 1:
        raise Failed(f"{len(reasons)} events have a finish_reason: {quote(reasons)}")
    marks = [event.done for event in events(exchange.body)]
    if not marks or not marks[-1] or sum(marks) != 1:
        raise Failed(f"{sum(marks)} of {len(marks)} events are [DONE]" + (", not the last" if any(marks) else ""))
    return f"{len(marks) - 1} events, then [DONE]"


@STREAM.check(
    "S5",
    name="usage-in-streams",
    proves="a stream can tell what it cost",
    oracle="with stream_options.include_usage an event has the usage, with the numbers of the whole answer: of the prompt, and of "
    "what was written where that is the same",
    severity=Severity.MINOR,
    meaning="Budgets and the compaction of long conversations count nothing.",
    cure="Estimate in the client, or ask for whole answers.",
    issues=("ollama/ollama#4448", "lmstudio-ai/lmstudio-bug-tracker#713"),
)
def _usage_in_streams(talk: Talk) -> str:
    messages = repeat("The sky is blue.")
    exchange = talk.streamed(messages, stream_options={"include_usage": True})
    if 400 <= exchange.status < 500:  # Mistral's API knows no stream_options, and tells the usage always
        exchange = talk.streamed(messages)
    streamed, whole = answer(exchange), answer(talk.whole(messages))
    counts = [told.spent("prompt_tokens") for told in (streamed, whole)]
    if counts[0] is None:
        raise Failed("no event has a usage with prompt_tokens")
    if counts[1] is not None and counts[0] != counts[1]:
        raise Failed(f"the stream counts {counts[0]} prompt tokens, the whole answer {counts[1]}")
    written = [told.spent("completion_tokens") for told in (streamed, whole)]
    if not written[0]:
        raise Failed("no event has a usage with completion_tokens")
    if written[1] is not None and written[0] != written[1] and _said(streamed) == _said(whole):
        raise Failed(
            f"the stream counts {written[0]} completion tokens, the whole answer, which is the same, {written[1]}"
        )
    return f"{counts[0]} prompt tokens and {written[0]} of the answer"


@STREAM.check(
    "S6",
    name="characters-stay-whole",
    proves="characters of several bytes are not cut between events",
    oracle="every event is UTF-8, and none holds U+FFFD, which neither the question nor the whole answer does",
    severity=Severity.MAJOR,
    meaning="Names, paths and code in other scripts are damaged for good.",
    cure="Upgrade the server; ask for whole answers.",
)
def _characters_stay_whole(talk: Talk) -> str:
    exchange = talk.streamed(repeat(_SCRIPTS))
    content = answer(exchange).content or ""
    if "\ufffd" in (answer(talk.whole(repeat(_SCRIPTS))).content or ""):
        raise NeedsRealWeights("the whole answer has U+FFFD too: the model wrote bytes that are no text")
    if "\ufffd" in content or any("\ud800" <= char < "\ue000" for char in content):
        raise Failed(f"characters came in halves: {quote(content)}")
    if content.isascii():
        raise NeedsRealWeights(f"asked for {quote(_SCRIPTS)}, the model wrote {quote(content, 80)}")
    return quote(content, 80)


@STREAM.check(
    "S7",
    name="errors-of-streams",
    proves="a stream that cannot be given says why",
    oracle="an unknown role and a prompt beyond the declared context give 4xx with words, or an event with an error and words; "
    "errors in the middle of a stream cannot be brought about from outside, and are not proven",
    severity=Severity.MAJOR,
    meaning="An agent takes the silence for an empty answer, and goes on without what it asked for.",
    cure="Treat a stream without finish_reason as failed, in the client.",
)
def _errors_of_streams(talk: Talk) -> str:
    talk.needs_answers()
    asked = {"an unknown role": [{"role": "zork", "content": "a"}]}
    declared = declared_context(talk)
    if declared and declared <= MOST_WORDS:
        asked["a prompt beyond the context"] = [user("hello " * (declared + declared // 10))]
    seen = []
    for what, messages in asked.items():
        exchange = talk.streamed(messages, max_tokens=1)
        if not _says_why(exchange):
            raise Failed(f"{what} is answered with {exchange.status}: {quote(exchange.text)}")
        seen.append(f"{what}: {'an event' if exchange.status == 200 else exchange.status}")
    return "; ".join(seen)


def _says_why(exchange: Exchange) -> bool:
    if exchange.status == 200:
        values = [event.value for event in events(exchange.body) if isinstance(event.value, dict)]
        return any(("error" in value or value.get("object") == "error") and says_what(value) for value in values)
    try:
        return 400 <= exchange.status < 500 and says_what(exchange.json())
    except ValueError:
        return False


@STREAM.check(
    "S8",
    name="hanging-up-frees-the-server",
    proves="who hangs up in the middle of a stream leaves nothing running",
    oracle="after 32 clients hung up on long answers, a short question takes at most 5 seconds more than before",
    severity=Severity.MAJOR,
    meaning="Each interrupted answer keeps the model busy; after some of them nothing is answered any more.",
    cure="Upgrade the server; give long answers a max_tokens.",
)
def _hanging_up_frees_the_server(talk: Talk) -> str:
    def short() -> float:
        begun = time.monotonic()
        answer(talk.whole([user("a")], max_tokens=1, fresh=True))
        return time.monotonic() - begun

    before = short()
    left = 0
    try:
        for left in range(_HANG_UPS):  # noqa: B007 - told below
            talk.leave([user("Count from 1 to 10000 in words, without leaving any number out.")], max_tokens=4000)
        left = _HANG_UPS
        after = short()
    except ModelUnreachable as error:
        raise Failed(f"after {left} clients hung up nothing is answered: {error}") from error
    if after > before + 5:
        raise Failed(f"a short question took {before:.1f} seconds before and {after:.1f} after {left} clients hung up")
    return f"{before:.2f} seconds before, {after:.2f} after"
