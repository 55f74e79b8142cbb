"""A model that follows rules, with a tokenizer of its own: what it says depends on the request alone.

Faults of the model's side (prompt, choice, JSON) are acted out here, those of the card's tests in `scripted_card`, those of the wire
in `scripted_server`.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Collection
from itertools import count
from typing import Any

from fumehood.conformance.counting import counter, with_pattern

from .faults import Fault, Output
from .scripted_card import acted, text_of

TOKEN = re.compile(r" ?[A-Za-z]+| ?\d| ?[^\sA-Za-z\d]|\s")

CONTROL = re.compile(r"\[/?[A-Z_]+\]|</s>")


def tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


# The prompt ---------------------------------------------------------------------------------------------------------------


def prompt_length(body: dict[str, Any], faults: Collection[Fault]) -> int:
    """Return how many tokens the conversation is, written as version 13 of Mistral's tokenizer does."""
    messages = _kept(body["messages"], faults)
    length = 2 if Fault.DOUBLES_BOS in faults else 0 if Fault.FORGETS_BOS in faults else 1
    length += 40 if Fault.HIDES_A_SYSTEM_PROMPT in faults else 0
    if body.get("tools") and not _drops_tools(messages, faults):
        length += 2 + len(tokens(json.dumps(body["tools"], ensure_ascii=False)))
    return length + sum(_message_length(message, faults) for message in messages)


#: As conversions of the tokenizer had it that were wrong: words after quotes, and marks within words, are cut otherwise.
OTHER_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def exact_length(body: dict[str, Any], faults: Collection[Fault]) -> int:
    """Return how many tokens the conversation is by Mistral's own tokenizer. Raises what that raises where it takes no such one."""
    counts = with_pattern(OTHER_WORDS) if Fault.CUTS_WORDS_OTHERWISE in faults else counter(None)
    offered = body.get("tools") or None
    length = counts.prompt(body["messages"], offered)
    if offered and Fault.COMPACTS_TOOLS in faults:
        spaced, compact = (json.dumps(offered, separators=each) for each in ((", ", ": "), (",", ":")))
        length += counts.text(compact) - counts.text(spaced)
    return length


def rendered(body: dict[str, Any], faults: Collection[Fault]) -> str:
    """Return the prompt as text, as llama-server shows it."""
    messages, parts = body["messages"], ["<s>"]
    calls = [call["id"] for message in messages for call in message.get("tool_calls") or []]
    results = [message for message in messages if message["role"] == "tool"]
    if Fault.SHOWS_RESULTS_SWAPPED not in faults:
        results.sort(key=lambda message: calls.index(message["tool_call_id"]))
    at = [number for number, message in enumerate(messages) if message["role"] == "user"]
    tools_at = at[-1 if Fault.SHOWS_TOOLS_LATE in faults else 0]
    for number, message in enumerate(messages):
        if number == tools_at:
            offered = json.dumps(body["tools"], sort_keys=Fault.SHOWS_TOOLS_SORTED in faults)
            parts.append(f"[AVAILABLE_TOOLS]{offered}[/AVAILABLE_TOOLS]")
        if message["role"] == "tool":
            parts.append(f"[TOOL_RESULTS]{results.pop(0)['content']}[/TOOL_RESULTS]")
        else:
            parts.append(f"[INST]{text_of(message['content'])}[/INST]")
    return "".join(parts)


def _kept(messages: list[dict[str, Any]], faults: Collection[Fault]) -> list[dict[str, Any]]:
    if Fault.DROPS_USER_AFTER_TOOL in faults:
        pairs = zip([{"role": ""}, *messages], messages, strict=False)
        messages = [message for before, message in pairs if (before["role"], message["role"]) != ("tool", "user")]
    if Fault.DROPS_FIRST_OF_TWO_USERS in faults:
        pairs = zip(messages, [*messages[1:], {"role": ""}], strict=True)
        messages = [message for message, after in pairs if (message["role"], after["role"]) != ("user", "user")]
    return messages


