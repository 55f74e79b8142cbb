"""The model card's six tools, really executed: sums here, `terminal` and `python` in a sandbox.

Promised: what a model wrote runs nowhere but behind the executor's walls, without a network. Not promised: that what such a
program says of itself is true; it is the model's word, as its answer is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import FumehoodError, InvalidRequest
from ..protocol.execution import ExecutionRequest
from ..protocol.limits import Limits
from .verdicts import Failed, Skipped

if TYPE_CHECKING:
    from ..protocol.execution import ExecutionResult
    from ..protocol.executor import Executor
    from .reading import Call

STORY_TOLD = "A long time ago in a galaxy far far away..."
_LIMITS = Limits(wall_seconds=10.0, output_bytes=1 << 20)
#: Of one run: a server may ask for more without end.
_MOST_PROGRAMS = 60
_MOST_CHARACTERS = 4000

# Runs inside. The model's program is a file beside it, the variable's name an argument: neither becomes text of this one.
_PYTHON = """
import sys
scope = {"__name__": "__main__"}
with open("program.py", encoding="utf-8") as file:
    exec(compile(file.read(), "program.py", "exec"), scope)
if sys.argv[1] not in scope:
    sys.exit(f"there is no variable {sys.argv[1]!r} after the program")
print(scope[sys.argv[1]])
"""

# Runs inside: calls the last function that the model's text defines.
_FUNCTION = """
import ast, json
with open("answer.py", encoding="utf-8") as file:
    tree = ast.parse(file.read())
scope = {"__name__": "answer"}
exec(compile(tree, "answer.py", "exec"), scope)
names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
if not names:
    raise SystemExit("it defines no function")
value = scope[names[-1]]("now", "here")
with open("value.json", "w", encoding="utf-8") as file:
    json.dump({"kind": type(value).__name__, "text": str(value)}, file)
"""


class Toolbox:
    """Executes the calls of one run. Without an executor the tools that need one are not there."""

    def __init__(self, executor: Executor | None) -> None:
        self._executor = executor
        self._left_programs = _MOST_PROGRAMS

    def execute(self, call: Call) -> str:
        """Return what the model is told. Raises `Failed` for arguments that are broken, `Skipped` where no program can run."""
        given = call.value()
        try:
            return self._execute(str(call.name), given)
        except (TypeError, ValueError, OverflowError) as error:
            return f"error: {error}"

    def value_of(self, source: str) -> str:
        """Return what the last function in `source` gives for a time and a place. Raises `Failed` where that is no text."""
        result = self._run(ExecutionRequest(code=_FUNCTION, files={"answer.py": _valid(source)}, limits=_LIMITS))
        data = next((file.data for file in result.files if file.path == "value.json"), None)
        if data is None or not result.ok:
            raise Failed(f"its function does not run: {_told(result)[-300:]!r}")
        try:
            told = json.loads(data)
            kind, text = str(told["kind"]), str(told["text"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Failed("its function does not run: it wrote over what it was to return") from None
        if kind != "str":
            raise Failed(f"its function returns {text[:80]!r} of type {kind[:40]}, and not text")
        return text

    def _execute(self, name: str, given: dict[str, Any]) -> str:
        if name in _SUMS:
            one, other = float(given.get("a", "")), float(given.get("b", ""))
            return str(_SUMS[name](one, other))
        if name == "write_a_story":
            return STORY_TOLD
        if name == "terminal":
            command = " ".join(_text(given, each) for each in ("command", "args") if given.get(each))
            return _told(self._run(ExecutionRequest(code=_valid(command), language="bash", limits=_LIMITS)))
        if name == "python":
            variable, program = _text(given, "result_variable"), _valid(_text(given, "code"))
            files = {"program.py": program}
            return _told(self._run(ExecutionRequest(code=_PYTHON, args=[variable], files=files, limits=_LIMITS)))
        raise ValueError(f"there is no tool {name!r}")

    def _run(self, request: ExecutionRequest) -> ExecutionResult:
        if self._executor is None:
            raise Skipped("programs of the model's cannot run here, for there is no sandbox")
        self._left_programs -= 1
        if self._left_programs < 0:
            raise Failed(f"more than {_MOST_PROGRAMS} programs were asked for in one run: no more are run")
        try:
            return self._executor.execute(request)
        except InvalidRequest:
            raise
        except FumehoodError as error:
            raise Skipped(f"programs of the model's cannot run here: {error}") from error


_SUMS = {
    "add_number": lambda one, other: one + other,
    "multiply_number": lambda one, other: one * other,
    "substract_number": lambda one, other: one - other,
}


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise ValueError(f"the argument {name} must be text")
    return value


def _valid(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the program holds half of a character") from None
    return text


def _told(result: ExecutionResult) -> str:
    parts = [result.stdout, result.stderr]
    if not result.ok:
        parts.append(f"[{result.reason}, exit code {result.exit_code}]")
    return "\n".join(part.rstrip("\n") for part in parts if part)[-_MOST_CHARACTERS:]
