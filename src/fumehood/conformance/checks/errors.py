"""Family E: requests that are wrong, and how that is said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..asking import assistant, result, tools, user
from ..check import Family, Severity
from ..reading import answer, quote
from ..talk import retry_after
from ..verdicts import Failed, Skipped

if TYPE_CHECKING:
    from ..talk import Talk
    from ..wire import Exchange

ERRORS = Family("Errors")

#: Some servers make sense of these.
_MAY_BE_ANSWERED = ("a result without its call", "a system prompt after an answer")


def _wrong(talk: Talk) -> list[tuple[str, Exchange]]:
    known = {"model": talk.model, "max_tokens": 1}
    odd = [{"role": "zork", "content": "a"}]
    orphan = [user("a"), result("aaaaaaaa1", "b")]
    late = [user("a"), assistant("b"), {"role": "system", "content": "c"}, user("d")]
    return [
        ("a body that is no JSON", talk.raw(b'{"model": "a", "messages": [')),
        ("no messages field", talk.request(known)),
        ("no message in it", talk.request({**known, "messages": []})),
        ("messages that are text", talk.request({**known, "messages": "hello"})),
        ("an unknown role", talk.request({**known, "messages": odd})),
        ("a result without its call", talk.request({**known, "messages": orphan, "tools": tools("terminal")})),
        ("a system prompt after an answer", talk.request({**known, "messages": late})),
    ]


@ERRORS.check(
    "E1",
    name="error-classes",
    proves="a wrong request is called the caller's fault",
    oracle="seven wrong requests give 4xx; a result without its call and a late system prompt may also be answered",
    severity=Severity.MAJOR,
    meaning="Clients try again what can never work, for 5xx says so; or take an answer to nothing for one.",
    cure="Check requests in the client; do not repeat a request that got 500 more than once.",
)
def _error_classes(talk: Talk) -> str:
    talk.needs_answers()
    found = []
    for what, exchange in _wrong(talk):
        lenient = exchange.status == 200 and what in _MAY_BE_ANSWERED
        if not 400 <= exchange.status < 500 and not lenient:
            found.append(f"{what} is answered with {exchange.status}: {quote(exchange.text, 80)}")
    if found:
        raise Failed("; ".join(found))
    return "4xx for all"


@ERRORS.check(
    "E2",
    name="unknown-names",
    proves="an unknown model is refused, and an unknown field breaks nothing",
    oracle="the model zork gives 4xx; the field zork gives an answer or 4xx",
    severity=Severity.MINOR,
    meaning="A wrong name in the configuration is answered by another model, and nobody notices.",
    cure="Compare with /models in the client.",
)
def _unknown_names(talk: Talk) -> str:
    talk.needs_answers()
    request = {"model": talk.model, "messages": [user("a")], "max_tokens": 1}
    model = talk.request({**request, "model": "zork-that-is-not-there"})
    if not 400 <= model.status < 500:
        raise Failed(f"an unknown model is answered with {model.status}: {quote(model.text)}")
    field = talk.request({**request, "zork": 1})
    if field.status >= 500:
        raise Failed(f"an unknown field is answered with {field.status}: {quote(field.text)}")
    return f"model {model.status}, field {field.status}"


@ERRORS.check(
    "E3",
    name="error-shapes",
    proves="an error can be read by a program",
    oracle="its body is JSON with error.message (OpenAI's), message (Mistral's) or detail (FastAPI's)",
    severity=Severity.MINOR,
    meaning="The user sees that something failed, and not what.",
    cure="Show the body as it is, in the client.",
)
def _error_shapes(talk: Talk) -> str:
    talk.needs_answers()
    errors = [(what, exchange) for what, exchange in _wrong(talk) if exchange.status >= 400]
    if not errors:
        raise Skipped("the server refuses nothing that is wrong: see E1")
    for what, exchange in errors:
        if not says_what(_value(exchange)):
            raise Failed(f"{what}: the error is {quote(exchange.text)}")
    return "all name what is wrong"


@ERRORS.check(
    "E4",
    name="busy-says-when",
    proves="a server that is busy queues requests, or refuses them and says when to come again",
    oracle="16 requests at once are answered, or refused with 429 or 503, a Retry-After of seconds or a date, and words",
    severity=Severity.MINOR,
    meaning="Agents that run side by side give up, or try again at once and make it worse.",
    cure="Wait in the client, longer each time, where no header says how long.",
)
def _busy_says_when(talk: Talk) -> str:
    talk.needs_answers()
    refused = 0
    for exchange in talk.at_once([user("a")], 16, max_tokens=1):
        if exchange.status == 200:
            answer(exchange)
            continue
        if exchange.status not in (429, 503):
            raise Failed(f"one of 16 requests at once is answered with {exchange.status}: {quote(exchange.text)}")
        if retry_after(exchange) is None:
            shown = quote(exchange.headers.get("retry-after", ""))
            raise Failed(f"refused with {exchange.status}, and Retry-After is {shown}: neither seconds nor a date")
        if not says_what(_value(exchange)):
            raise Failed(f"refused with {exchange.status}, and the error is {quote(exchange.text)}")
        refused += 1
    return f"16 requests at once: {16 - refused} are answered, {refused} told when to come again"


def _value(exchange: Exchange) -> Any:
    try:
        return exchange.json()
    except ValueError:
        return None


def says_what(value: Any) -> bool:
    """Whether a body, or an event of a stream, says in words what is wrong, by any of the shapes in use."""
    if not isinstance(value, dict):
        return False
    error = value.get("error")
    words = [error.get("message") if isinstance(error, dict) else error, value.get("message"), value.get("detail")]
    return any(word and json.dumps(word) != '""' for word in words)