def _drops_tools(messages: list[dict[str, Any]], faults: Collection[Fault]) -> bool:
    later = any(message["role"] == "assistant" for message in messages)
    return Fault.DROPS_TOOLS in faults or (later and Fault.DROPS_TOOLS_LATER in faults)


def _message_length(message: dict[str, Any], faults: Collection[Fault]) -> int:
    content = message.get("content")
    if message["role"] == "system":
        return 0 if Fault.DROPS_SYSTEM_PROMPTS in faults else 2 + len(tokens(text_of(content)))
    if message["role"] == "user":
        return 2 + _user_length(content, faults)
    if message["role"] == "tool":
        printed = isinstance(content, list) and Fault.PRINTS_TOOL_PARTS in faults
        text = str(content) if printed else text_of(content)
        if Fault.PARSES_CONTROL_TEXT_OF_TOOLS in faults:
            text = CONTROL.sub("!", text)
        return 2 if Fault.DROPS_TOOL_RESULTS in faults else 2 + len(tokens(text))
    text = "None" if content is None and Fault.PRINTS_NULL_CONTENT in faults else text_of(content)
    length = len(tokens(text if Fault.KEEPS_TRAILING_SPACES in faults else text.rstrip(" ")))
    for call in message.get("tool_calls") or []:
        arguments = "" if Fault.DROPS_ARGUMENTS in faults else call["function"]["arguments"]
        length += 2 + len(tokens(call["function"]["name"])) + len(tokens(arguments))
    return length + (0 if Fault.FORGETS_EOS in faults else 1)


