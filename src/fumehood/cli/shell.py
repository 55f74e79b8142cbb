"""`fumehood shell`: a session at the terminal. What is typed runs inside; state stays until the end."""

from __future__ import annotations

import codeop
import os
import sys
from pathlib import Path

from ..engine import SESSION_LIMITS, Engine
from ..errors import FumehoodError, InvalidRequest, SessionDead
from ..protocol.limits import MiB
from ..protocol.network import Network
from ..protocol.session import CellError, Cleared, Display, Event, Output
from . import pictures
from .arguments import Arguments, Command, Option, UsageError, seconds, size
from .network import OPTIONS, explain, network_of, rule_of
from .progress import Building
from .server import ISOLATION, SERVER, isolation_of, leave_in_good_order, remote
from .terminal import is_terminal, note, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from ..client.session import RemoteCheckpoint, RemoteSession
    from ..sessions import Checkpoint, Session

    AnySession = Session | RemoteSession

_COMMANDS = """:files             list the session's files
:put PATH [NAME]   copy a file of this machine into the session
:get NAME [PATH]   copy one of its files to this machine
:fork [COUNT]      make copies that begin with all that this session holds; :use goes to one
:use [NUMBER]      go on in another copy, or list them; the first is 1
:checkpoint NAME   remember what it holds now
:restore NAME      go back to that
:network           list the hosts that it may reach
:allow RULE        let it reach one more, as --allow-host does
:lock              let it reach none
:restart           begin anew
:quit              leave (also Ctrl-D)
An empty line ends a block. Ctrl-C interrupts a cell; state stays."""

# What a cell has where nobody says otherwise: here whoever waits can interrupt it, and a server gives no more.
_CELL_SECONDS, _CELL_SECONDS_THERE = 86_400.0, 900.0


def shell(arguments: Arguments) -> int:
    """Do the command."""
    files = {Path(path).name: _content(path) for path in arguments.file}
    there = remote(arguments)
    if there is not None:
        leave_in_good_order()
    wall_seconds = arguments.timeout or (_CELL_SECONDS if there is None else _CELL_SECONDS_THERE)
    limits = SESSION_LIMITS.replace(memory_bytes=arguments.memory or 512 * MiB, wall_seconds=wall_seconds)
    with (
        there or _engine(arguments) as executor,
        executor.session(
            arguments.language,
            limits=limits,
            files=files,
            idle_seconds=86_400.0,
            network=network_of(arguments) if arguments.allow_host else None,
        ) as session,
    ):
        if not is_terminal(0):
            return 0 if _run(session, sys.stdin.read()) else 1
        with _Copies(session) as copies:
            return _converse(copies)


def _engine(arguments: Arguments) -> Engine:
    return Engine(
        without=arguments.without, isolation=isolation_of(arguments), notice=Building(), warm_bytes=0
    )  # fmt: skip


def _converse(copies: _Copies) -> int:
    language = copies.current.language
    note(f"{language} in a sandbox; :help lists commands")
    with _History(language):
        while True:
            try:
                text = _read(language, copies.prompt)
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
                    _command(copies, text.split())
                elif text.strip():
                    _run(copies.current, text)
            except SessionDead as error:
                note(f"fumehood: {printable(str(error))} with :restart")
            except (FumehoodError, OSError) as error:
                note(f"fumehood: {printable(str(error))}")


def _read(language: str, prompt: str) -> str:
    """Read one cell: lines until it is whole. Raises `EOFError` at the end of input."""
    lines = [input(f"{prompt}>>> ")]
    if lines[0].startswith(":allow") and "=" in lines[0]:
        _forget_last_line()
    while not lines[0].startswith(":") and _goes_on(language, lines):
        lines.append(input(f"{prompt}... "))
    return "\n".join(lines)


def _forget_last_line() -> None:
    """Keep what may hold a credential out of the history."""
    import readline  # noqa: PLC0415 - at a terminal alone

    if (count := readline.get_current_history_length()) > 0:
        readline.remove_history_item(count - 1)


def _goes_on(language: str, lines: list[str]) -> bool:
    if not language.startswith("python") or lines[0].lstrip().startswith(("!", "%", "?")):
        return False
    try:
        return codeop.compile_command("\n".join(lines), symbol="single") is None
    except (SyntaxError, ValueError, OverflowError):
        return False  # its complaint comes from inside


