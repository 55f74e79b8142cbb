"""`fumehood shell`: a session at the terminal. What is typed runs inside; state stays until the end."""

from __future__ import annotations

import codeop
import os
import sys
from pathlib import Path

from ..engine import SESSION_LIMITS, Engine
from ..errors import FumehoodError, InvalidRequest, SessionDead
from ..protocol.limits import MiB
from ..protocol.session import CellError, Cleared, Display, Event, Output
from . import pictures
from .arguments import Arguments, Command, Option, UsageError, seconds, size
from .progress import Building
from .terminal import is_terminal, note, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..sessions import Session

_COMMANDS = """:files             list the session's files
:put PATH [NAME]   copy a file of this machine into the session
:get NAME [PATH]   copy one of its files to this machine
:restart           begin anew
:quit              leave (also Ctrl-D)
An empty line ends a block. Ctrl-C interrupts a cell; state stays."""


def shell(arguments: Arguments) -> int:
    """Do the command."""
    limits = SESSION_LIMITS.replace(
        memory_bytes=arguments.memory or 512 * MiB, wall_seconds=arguments.timeout or 86_400.0
    )
    files = {Path(path).name: _content(path) for path in arguments.file}
    with (
        Engine(without=arguments.without, notice=Building(), warm_bytes=0) as engine,
        engine.session(arguments.language, limits=limits, files=files, idle_seconds=86_400.0) as session,
    ):
        if not is_terminal(0):
            return 0 if _Cells(session).run(sys.stdin.read()) else 1
        return _converse(session)


def _converse(session: Session) -> int:
    cells = _Cells(session)
    note(f"{session.language} in a sandbox; :help lists commands")
    with _History(session.language):
        while True:
            try:
                text = _read(session.language)
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:
                print()
                continue
            if text.strip() in (":quit", ":q"):
                return 0
            try:
                if text.startswith(":"):
                    _command(session, text.split())
                elif text.strip():
                    cells.run(text)
            except SessionDead as error:
                note(f"fumehood: {printable(str(error))} with :restart")
            except (FumehoodError, OSError) as error:
                note(f"fumehood: {printable(str(error))}")


def _read(language: str) -> str:
    """Read one cell: lines until it is whole. Raises `EOFError` at the end of input."""
    lines = [input(">>> ")]
    while not lines[0].startswith(":") and _goes_on(language, lines):
        lines.append(input("... "))
    return "\n".join(lines)


def _goes_on(language: str, lines: list[str]) -> bool:
    if not language.startswith("python") or lines[0].lstrip().startswith(("!", "%", "?")):
        return False
    try:
        return codeop.compile_command("\n".join(lines), symbol="single") is None
    except (SyntaxError, ValueError, OverflowError):
        return False  # its complaint comes from inside


class _Cells:
    """Runs cells and shows what they show."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self, code: str) -> bool:
        """Run one; Ctrl-C interrupts it. Return whether it ended well."""
        import signal  # noqa: PLC0415 - loaded with the session by now

        # A handler and no exception: what runs is interrupted, not we.
        before = signal.signal(signal.SIGINT, lambda _number, _frame: self._session.interrupt())
        try:
            result = self._session.run(code, on_event=_show)
        finally:
            signal.signal(signal.SIGINT, before)
        if result.ended == "died" and self._session.death is not None:
            death = self._session.death
            note(f"fumehood: the session died ({death.reason}: {printable(death.detail)}); :restart begins anew")
        elif result.ended != "finished":
            note(f"fumehood: {result.ended.replace('_', ' ')}: the cell was interrupted, what was there before stays")
        return result.ok


def _show(event: Event) -> None:
    safe: Callable[[str], str] = printable if is_terminal(1) else str
    if isinstance(event, Output):
        stream = sys.stdout if event.stream == "stdout" else sys.stderr
        stream.write(safe(event.text))
        stream.flush()
    elif isinstance(event, CellError):
        sys.stderr.write(safe(event.traceback))
    elif isinstance(event, Display):
        shown = pictures.show(event.data)
        if shown is None:
            print(safe(str(event.data.get("text/plain", ", ".join(event.data)))))
        elif shown:
            print(f"[picture saved as {shown}]")
    elif isinstance(event, Cleared):
        print("-" * 8)


def _command(session: Session, words: list[str]) -> None:
    name, *rest = words
    if name == ":files" and not rest:
        for path, length in sorted(session.list_files().items()):
            print(f"{length:>12}  {printable(path)}")
    elif name == ":put" and 1 <= len(rest) <= 2:
        session.put_file(rest[-1] if len(rest) == 2 else Path(rest[0]).name, _content(rest[0]))
    elif name == ":get" and 1 <= len(rest) <= 2:
        target = Path(rest[-1] if len(rest) == 2 else Path(rest[0]).name)
        if target.exists():
            raise InvalidRequest(f"{target} is there already: name another place, :get {rest[0]} PATH")
        target.write_bytes(session.get_file(rest[0]))
        print(f"saved {target}")
    elif name == ":restart" and not rest:
        session.restart()
    else:
        print(_COMMANDS)


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path}: {os.strerror(error.errno or 0)}") from error


class _History:
    """What was typed, kept from one shell to the next below XDG_STATE_HOME."""

    def __init__(self, language: str) -> None:
        state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        self._path = Path(state, "fumehood", f"history-{language}")

    def __enter__(self) -> None:
        import readline  # noqa: PLC0415 - at a terminal alone

        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            readline.read_history_file(self._path)
        except OSError:
            pass  # the first time, or a home that cannot be written: the shell works without
        readline.set_history_length(10_000)

    def __exit__(self, *_error: object) -> None:
        import readline  # noqa: PLC0415 - as above

        try:
            readline.write_history_file(self._path)
            self._path.chmod(0o600)
        except OSError:
            pass


def _language(text: str) -> str:
    if not text:
        raise UsageError("--language needs a name")
    return text


COMMAND = Command(
    name="shell",
    summary="Type into a session: cells in a sandbox that keeps their state.",
    run=shell,
    description=(
        "Cells run behind the walls as programs do, one after another in one sandbox. Pictures are shown where the terminal "
        "can (kitty, iTerm2 and those that speak as they do), else saved and named. At the prompt :help lists commands, "
        ":files, :put, :get, :restart and :quit; Ctrl-C interrupts a cell, and state stays. Without a terminal, standard "
        "input is one cell."
    ),
    options=(
        Option(name="language", short="l", metavar="NAME", default="python", convert=_language,
               help="The session's language or runtime (default: python)."),
        Option(name="file", short="f", metavar="PATH", many=True, help="Lay a file of this machine into it."),
        Option(name="timeout", short="t", metavar="SECONDS", convert=seconds, help="Interrupt a cell after that time."),
        Option(name="memory", short="m", metavar="SIZE", convert=size, help="Memory of all its processes (default: 512M)."),
        Option(name="without", metavar="WALL", many=True, help="Give up a wall by name; see fumehood doctor."),
    ),
    examples=(
        "fumehood shell",
        "fumehood shell --language python-data --file sales.csv",
        "echo 'import os; os.getpid()' | fumehood shell",
    ),
)  # fmt: skip
