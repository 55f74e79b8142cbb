"""Function calling: the model may run programs as often as it likes until it answers, within a limit on turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidRequest, ModelMisbehaved, TurnLimitReached
from ..llm import leaked
from ..llm.port import Note, Quirk, SystemMessage, ToolMessage, UserMessage
from . import tools
from .transcript import Transcript

if TYPE_CHECKING:
    from ..llm.port import ChatModel, Completion, ToolCall
    from ..protocol.executor import Executor
    from .tools import ExecPython
    from .transcript import Observer

MAX_TURNS = 10

#: How often, in all, a model is asked again after an answer that is none.
ASKED_AGAIN = 2

# Servers may pass off what arrived of a call as a whole one; running half a program is worse than running none.
_CUT_OFF = "[error: your answer was cut off before the call was complete, as a length limit does: nothing was run]"
_SPLIT = (
    f"[error: your call arrived in two halves, because its arguments hold {leaked.MARK}, at which the server cuts: nothing "
    f"was run. Write it in two parts, as '{leaked.MARK[:6]}' + '{leaked.MARK[6:]}'.]"
)
_EMPTY = "Your answer arrived empty. Answer in words, or call the tool."
_LEAKED = (
    "Your call arrived as text that is no whole call, so nothing was run. Call the tool again, or answer in words."
)


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
    asked_again = 0
    for turn in range(1, max_turns + 1):
        completion = model.complete(transcript.messages, tools=[tool.schema], on_text=observer.text if stream else None)
        if completion.text and not stream:
            observer.text(completion.text)
        transcript.add_completion(completion)
        if completion.tool_calls:
            _run_all(completion, executor, observer, tool, transcript)
            continue
        last = asked_again == ASKED_AGAIN or turn == max_turns
        words = _unusable(completion, transcript, tool, last=last, model=model.name)
        if words is None:
            transcript.cut_off = completion.finish_reason == "length"
            transcript.answer = completion.text
            return transcript
        asked_again += 1
        transcript.notes.append(Note(quirk=Quirk.ASKED_AGAIN, words=f"an answer was none; the model was told: {words}"))
        transcript.add(UserMessage(text=words))
    raise TurnLimitReached(
        f"{model.name} still asked for programs after {max_turns} turns: raise --max-turns or ask for less at once"
    )


def _unusable(
    completion: Completion, transcript: Transcript, tool: ExecPython, *, last: bool, model: str
) -> str | None:
    """Return what to tell the model of an answer that is none; None for one. Raises `ModelMisbehaved` the `last` time."""
    cut_off = completion.finish_reason == "length"
    if not completion.text.strip():
        if cut_off or last:
            raise ModelMisbehaved(
                f"{model} answered with nothing: {'its length limit came first' if cut_off else 'no text and no call'}"
            )
        return _EMPTY
    # Where nobody spoke to it of the notation, what begins with it is a call that its server did not understand.
    if not leaked.begins_call(completion.text) or leaked.is_quoted(transcript.messages, [tool.schema]):
        return None
    if last:
        raise ModelMisbehaved(
            f"{model} writes its calls as text, {completion.text[:100]!r}: turn on its server's parser of calls (vLLM: "
            "--enable-auto-tool-choice --tool-call-parser mistral; llama.cpp: --jinja), or pass --json-mode"
        )
    return _LEAKED


def _run_all(
    completion: Completion, executor: Executor, observer: Observer, tool: ExecPython, transcript: Transcript
) -> None:
    """Run the calls of an answer; where it was cut off, tell the model so instead."""
    unrun = None
    if completion.finish_reason == "length":
        unrun = _SPLIT if Quirk.CALL_SPLIT in completion.quirks else _CUT_OFF
    for call in completion.tool_calls:
        told = unrun or _run(call, executor, observer, tool, transcript)
        observer.result(told)
        transcript.add(ToolMessage(call_id=call.id, name=call.name, text=told))


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