def _user_length(content: Any, faults: Collection[Fault]) -> int:
    if isinstance(content, list) and Fault.PRINTS_USER_PARTS in faults:
        content = str(content)
    text = text_of(content)
    if Fault.PARSES_CONTROL_TEXT in faults:
        text = CONTROL.sub("!", text)
    urls = [part["image_url"]["url"] for part in content if "image_url" in part] if isinstance(content, list) else []
    cost = 0 if Fault.IGNORES_IMAGES in faults else sum(map(_image_length, urls))
    return len(tokens(text)) + (cost // 2 if Fault.SHRINKS_IMAGES in faults else cost)


def _image_length(url: str) -> int:
    # Width and height stand in the header of a PNG; a token for each square of 28 pixels, and one for each row.
    width, height = (int(each) for each in struct.unpack(">II", base64.b64decode(url.partition(",")[2])[16:24]))
    return -(-width // 28) * -(-height // 28) + -(-height // 28)


# The answer ---------------------------------------------------------------------------------------------------------------

_COUNTER = count()


def think(body: dict[str, Any], faults: Collection[Fault], *, noise: str = "") -> Output:
    """Return the answer. With `noise` the weights are random, and grammars alone hold them: it is all that they say.

    Where it speaks of a terminal, that is called whenever there are tools, whether it is among them or not.
    """
    messages = body["messages"]
    if Fault.FORGETS_THE_BEGINNING in faults:
        messages = messages[-100:]
    if Fault.FORGETS_AFTER_THOUSANDS in faults:
        messages = messages[-5000:]
    offered = [tool["function"]["name"] for tool in body.get("tools") or []]
    wanted = body.get("response_format", {}).get("type")
    if wanted in ("json_object", "json_schema"):
        return _json(body, faults)
    natural = Output(content=noise) if noise else _natural(messages, offered, faults)
    if noise and "terminal" in noise and offered:
        natural = Output(calls=(("terminal", '{"command": "ls"}'),))
    if body.get("temperature") == 1 and not noise:
        seed = body.get("seed", body.get("random_seed"))
        drawn = next(_COUNTER) if seed is None or Fault.IGNORES_SEEDS in faults else seed
        natural = natural.replace(content=f"{natural.content} {drawn}")
    return _chosen(natural, offered, body, faults)


def _chosen(natural: Output, offered: list[str], body: dict[str, Any], faults: Collection[Fault]) -> Output:
    choice = body.get("tool_choice", "auto")
    calls = natural.calls
    if choice == "none" and Fault.IGNORES_NONE not in faults:
        leaked = "".join(f"[TOOL_CALLS]{name}[ARGS]{arguments}" for name, arguments in calls)
        content = leaked if leaked and Fault.LEAKS_UNDER_NONE in faults else natural.content or "Once upon a time."
        return Output(content=content)
    if choice in ("required", "any") and Fault.IGNORES_REQUIRED not in faults:
        calls = calls or ((offered[0], "{}"),)
    if isinstance(choice, dict) and Fault.IGNORES_NAMED not in faults:
        calls = ((choice["function"]["name"], '{"code": "1"}'),)
    if body.get("parallel_tool_calls") is False and Fault.IGNORES_ONE_AT_A_TIME not in faults:
        calls = calls[:1]
    return Output(content="" if calls and not natural.calls else natural.content, calls=calls)


def _natural(messages: list[dict[str, Any]], offered: list[str], faults: Collection[Fault]) -> Output:
    card = acted(messages, faults)
    if card is not None:
        return card
    last = messages[-1]
    if last["role"] == "tool":
        return Output(content=_first_result(messages, faults))
    text = text_of(last.get("content"))
    first = re.search(r"First write this sentence: (.*)", text)
    calls = tuple(re.findall(r"^(\w+) (\{.*\})$", text, re.MULTILINE))
    if "write me a story" in text:
        calls = (("write_a_story", "{}"),)
    wanted = calls
    if Fault.CALLS_WHAT_IS_NOT_OFFERED not in faults:
        calls = tuple(call for call in calls if call[0] in offered)
    if calls:
        return Output(content=first[1] if first else "", calls=calls)
    if wanted and (Fault.WRITES_CALLS_NOT_OFFERED in faults or (not offered and Fault.LEAKS_WITHOUT_TOOLS in faults)):
        return Output(content="".join(f"[TOOL_CALLS]{name}[ARGS]{arguments}" for name, arguments in wanted))
    return Output(content=_prose(text, messages, faults))


def _prose(text: str, messages: list[dict[str, Any]], faults: Collection[Fault]) -> str:
    if text.startswith("Repeat this sentence"):
        more = f" ({next(_COUNTER)})" if Fault.NEVER_THE_SAME in faults else ""
        return text.partition("\n")[2] + more
    if "What day is it" in text:
        systems = " ".join(text_of(message["content"]) for message in messages if message["role"] == "system")
        date = re.search(r"\d{4}-\d\d-\d\d", "" if Fault.DROPS_SYSTEM_PROMPTS in faults else systems)
        return date[0] if date else "I do not know."
    if text.startswith("Tell me who is the most powerful"):
        known = any("is Dr Strange" in text_of(message.get("content")) for message in messages)
        return "Dr. Strange." if known else "I do not know."
    if text.startswith("Count from 1"):
        return "one two three four " * 1000
    return "Once upon a time." if "story" in text else "yes"


def _first_result(messages: list[dict[str, Any]], faults: Collection[Fault]) -> str:
    """Return the result of the first call: by its id, or by the order of the messages."""
    results = [message for message in messages if message["role"] == "tool"]
    calls = [call["id"] for message in messages for call in message.get("tool_calls") or []]
    if Fault.SWAPS_RESULTS not in faults:
        results = sorted(results, key=lambda message: calls.index(message["tool_call_id"]))
    return text_of(results[0]["content"])


def _json(body: dict[str, Any], faults: Collection[Fault]) -> Output:
    if Fault.CALLS_IN_JSON in faults and body.get("tools"):
        return Output(content='{"answer": "[TOOL_CALLS]write_a_story[ARGS]{}"}')
    schema = body["response_format"].get("json_schema", {}).get("schema")
    value: Any = {"answer": "Paris"}
    if schema and Fault.IGNORES_SCHEMAS not in faults:
        value = {name: _instance(each) for name, each in schema["properties"].items()}
    text = json.dumps(value)
    return Output(content=f"```json\n{text}\n```" if Fault.FENCES_JSON in faults else text)


def _instance(schema: dict[str, Any]) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    return schema.get("minimum", 0) if schema["type"] == "integer" else "a"