class _Copies:
    """The session that the shell began with, those that were forked from it, and what was remembered of them."""

    def __init__(self, session: AnySession) -> None:
        self._sessions = [session]
        self._checkpoints: dict[str, Checkpoint | RemoteCheckpoint] = {}
        self.current = session

    @property
    def prompt(self) -> str:
        """What stands before the prompt: the number of the current copy, where there are several."""
        return str(1 + self._sessions.index(self.current)) if len(self._sessions) > 1 else ""

    def fork(self, count: int) -> None:
        """Fork the current one."""
        first = len(self._sessions) + 1
        self._sessions += self.current.fork(count)
        made = f"{first} to {first + count - 1}" if count > 1 else str(first)
        note(f"forked: {made}; :use {first} goes there" + _lost(self.current))

    def use(self, number: int) -> None:
        """Go on in another."""
        if not 1 <= number <= len(self._sessions):
            raise InvalidRequest(f"there is no copy {number}: there are 1 to {len(self._sessions)}")
        self.current = self._sessions[number - 1]

    def list(self) -> None:
        """Print each one's number and state."""
        for number, each in enumerate(self._sessions, 1):
            print(f"{'*' if each is self.current else ' '} {number}  {each.status}")

    def checkpoint(self, name: str) -> None:
        """Remember what the current one holds."""
        made = self.current.checkpoint()
        if name in self._checkpoints:
            self._checkpoints[name].close()
        self._checkpoints[name] = made
        note(f"remembered; :restore {printable(name)} goes back" + _lost(self.current))

    def restore(self, name: str) -> None:
        """Have the current one go back."""
        if name not in self._checkpoints:
            known = (
                f"there are {', '.join(sorted(self._checkpoints))}"
                if self._checkpoints
                else "make one with :checkpoint"
            )
            raise InvalidRequest(f"there is no checkpoint {printable(name)!r}: {known}")
        self.current.restore(self._checkpoints[name])  # type: ignore[arg-type]  # both are here or both at the server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for each in self._checkpoints.values():
            each.close()
        for session in self._sessions[1:]:
            session.close()


def _lost(session: AnySession) -> str:
    return f" (gone: {printable(', '.join(session.lost))})" if session.lost else ""


def _run(session: AnySession, code: str) -> bool:
    """Run a cell and show what it shows; Ctrl-C interrupts it. Return whether it ended well."""
    import signal  # noqa: PLC0415 - loaded with the session by now

    # A handler and no exception: what runs is interrupted, not we.
    before = signal.signal(signal.SIGINT, lambda _number, _frame: session.interrupt())
    try:
        result = session.run(code, on_event=_show)
    finally:
        signal.signal(signal.SIGINT, before)
    explain(result.refusals)
    if result.ended == "died" and session.death is not None:
        death = session.death
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


def _command(copies: _Copies, words: list[str]) -> None:
    name, *rest = words
    session = copies.current
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
    elif name == ":fork" and len(rest) <= 1:
        copies.fork(_number(rest[0]) if rest else 1)
    elif name == ":use" and len(rest) <= 1:
        copies.use(_number(rest[0])) if rest else copies.list()
    elif name == ":checkpoint" and len(rest) == 1:
        copies.checkpoint(rest[0])
    elif name == ":restore" and len(rest) == 1:
        copies.restore(rest[0])
    elif name == ":restart" and not rest:
        session.restart()
    elif name in (":network", ":allow", ":lock"):
        _network(session, name, rest)
    else:
        print(_COMMANDS)


def _network(session: AnySession, name: str, rest: list[str]) -> None:
    if name == ":allow" and rest:
        network = session.network
        session.set_network(network.replace(allow=(*network.rules, *map(rule_of, rest))))
    elif name == ":lock":
        session.set_network(Network())
    print(f"it may reach {session.network.describe() or 'no host'}")


def _number(word: str) -> int:
    if not word.isdecimal():
        raise InvalidRequest(f"{printable(word)!r} is no number")
    return int(word)


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
        "can (kitty, iTerm2 and those that speak as they do), else saved and named. At the prompt :help lists commands: "
        ":files, :put, :get, :fork, :use, :checkpoint, :restore, :network, :allow, :lock, :restart and "
        ":quit. Ctrl-C interrupts a cell, and state "
        "stays. Without a terminal, standard input is one cell."
    ),
    options=(
        Option(name="language", short="l", metavar="NAME", default="python", convert=_language,
               help="The session's language or runtime (default: python)."),
        Option(name="file", short="f", metavar="PATH", many=True, help="Lay a file of this machine into it."),
        Option(name="timeout", short="t", metavar="SECONDS", convert=seconds, help="Interrupt a cell after that time."),
        Option(name="memory", short="m", metavar="SIZE", convert=size, help="Memory of all its processes (default: 512M)."),
        *OPTIONS,
        SERVER,
        ISOLATION,
        Option(name="without", metavar="WALL", many=True, help="Give up a wall by name; see fumehood doctor."),
    ),
    examples=(
        "fumehood shell",
        "fumehood shell --allow-host pypi.org --allow-host files.pythonhosted.org",
        "fumehood shell --language python-data --file sales.csv",
        "echo 'import os; os.getpid()' | fumehood shell",
    ),
)  # fmt: skip
