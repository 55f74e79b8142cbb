"""`fumehood run`: one program, one fresh sandbox; the program's exit code becomes the command's."""

from __future__ import annotations

import os
import sys

from ..engine import Engine
from ..errors import InvalidRequest
from ..protocol.execution import ExecutionRequest
from ..protocol.limits import Limits
from ..runtimes import language_of, languages
from ..sandbox.cgroup import Cgroup
from ..sandbox.isolation import namespaces
from .arguments import Arguments, Command, Option, UsageError, seconds, size
from .network import OPTIONS, explain, network_of
from .progress import Building
from .server import ISOLATION, SERVER, isolation_of, remote
from .terminal import is_terminal, note, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..protocol.execution import ExecutionResult


def run(arguments: Arguments) -> int:
    """Do the command."""
    request, feeds_stdin = _request(arguments)
    with remote(arguments) or _engine(arguments, request) as executor:
        result = executor.execute(
            request,
            on_output=None if arguments.json else _Printer().show,
            stdin_source=0 if feeds_stdin else None,
        )
    if arguments.out is not None:
        from . import files_out  # noqa: PLC0415 - most programs leave no files

        files_out.save(result.files, arguments.out)
    if arguments.json:
        import json  # noqa: PLC0415 - 6 ms that the plain output does not need

        # On a terminal even what JSON allows may be a control character.
        print(json.dumps(result.as_json(), indent=2, ensure_ascii=is_terminal(1)))
    else:
        _explain(result, arguments)
    return result.exit_code


def _engine(arguments: Arguments, request: ExecutionRequest) -> Engine:
    without = set(arguments.without)
    if not arguments.cgroup and Cgroup.must_be_moved_into():
        without.add("cgroup")
    # This process has one thread and little memory, so it can fork sandboxes itself; not where it holds a credential, which
    # would be in the memory of their process 1.
    spawn = None if request.network.has_credentials else namespaces.spawn
    return Engine(
        without=without, notice=Building(), isolation=isolation_of(arguments), warm_bytes=0, spawn=spawn
    )  # fmt: skip


def _request(arguments: Arguments) -> tuple[ExecutionRequest, bool]:
    """Return the request, and whether our own standard input is the program's."""
    path, code, name, language = arguments.program, arguments.code, None, arguments.language
    words = list(arguments.rest)
    feeds_stdin = True
    if code is not None:
        if path is not None:
            words = [path, *words]
    elif path is None or path == "-":
        if path is None and is_terminal(0):
            raise UsageError("give a PROGRAM, -c CODE, or code on standard input; see fumehood run --help")
        code, feeds_stdin = sys.stdin.buffer.read().decode("utf-8", "replace"), False
    else:
        code, name = _read_text(path), os.path.basename(path)
        language = language or language_of(name)
        if language is None:
            raise UsageError(f"{path!r} has no suffix of a known language: say --language ({', '.join(languages())})")
    request = ExecutionRequest(
        code=code,
        language=language or "python",
        name=name,
        args=words,
        env=dict(arguments.env),
        files=dict(arguments.file),
        limits=_limits(arguments),
        network=network_of(arguments),
        explain=arguments.explain,
    )
    # A terminal is never the program's: it could be waited on for ever, and it is not ours to lend.
    return request, feeds_stdin and not is_terminal(0)


def _limits(arguments: Arguments) -> Limits:
    given = {"wall_seconds": arguments.timeout, "memory_bytes": arguments.memory, "pids": arguments.pids,
             "disk_bytes": arguments.disk, "cpu_seconds": arguments.cpu}  # fmt: skip
    return Limits(**{name: value for name, value in given.items() if value is not None})


def _read_text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8")
    except OSError as error:
        raise InvalidRequest(f"{path!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path!r} is not UTF-8 text ({error.reason} at byte {error.start})") from error


class _Printer:
    """Passes output on as it comes: byte for byte into a pipe or file, made harmless on a terminal."""

    def __init__(self) -> None:
        self._terminals = {"stdout": is_terminal(1), "stderr": is_terminal(2)}
        self._decoders: dict[str, object] = {}

    def show(self, stream: str, piece: bytes) -> None:
        if self._terminals[stream]:
            piece = printable(self._decode(stream, piece)).encode()
        descriptor = 1 if stream == "stdout" else 2
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]

    def _decode(self, stream: str, piece: bytes) -> str:
        import codecs  # noqa: PLC0415 - for terminals alone

        decoder = self._decoders.setdefault(stream, codecs.getincrementaldecoder("utf-8")("replace"))
        text: str = decoder.decode(piece)  # type: ignore[attr-defined]  # codecs' own type is not public
        return text


