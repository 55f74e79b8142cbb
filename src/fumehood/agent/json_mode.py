"""Direct prompting: the model answers with one JSON object that holds a program, and the program's output is the answer.

For models and servers without function calling.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..errors import InvalidRequest, ModelMisbehaved
from ..llm.port import AssistantMessage, SystemMessage, UserMessage
from . import tools
from .transcript import Transcript

if TYPE_CHECKING:
    from ..llm.port import ChatModel
    from ..protocol.executor import Executor
    from .tools import ExecPython
    from .transcript import Observer

_SYSTEM_PROMPT = (
    "You answer questions by writing Python. Answer with one JSON object that has the single property code: a text with a "
    "whole Python program that prints the answer. The standard library, requests and httpx are there; {surroundings}. "
    "Write nothing but the JSON object."
)

_ATTEMPTS = 2


def answer(question: str, *, model: ChatModel, executor: Executor, observer: Observer, tool: ExecPython) -> Transcript:
    """Return the transcript; its `answer` is what the program printed.

    Raises `ModelMisbehaved` where the model breaks the form twice, the second time after being told what was wrong.
    """
    transcript = Transcript(model=model.name, method="direct prompting")
    transcript.add(
        SystemMessage(text=_SYSTEM_PROMPT.format(surroundings=tool.surroundings)), UserMessage(text=question)
    )
    code = _ask_for_code(transcript, model)
    observer.code(code)
    try:
        result = tool.execute(executor, code)
    except InvalidRequest as error:
        raise ModelMisbehaved(f"{model.name} wrote a program that cannot be run: {error}") from error
    transcript.executions.append(result)
    # All of it: this is for the user, and no model's memory bounds it.
    transcript.answer = tools.told(result, characters=None)
    return transcript


def _ask_for_code(transcript: Transcript, model: ChatModel) -> str:
    for attempt in range(_ATTEMPTS):
        completion = model.complete(transcript.messages, json_object=True)
        # Some servers call tools that nobody offered, and refuse a history in which such calls have no results.
        transcript.add_completion(completion.replace(tool_calls=()))
        try:
            if completion.finish_reason == "length":
                raise ValueError("it was cut off by its length limit")
            return _code_in(completion.text)
        except ValueError as error:
            problem = str(error)
        if attempt + 1 < _ATTEMPTS:
            words = f"That is not what was asked for: {problem}. Answer with one JSON object with the property code."
            transcript.add(UserMessage(text=words))
    last = next(m for m in reversed(transcript.messages) if isinstance(m, AssistantMessage))
    raise ModelMisbehaved(f"{model.name} did not answer in JSON mode's form: {problem}. It wrote: {last.text[:200]!r}")


def _code_in(text: str) -> str:
    """Return the program. Raises ValueError saying what is wrong with the answer."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if not isinstance(value, dict) or set(value) != {"code"}:
        raise ValueError("it is not an object with the single property code")
    code = value["code"]
    if not isinstance(code, str) or not code.strip():
        raise ValueError("its property code is not a text with a program")
    return tools.checked(code)
