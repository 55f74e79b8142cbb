"""Family J: answers that must be JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..asking import tools, user
from ..check import Family, Severity
from ..reading import Answer, answer, quote
from ..verdicts import Failed, NeedsRealWeights, Skipped
from ..wire import strict_json

if TYPE_CHECKING:
    from ..talk import Talk

JSON_MODE = Family("JSON")

_OBJECT = {"type": "json_object"}
#: Noise that a grammar holds comes to an end late; it is still the server that is judged.
_MOST_TOKENS = 1000
_QUESTION = [user("Give the capital of France as a JSON object with the key answer.")]
_SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "rank": {"type": "integer", "minimum": 7, "maximum": 9},
        "side": {"type": "string", "enum": ["left", "right"]},
    },
    "required": ["city", "rank", "side"],
    "additionalProperties": False,
}


def _parsed(told: Answer) -> Any:
    content = told.content or ""
    try:
        return strict_json(content)
    except ValueError:
        if told.cut:
            raise NeedsRealWeights(f"{told.way}: the answer was cut before its JSON ended") from None
        raise Failed(f"{told.way}: the content is no JSON: {quote(content)}") from None


@JSON_MODE.check(
    "J1",
    name="json-object",
    proves="response_format json_object gives JSON and nothing around it",
    oracle="the content is the text of an object, whole and streamed",
    severity=Severity.MAJOR,
    meaning="Programs that read the answer fail, on fences or on a sentence before them.",
    cure="Take a server that holds the model to it by a grammar; cut fences off in the client.",
    issues=("vllm-project/vllm#15551",),
)
def _json_object(talk: Talk) -> str:
    for told in talk.both(_QUESTION, response_format=_OBJECT, max_tokens=_MOST_TOKENS):
        if not isinstance(_parsed(told), dict):
            raise Failed(f"{told.way}: no object: {quote(told.content)}")
    return "an object, whole and streamed"


@JSON_MODE.check(
    "J2",
    name="json-schema",
    proves="response_format json_schema is kept",
    oracle="a question that says nothing of the schema is answered by it: keys, an enum, an integer from 7 to 9",
    severity=Severity.MAJOR,
    meaning="Programs read fields that are not there.",
    cure="Check every answer against the schema in the client; take a server with grammars.",
    issues=("vllm-project/vllm#10363",),
)
def _json_schema(talk: Talk) -> str:
    import jsonschema  # noqa: PLC0415 - 50 ms, for those who verify

    wanted = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": _SCHEMA}}
    question = [user("Tell me of a place that you like.")]
    for told in talk.both(question, response_format=wanted, max_tokens=_MOST_TOKENS):
        value = _parsed(told)
        try:
            jsonschema.validate(value, _SCHEMA)
        except jsonschema.ValidationError as error:
            raise Failed(f"{told.way}: {quote(value)} breaks the schema: {quote(error.message)}") from None
    return "kept, whole and streamed"


@JSON_MODE.check(
    "J3",
    name="json-beside-tools",
    proves="JSON can be asked for where tools are offered",
    oracle="the answer is JSON or a call, or an error of the class 4xx that says why not",
    severity=Severity.MINOR,
    meaning="An agent with tools cannot ask for its final answer as JSON.",
    cure="Leave the tools out of the last request.",
    issues=("vllm-project/vllm#10333",),
)
def _json_beside_tools(talk: Talk) -> str:
    asked = talk.whole(_QUESTION, tools=tools("terminal"), response_format=_OBJECT)
    if 400 <= asked.status < 500:
        raise Skipped(f"the server does not offer it and says so: {asked.status} {quote(asked.text, 80)}")
    told = answer(asked)
    if told.calls:
        return "a call"
    _parsed(told)
    return "JSON"


@JSON_MODE.check(
    "J4",
    name="json-without-markers",
    proves="no control token stands in JSON as text",
    oracle="the contents of J1's and J3's answers, and of one that asks for a call",
    severity=Severity.MAJOR,
    meaning="Programs read the source text of a call for a value.",
    cure="Leave the tools out where JSON is asked for.",
    issues=("vllm-project/vllm#15551", "vllm-project/vllm#10333"),
)
def _json_without_markers(talk: Talk) -> str:
    story = [user("Could you write me a story ? Answer as JSON.")]
    asked = [
        talk.whole(_QUESTION, response_format=_OBJECT),
        talk.whole(_QUESTION, tools=tools("terminal"), response_format=_OBJECT),
        talk.whole(story, tools=tools(), response_format=_OBJECT),
    ]
    answered = [answer(exchange) for exchange in asked if exchange.status == 200]
    if not answered:
        raise Skipped(f"the server takes no response_format: {asked[0].status} {quote(asked[0].text, 80)}")
    for told in answered:
        if told.marker:
            raise Failed(f"{told.marker} in {quote(told.content)}")
    return f"none in {len(answered)} answers"
