"""The tool that a model is given, and what it is told of each execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..llm.port import ToolSchema
from ..protocol.execution import ExecutionRequest
from ..protocol.network import Network

if TYPE_CHECKING:
    from ..llm.port import ToolCall
    from ..protocol.execution import ExecutionResult
    from ..protocol.executor import Executor
    from ..protocol.limits import Limits

_NAME = "exec_python"
_PARAMETERS = {
    "type": "object",
    "properties": {"code": {"type": "string", "description": "The whole program."}},
    "required": ["code"],
}

#: How much of a program's output goes back to the model: its head and its tail.
OUTPUT_CHARACTERS = 16_000

_POLICY = (
    "The program tried to reach the network. This sandbox has none, by policy: trying again will not help. Answer "
    "without it, or say that it cannot be done."
)
_REFUSED = "trying again will not help. Answer without it, or say which host would be needed."
_REFUSALS_TOLD = 5


class ExecPython:
    """The tool: what its programs may use and reach, and what the model is told of that."""

    def __init__(self, limits: Limits, network: Network = Network()) -> None:  # noqa: B008 - a frozen record
        self._limits, self._network = limits, network
        hosts = network.describe()
        #: What programs find, in a sentence's part.
        self.surroundings = (
            f"the network reaches these hosts and no others: {hosts}" if hosts else "there is no network"
        )
        if network.has_credentials:
            self.surroundings += " (what they need to let you in is added on the way: send no credentials)"
        self.schema = ToolSchema(
            name=_NAME,
            description=(
                "Run a Python program in a fresh sandbox and return what it printed. Print what you want to see. Nothing stays "
                f"from one call to the next. The standard library, requests and httpx are there; {self.surroundings}."
            ),
            parameters=_PARAMETERS,
        )
        self.system_prompt = (
            f"You answer questions. You can run Python with the tool {_NAME}: use it whenever the answer depends on today's "
            "date, on arithmetic, or on anything else that a program finds out better than memory. Each program runs in a "
            f"fresh sandbox, where {self.surroundings}. When a question needs no program, answer at once. Answer in Markdown, "
            "from what the programs printed."
        )

    def execute(self, executor: Executor, code: str) -> ExecutionResult:
        """Run the program. Raises `InvalidRequest` where the model's text is none that can be run, as one that is too long."""
        return executor.execute(ExecutionRequest(code=code, limits=self._limits, network=self._network))


def code_of(call: ToolCall) -> str:
    """Return the program of a call. Raises ValueError in words that help the model to mend it."""
    if call.name != _NAME:
        raise ValueError(f"there is no tool {call.name!r}; the only one is {_NAME}(code)")
    code = call.parsed().get("code")
    if not isinstance(code, str) or not code.strip():
        raise ValueError(f"{_NAME} needs the argument code, a text with the whole program")
    return checked(code)


def checked(code: str) -> str:
    """Return a program that can be written to a file. Raises ValueError where JSON's escapes spelled half a character."""
    try:
        code.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the program is not valid Unicode: character {error.start} is half of a pair") from error
    return code


def told(result: ExecutionResult, *, characters: int | None = OUTPUT_CHARACTERS) -> str:
    """Return what the model is told of an execution: its output alone where all went well, else why not.

    Of each stream at most about `characters` are kept, its head and its tail; None keeps all.
    """
    parts = []
    if result.stdout:
        parts.append(_shortened(result.stdout, characters))
    if result.stderr:
        parts.append(f"[stderr]\n{_shortened(result.stderr, characters)}")
    if result.reason != "exited":
        parts.append(f"[the program was ended: {result.reason.replace('_', ' ')}: {result.detail}]")
    elif result.exit_code != 0:
        parts.append(f"[exit code {result.exit_code}]")
    refused = list(dict.fromkeys(each.why for each in result.refusals))[:_REFUSALS_TOLD]
    if refused:
        parts.append(f"[refused by the sandbox's policy: {'; '.join(map(_plain, refused))}: {_REFUSED}]")
    elif result.network_refused:
        parts.append(f"[{_POLICY}]")
    if result.files:
        names = ", ".join(ascii(file.path)[1:-1] for file in result.files[:20])
        parts.append(f"[it left these files, which are gone now: {names}]")
    return "\n".join(parts) or "[the program printed nothing: print what you want to see]"


def _plain(text: str) -> str:
    # The program chose the names in it.
    return ascii(text)[1:-1]


def _shortened(text: str, characters: int | None) -> str:
    if characters is None or len(text) <= characters:
        return text
    half = characters // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"
