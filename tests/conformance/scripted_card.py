"""What a perfect model answers to the card's tests, and what wrong ones do."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from .faults import Fault, Output

#: The card's trace: each operation, and the words beside it.
OPERATIONS = (
    ("multiply_number", "2", "3", "I start with the product."),
    ("add_number", "6", "6", "Now the sum."),
    ("add_number", "8", "2", "The parentheses of the other one first."),
    ("substract_number", "19", "10", "Now the difference."),
    ("add_number", "9", "1", "And the last step."),
)
PROGRAM = "import hashlib\ndigest = hashlib.sha256(b'fumehood 2031-03-14').hexdigest()\nprint('hashing', len(digest), 'digits')\n"
FUNCTION = '```python\ndef most_powerful_being(time=None, location=None):\n    return "Dr. Strange"\n```'


def acted(messages: list[dict[str, Any]], faults: Collection[Fault]) -> Output | None:
    """Return the answer where the conversation is one of the card's; None for any other."""
    asked = next((text_of(message["content"]) for message in reversed(messages) if message["role"] == "user"), "")
    results = [text_of(message["content"]) for message in messages if message["role"] == "tool"]
    if asked == "Could you write me a story ?" and any(
        "Devstral-Small" in text_of(each["content"]) for each in messages
    ):
        return _story(results, faults)
    if asked.startswith("Compute the results steps by steps"):
        return _equations(results, faults)
    if "SHA-256" in asked:
        return _program(results, faults)
    if asked.startswith("Tell me who is the most powerful being in the universe. Then code"):
        return Output(content=_strange(messages, faults))
    if asked.startswith("How would you develop a web server"):
        return _web_server(faults)
    if asked.startswith("Who are you ?"):
        return Output(content=_introduction(messages, faults))
    return None


def text_of(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def _story(results: list[str], faults: Collection[Fault]) -> Output:
    if Fault.TELLS_STORIES_AT_ONCE in faults:
        return Output(content="There was a knight.")
    if results and Fault.ANSWERS_NOTHING_AFTER_TOOLS in faults:
        return Output()
    if results and Fault.CALLS_WITHOUT_END not in faults:
        return Output(content=f"{results[0]} there was a knight.")
    return Output(calls=(("write_a_story", "{}"),) * (12 if Fault.CALLS_BY_THE_DOZEN in faults else 1))


def _equations(results: list[str], faults: Collection[Fault]) -> Output:
    steps = list(OPERATIONS)
    if Fault.SWAPS_OPERANDS in faults:
        steps[3] = ("substract_number", "10", "19", "Now the difference.")
    if Fault.GUESSES_RESULTS in faults and not results:
        return Output(content="All at once.", calls=tuple(_sum(*step[:3]) for step in steps))
    if Fault.LEAVES_AN_EQUATION_OUT in faults:
        steps = steps[:2]
    if len(results) >= len(steps):
        second = "unknown" if Fault.MISREADS_RESULTS in faults else "10"
        return Output(content=f"The results are 12 and {second}.")
    name, one, other, words = steps[len(results)]
    last = len(results) == len(steps) - 1
    silent = Fault.SAYS_NOTHING_BESIDE_CALLS in faults or (last and Fault.SAYS_NOTHING_BESIDE_THE_LAST_CALL in faults)
    return Output(content="" if silent else words, calls=(_sum(name, one, other),))


def _sum(name: str, one: str, other: str) -> tuple[str, str]:
    return name, json.dumps({"a": one, "b": other})


def _program(results: list[str], faults: Collection[Fault]) -> Output:
    if Fault.MAKES_RESULTS_UP in faults:
        return Output(content="The digits are 00000000.")
    if not results:
        program = PROGRAM.replace("fumehood", "fume") if Fault.WRITES_WRONG_PROGRAMS in faults else PROGRAM
        return Output(calls=(("python", json.dumps({"code": program, "result_variable": "digest"})),))
    digest = results[0].splitlines()[-1]
    shown = "12345678" if Fault.TELLS_OTHER_RESULTS in faults else digest[:8]
    return Output(content=f"The first eight digits are {shown}.")


def _strange(messages: list[dict[str, Any]], faults: Collection[Fault]) -> str:
    if not any("is Dr Strange" in text_of(message.get("content")) for message in messages):
        return "I do not know."
    function = FUNCTION
    if Fault.WRITES_BROKEN_CODE in faults:
        function = function.replace("def ", "define ")
    if Fault.RETURNS_NO_TEXT in faults:
        function = function.replace('"Dr. Strange"', "42")
    if Fault.WRITES_NO_CODE in faults:
        function = ""
    return f"It is Dr. Strange.\n\n{function}"


def _web_server(faults: Collection[Fault]) -> Output:
    if Fault.CALLS_FOR_TALK in faults:
        return Output(calls=(("terminal", '{"command": "ls"}'),))
    code = "```python\nfrom flask import Flask\napp = Flask(__name__)\n" + (
        "" if Fault.LEAVES_FENCES_OPEN in faults else "```\n"
    )
    if Fault.RECOMMENDS_PHP in faults:
        code += "## PHP\n"
    return Output(
        content=code if Fault.ANSWERS_IN_SHORT in faults else code + "Python, Go, Rust and Ruby all do it well. " * 15
    )


def _introduction(messages: list[dict[str, Any]], faults: Collection[Fault]) -> str:
    systems = " ".join(text_of(message["content"]) for message in messages if message["role"] == "system")
    date = re.search(r"\d{4}-\d\d-\d\d", "" if Fault.DROPS_SYSTEM_PROMPTS in faults else systems)
    name = "a helpful assistant" if Fault.FORGETS_ITS_NAME in faults else "Devstral, made by Mistral AI"
    return f"I am {name}. Today is {date[0] if date else 'a fine day'}."
