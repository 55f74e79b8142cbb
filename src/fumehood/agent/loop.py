"""Function calling: the model may run programs as often as it likes until it answers, within a limit on turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidRequest, ModelMisbehaved, TurnLimitReached
from ..llm.port import SystemMessage, ToolMessage, UserMessage
from . import tools
from .transcript import Transcript

if TYPE_CHECKING:
    from ..llm.port import ChatModel, ToolCall
    from ..protocol.executor import Executor
    from .tools import ExecPython
    from .transcript import Observer

MAX_TURNS = 10

# Servers may pass off what arrived of a call as a whole one; running half a program is worse than running none.
_CUT_OFF = "[error: your answer was cut off by its length limit before the call was complete: nothing was run]"


def answer(
    question: str,
    *,
    model: ChatModel,
    executor: Executor,
    observer: Observer,
    tool: ExecPython,
    max_turns: int = MAX_TURNS,
    stream: bool = True,
) -> Transcript:
    """Return the transcript, its `answer` filled in.

    Raises `TurnLimitReached` where the model still asks for programs after `max_turns` answers, and `ModelError`s.
    """
    transcript = Transcript(model=model.name, method="function calling")
    transcript.add(SystemMessage(text=tool.system_prompt), UserMessage(text=question))
    for _turn in range(max_turns):
        completion = model.complete(transcript.messages, tools=[tool.schema], on_text=observer.text if stream else None)
        if completion.text and not stream:
            observer.text(completion.text)
        transcript.add_completion(completion)
        if not completion.tool_calls:
            transcript.cut_off = completion.finish_reason == "length"
            if not completion.text.strip():
                why = "its length limit came first" if transcript.cut_off else "no text and no call"
                raise ModelMisbehaved(f"{model.name} answered with nothing: {why}")
            transcript.answer = completion.text
            return transcript
        cut_off = completion.finish_reason == "length"
        for call in completion.tool_calls:
            told = _CUT_OFF if cut_off else _run(call, executor, observer, tool, transcript)
            observer.result(told)
            transcript.add(ToolMessage(call_id=call.id, name=call.name, text=told))
    raise TurnLimitReached(
        f"{model.name} still asked for programs after {max_turns} turns: raise --max-turns or ask for less at once"
    )


def _run(call: ToolCall, executor: Executor, observer: Observer, tool: ExecPython, transcript: Transcript) -> str:
    try:
        code = tools.code_of(call)
    except ValueError as error:
        # The model's mistake goes back to the model, which mends it more often than not.
        return f"[error: {error}]"
    observer.code(code)
    try:
        result = tool.execute(executor, code)
    except InvalidRequest as error:
        return f"[error: {error}]"
    transcript.executions.append(result)
    return tools.told(result)
