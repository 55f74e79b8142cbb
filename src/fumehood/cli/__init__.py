"""The command line: one file a command. It composes everything else and alone prints."""

from __future__ import annotations

import gc
import os
import sys

from ..errors import FumehoodError
from .arguments import UsageError, help_text, parse
from .terminal import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .arguments import Command

#: Command to its summary; the module of the same name holds the rest and is loaded when the command is used.
COMMANDS = {
    "run": "Run a program in a fresh sandbox.",
    "shell": "Type into a session: cells in a sandbox that keeps their state.",
    "ask": "Ask a chat model that may run code here.",
    "serve": "Serve the code interpreter over HTTP.",
    "mcp": "Give models tools over MCP, on standard input and output.",
    "tool": "Make, change and run the functions that a server keeps.",
    "secret": "Keep, list and delete a server's secrets.",
    "key": "Make, list and revoke a server's API keys.",
    "execution": "List, show and forget what a server has run.",
    "model": "Serve a model's files over HTTP, or prove that a model server speaks right.",
    "doctor": "Show which walls this machine puts up, and how to mend those it does not.",
    "runtime": "Build, list and remove the environments that programs run in.",
}

_HELP = """Usage: fumehood COMMAND [ARGUMENTS]

Runs code that a model wrote, at once and behind the kernel's own walls.

Commands:
{commands}

Options:
  -h, --help     Show this and exit.
      --version  Show the version and exit.

Examples:
  fumehood run -c 'print(6*7)'
  fumehood ask "What are the first 50 Fibonacci numbers?"
  fumehood COMMAND --help
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Errors of ours become one sentence on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # A short life makes little garbage; looking for it while modules load takes longer than the memory is worth.
    gc.disable()
    try:
        return _dispatch(words)
    except FumehoodError as error:
        # It may quote a server or a file: nothing of that may drive the terminal.
        print(f"fumehood: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read us has gone; the interpreter's own flush at exit must not complain about that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        table = "\n".join(f"  {name:<11}{summary}" for name, summary in COMMANDS.items())
        print(_HELP.format(commands=table), end="")
        return 0 if words else 2
    if words[0] == "--version":
        from .. import __version__  # noqa: PLC0415 - asked for here alone

        print(f"fumehood {__version__}")
        return 0
    if words[0] not in COMMANDS:
        raise UsageError(f"there is no command {words[0]!r}: choose one of {', '.join(COMMANDS)}")
    command = load(words[0])
    parsed = parse(command, words[1:])
    if parsed is None:
        print(help_text(command), end="")
        return 0
    code = command.run(parsed)
    if words[0] == "run":
        # Taking the interpreter down in good order takes 1.5 ms and changes nothing any more.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def load(name: str) -> Command:
    """Return a command by its name."""
    command: Command = __import__(f"{__name__}.{name}", fromlist=["COMMAND"]).COMMAND
    return command
