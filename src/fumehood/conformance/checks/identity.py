"""Family D: who answers, and whether it does so twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..asking import repeat, user
from ..check import Family, Severity
from ..reading import answer, quote
from ..verdicts import Failed, NeedsRealWeights, Skipped

if TYPE_CHECKING:
    from ..talk import Talk

IDENTITY = Family("Identity")


@IDENTITY.check(
    "D1",
    name="repeats-itself",
    proves="at temperature 0 the same question has the same answer",
    oracle="the same request three times",
    severity=Severity.MINOR,
    meaning="Failures cannot be reproduced, and caches of answers do not help.",
    cure="Nothing where requests are batched (the order of sums differs); else look whether temperature is taken over.",
)
def _repeats_itself(talk: Talk) -> str:
    messages = repeat("Pack my box with five dozen liquor jugs.")
    said = [answer(talk.whole(messages, fresh=True)).content for _time in range(3)]
    for other in said[1:]:
        if other != said[0]:
            raise Failed(f"once {quote(said[0])}, then {quote(other)}")
    return "three times the same"


@IDENTITY.check(
    "D2",
    name="system-prompt-arrives",
    proves="the caller's system prompt reaches the model",
    oracle="it costs tokens, and the model tells the odd date that stands in it",
    severity=Severity.CRITICAL,
    meaning="Rules given to the agent do not hold.",
    cure="Start llama-server with --jinja; take a template that knows the role system.",
)
def _system_prompt_arrives(talk: Talk) -> str:
    system = {"role": "system", "content": "You are a helpful assistant. Today's date is 2031-03-14."}
    question = user("What day is it today? Answer with the date as YYYY-MM-DD.")
    # Beside a shorter one: without any, some servers put in one of their own.
    cost = talk.prompt_tokens([system, question]) - talk.prompt_tokens([{**system, "content": "a"}, question])
    if cost < 7:
        raise Failed(f"seven words more in the system prompt cost {cost} tokens")
    told = answer(talk.whole([system, question]))
    if "2031-03-14" not in (told.content or ""):
        raise NeedsRealWeights(
            f"seven words cost {cost} tokens; asked for the date the model says {quote(told.content, 80)}"
        )
    return f"{cost} tokens, and its date is told"


@IDENTITY.check(
    "D3",
    name="model-is-listed",
    proves="the model is among those that the server lists",
    oracle="/models has its id; a declared context is a positive number",
    severity=Severity.MINOR,
    meaning="Clients that look before they ask refuse a model that is there.",
    cure="Take the listed name; vLLM: --served-model-name; llama-server: --alias.",
)
def _model_is_listed(talk: Talk) -> str:
    names = [each.get("id") for each in talk.models()]
    if talk.model not in names:
        raise Failed(f"{quote(talk.model)} is not among {quote(names)}")
    context = declared_context(talk)
    return f"listed, with a context of {context} tokens" if context else "listed; no context is declared"


@IDENTITY.check(
    "D4",
    name="seed",
    proves="a seed repeats what chance brought",
    oracle="at temperature 1 the same seed gives the same answer three times, where others give another",
    severity=Severity.MINOR,
    meaning="Runs of an agent cannot be repeated, and none of its failures either.",
    cure="Record answers and replay them; Mistral's API has the seed as random_seed.",
)
def _seed(talk: Talk) -> str:
    messages = [user("Write one sentence about the sea that nobody has written before.")]
    for name in ("seed", "random_seed"):
        asked = [
            talk.whole(messages, fresh=True, temperature=1, max_tokens=30, **{name: number})
            for number in (7, 7, 7, 8, 9, 10)
        ]
        if all(400 <= exchange.status < 500 for exchange in asked):
            continue
        said = [answer(exchange).content for exchange in asked]
        if len(set(said[:3])) > 1:
            raise Failed(
                f"the {name} 7 gives {quote(said[0], 80)}, then {quote(next(iter({*said[1:3]} - {said[0]})), 80)}"
            )
        if len(set(said)) == 1:
            raise NeedsRealWeights(f"at temperature 1 four seeds give the same: {quote(said[0], 80)}")
        return f"{name} 7 repeats itself, others differ"
    raise Skipped(f"the server takes no seed and says so: {asked[0].status} {quote(asked[0].text, 80)}")


def declared_context(talk: Talk) -> int | None:
    """Return the context that /models declares for the model, by any of the names in use; None where there is none."""
    try:
        models = talk.models()
    except Skipped:
        return None
    entry = next((each for each in models if each.get("id") == talk.model), {})
    meta = entry.get("meta")
    for holder in (entry, meta if isinstance(meta, dict) else {}):
        for name in ("max_model_len", "max_context_length", "context_length", "n_ctx"):
            number = holder.get(name)
            if isinstance(number, int) and not isinstance(number, bool) and number > 0:
                return number
    return None
