"""A chat request as OpenAI's and Mistral's clients send it, read into what the engine needs. Its bytes are hostile.

What the engine cannot do is refused and named; fields that nobody knows are left alone, for clients add their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ChatRequestInvalid
from ..protocol.record import Record

if TYPE_CHECKING:
    from typing import Never

#: What the model's card asks for.
TEMPERATURE = 0.15
_MOST_STOPS, _LONGEST_STOP = 16, 1000
_MOST_TOOLS = 1000
# A field to the value at which it asks for nothing.
_NOT_SUPPORTED: dict[str, tuple[object, ...]] = {
    "n": (1,), "logprobs": (False,), "top_logprobs": (0,), "frequency_penalty": (0,), "presence_penalty": (0,),
    "logit_bias": ({},), "audio": (), "functions": ([],), "function_call": ("none", "auto"), "best_of": (1,),
}  # fmt: skip


class Sampling(Record):
    """How the next token is chosen, and when that ends. Temperature 0 takes the likeliest."""

    temperature: float = TEMPERATURE
    top_p: float = 1.0
    seed: int | None = None
    #: None stands for what is left of the context.
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


class Named(Record):
    """The choice of one tool."""

    name: str


Choice = Literal["auto", "none", "required"] | Named


class Ask(Record):
    """One request. `messages` are still as they were sent; tools are sound."""

    messages: Sequence[Mapping[str, Any]]
    #: Each with name, description, parameters and strict.
    tools: Sequence[Mapping[str, Any]] = ()
    choice: Choice = "auto"
    parallel: bool = True
    #: What the answer's text must be, as a JSON Schema.
    schema: Mapping[str, Any] | None = None
    sampling: Sampling = Sampling()


def read(body: Mapping[str, Any]) -> Ask:
    """Return the request. Raises `ChatRequestInvalid`, which names the field."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        _refuse("messages", "is to be a list of at least one message, each an object with a role")
    for field, nothing in _NOT_SUPPORTED.items():
        if body.get(field) is not None and body[field] not in nothing:
            _refuse(field, f"{_short(body[field])} is not supported: leave it out", code="unsupported_value")
    tools = _tools(body.get("tools"))
    choice = _choice(body.get("tool_choice"), [tool["name"] for tool in tools])
    schema = _schema(body.get("response_format"))
    if schema is not None and choice not in ("auto", "none"):
        _refuse("response_format", "asks for JSON where tool_choice forces a call: one of the two can be had")
    return Ask(
        messages=messages, tools=tools, choice=choice, parallel=_flag(body, "parallel_tool_calls", default=True),
        schema=schema, sampling=_sampling(body),
    )  # fmt: skip


def _sampling(body: Mapping[str, Any]) -> Sampling:
    temperature = _number(body, "temperature", least=0, most=100)
    top_p = _number(body, "top_p", least=0, most=1)
    if top_p == 0:
        _refuse("top_p", "0 leaves no token: write more than 0, and at most 1")
    seed = _whole(body, "seed", "random_seed", least=-(1 << 63), most=(1 << 63) - 1)
    return Sampling(
        temperature=TEMPERATURE if temperature is None else temperature,
        top_p=1.0 if top_p is None else top_p,
        seed=seed,
        max_tokens=_whole(body, "max_completion_tokens", "max_tokens", least=1, most=1 << 62),
        stop=_stop(body.get("stop")),
    )


def _stop(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value or []
    if (
        not isinstance(texts, list)
        or len(texts) > _MOST_STOPS
        or not all(isinstance(text, str) and 0 < len(text) <= _LONGEST_STOP for text in texts)
    ):
        _refuse("stop", f"is to be a text, or up to {_MOST_STOPS}, each of 1 to {_LONGEST_STOP} characters")
    return tuple(texts)


def _tools(value: Any) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MOST_TOOLS:
        _refuse("tools", f"is to be a list of up to {_MOST_TOOLS} tools")
    tools = [_tool(place, each) for place, each in enumerate(value)]
    names = [tool["name"] for tool in tools]
    if twice := {name for name in names if names.count(name) > 1}:
        _refuse("tools", f"offers {min(twice)!r} twice")
    return tools


def _tool(place: int, value: Any) -> dict[str, Any]:
    field = f"tools[{place}]"
    function = (
        value.get("function") if isinstance(value, dict) and value.get("type", "function") == "function" else None
    )
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        _refuse(field, 'is to be {"type": "function", "function": {"name": …, "description": …, "parameters": …}}')
    parameters, description = function.get("parameters"), function.get("description")
    if not isinstance(parameters, dict | None) or not isinstance(description, str | None):
        _refuse(field, "its parameters are to be a JSON Schema, an object, and its description a text")
    return {
        "name": function["name"], "description": description or "", "parameters": parameters or {},
        "strict": function.get("strict") is True,
    }  # fmt: skip


def _choice(value: Any, names: Sequence[str]) -> Choice:
    if value is None or value == "auto":
        return "auto"
    if value == "none":
        return "none"
    if not names:
        _refuse("tool_choice", f"{_short(value)} demands a call, and no tools are offered")
    if value in ("required", "any"):
        return "required"
    function = (
        value.get("function") if isinstance(value, dict) and value.get("type", "function") == "function" else None
    )
    name = function.get("name") if isinstance(function, dict) else None
    if name not in names:
        _refuse(
            "tool_choice",
            f"{_short(value)} is not auto, none, required, any, nor the name of a tool that is offered "
            f"({', '.join(names)}) as " + '{"type": "function", "function": {"name": …}}',
        )
    return Named(name=str(name))


def _schema(value: Any) -> Mapping[str, Any] | None:
    kind = value.get("type") if isinstance(value, dict) else value
    if kind is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    inner = value.get("json_schema") if isinstance(value, dict) and kind == "json_schema" else None
    schema = inner.get("schema", inner.get("schema_definition")) if isinstance(inner, dict) else None
    if not isinstance(schema, dict):
        _refuse(
            "response_format",
            'is to have the type text, json_object, or json_schema with {"json_schema": {"name": …, "schema": {…}}}',
        )
    return schema


def _number(body: Mapping[str, Any], field: str, *, least: float, most: float) -> float | None:
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(field, f"{_short(value)} is no number")
    # Python's JSON takes NaN, which is in no range, and whole numbers that no float can hold.
    if not least <= value <= most:
        _refuse(field, f"{_short(value)} is not from {least} to {most}")
    return float(value)


def _whole(body: Mapping[str, Any], *fields: str, least: int, most: int) -> int | None:
    field = next((each for each in fields if body.get(each) is not None), None)
    if field is None:
        return None
    value = body[field]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        _refuse(field, f"{_short(value)} is not a whole number from {least}")
    return int(value)


def _flag(body: Mapping[str, Any], field: str, *, default: bool) -> bool:
    value = body.get(field)
    if value is None:
        return default
    if not isinstance(value, bool):
        _refuse(field, f"{_short(value)} is neither true nor false")
    return bool(value)


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _refuse(field: str, why: str, code: str = "invalid_value") -> Never:
    raise ChatRequestInvalid(f"{field} {why}", param=field, code=code)