def _explain(result: ExecutionResult, arguments: Arguments) -> None:
    for denied in result.denied_calls or ():
        times = f" ({denied.count} times)" if denied.count > 1 else ""
        note(printable(f"fumehood: refused: {denied.call}, {denied.answer}{times}: {denied.why}"))
    if result.denied_calls == ():
        note("fumehood: no system call was refused")
    if result.reason != "exited":
        note(printable(f"fumehood: {result.reason.replace('_', ' ')}: {result.detail}"))
    explain(result.refusals)
    if result.network_refused and not result.ok:
        if arguments.allow_host:
            note(
                "fumehood: the program tried an address of its own; it reaches hosts by the names that --allow-host gives"
            )
        else:
            note(
                "fumehood: the program tried the network; the sandbox has none, by policy (--allow-host HOST gives it one)"
            )
    if arguments.out is not None:
        for skipped in result.skipped_files:
            note(f"fumehood: not taken out: {printable(skipped.path)!r} {printable(skipped.why)}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("write NAME=VALUE")
    return name, value


def _file(text: str) -> tuple[str, bytes]:
    inside, equals, path = text.partition("=")
    if not equals:
        inside, path = os.path.basename(text), text
    try:
        with open(path, "rb") as file:
            return inside, file.read()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


def _whole(text: str) -> int:
    if not text.isdigit():
        raise ValueError("write a whole number")
    return int(text)


COMMAND = Command(
    name="run",
    summary="Run a program in a fresh sandbox.",
    description=(
        "Run a program in a fresh sandbox that is gone afterwards: no network but hosts that --allow-host names, no files "
        "but those given, limits on everything. Its output is printed as it comes and its exit code becomes the "
        "command's; 124 stands for a time "
        "limit, 137 for memory, 122 for output. The language is taken from --language or the file's suffix, else python."
    ),
    run=run,
    positionals=(("PROGRAM", "The program; - or nothing reads it from standard input."),),
    rest=("ARGS", "Arguments for the program."),
    options=(
        Option(name="code", short="c", metavar="CODE", help="The program's text, instead of PROGRAM."),
        Option(name="language", short="l", metavar="NAME", help=f"One of {', '.join(languages())}."),
        Option(name="timeout", short="t", metavar="SECONDS", convert=seconds, help="Wall time (30)."),
        Option(name="cpu", metavar="SECONDS", convert=seconds, help="CPU time of all its processes (60)."),
        Option(name="memory", short="m", metavar="SIZE", convert=size, help="Memory, files included (512M)."),
        Option(name="disk", metavar="SIZE", convert=size, help="What its folders hold together (128M)."),
        Option(name="pids", metavar="N", convert=_whole, help="Processes and threads (128)."),
        Option(
            name="env",
            short="e",
            metavar="NAME=VALUE",
            many=True,
            convert=_pair,
            help="An environment variable.",
        ),
        Option(
            name="file",
            short="f",
            metavar="[PATH=]FILE",
            many=True,
            convert=_file,
            help="A file to lay into /work.",
        ),
        *OPTIONS,
        Option(name="out", short="o", metavar="DIR", help="Save the files it leaves in /work to this folder."),
        Option(
            name="cgroup",
            help="Bound memory and processes by a cgroup v1 too, at the cost of 10 to 20 ms; v2 costs nothing and is "
            "always used. Without either the supervisor samples.",
        ),
        Option(name="explain", help="Say which system calls were refused, and why."),
        Option(name="json", help="Print the whole result as JSON."),
        SERVER,
        ISOLATION,
        Option(name="without", metavar="WALL", many=True, help="Give up a wall that this host cannot put up."),
    ),
    examples=(
        "fumehood run -c 'print(6*7)'",
        "fumehood run script.js one two",
        "echo 'puts 6*7' | fumehood run --language ruby",
        "fumehood run report.py --file data.csv --out results",
        'fumehood run --allow-host pypi.org -l bash -c "curl https://pypi.org/simple/numpy/"',
        "fumehood run --allow-host 'https://api.github.com=bearer:@GH_TOKEN' script.py",
        "fumehood run --explain -c 'import socket; socket.socket(socket.AF_PACKET)'",
        "fumehood run -c 'while True: pass' --timeout 2",
    ),
)
