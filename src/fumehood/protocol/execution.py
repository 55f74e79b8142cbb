"""One execution as data: what is asked, and what came of it."""

from __future__ import annotations

from ..errors import InvalidFilePath, InvalidRequest
from .limits import Limits
from .network import Connection, Network, Refusal
from .paths import why_not_inside
from .record import Record, may_come_later

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal

    #: Why an execution ended, found from kernel facts alone; nothing that the guest prints has a say in it.
    EndReason = Literal[
        "exited",  # the program ended by itself; exit_code is its own
        "signalled",  # a signal ended it; exit_code is 128 + the signal's number
        "timeout",  # wall_seconds or cpu_seconds were used up; exit_code 124
        "out_of_memory",  # memory_bytes were used up and the kernel or the supervisor killed; exit_code 137
        "output_limit",  # output_bytes were used up; exit_code 122
        "disk_full",  # it failed and its disk was full; exit_code is its own
    ]
    Stream = Literal["stdout", "stderr"]


class ExecutionRequest(Record):
    """A program to run in a fresh sandbox.

    - `code`: the source text; `language`: a name from `fumehood.languages()`, in any case.
    - `name`: what the program's file is called in `/work` (default: the language's own, like `main.py`).
    - `args`, `env`: as the program sees them. Besides `env` there are PATH, HOME, LANG and TZ, nothing of the host.
    - `files`: relative path to text (UTF-8) or bytes, laid into `/work` before the start.
    - `stdin`: what the program can read there.
    - `network`: the hosts that it may reach; none by default.
    - `explain`: list the system calls that were refused; it starts cold.

    Raises `InvalidRequest` (a `ValueError`) where a value cannot be run, naming it.
    """

    code: str
    language: str = "python"
    name: str | None = None
    args: Sequence[str] = ()
    env: Mapping[str, str] = {}
    files: Mapping[str, str | bytes] = {}
    stdin: str | bytes = b""
    limits: Limits = Limits()
    network: Network = Network()
    explain: bool = False

    def __post_init__(self) -> None:
        for name in ("code", "language"):
            if not isinstance(getattr(self, name), str):
                raise InvalidRequest(f"{name} is {type(getattr(self, name)).__name__}: give text")
        if not isinstance(self.stdin, (str, bytes)):
            raise InvalidRequest(f"stdin is {type(self.stdin).__name__}: give text or bytes")
        if not isinstance(self.limits, Limits):
            raise InvalidRequest(f"limits is {type(self.limits).__name__}: give fumehood.Limits(…)")
        if not isinstance(self.network, Network):
            raise InvalidRequest(f"network is {type(self.network).__name__}: give fumehood.Network(allow=[…])")
        _check_args(self.args)
        _check_env(self.env)
        _check_files(self.files, self.name)


class OutputFile(Record):
    """A file that the program left in `/work`, new or changed. `path` is relative; hostile text, like `data`."""

    path: str
    data: bytes


class SkippedFile(Record):
    """Something in `/work` that was not taken out, and why."""

    path: str
    why: str


class DeniedCall(Record):
    """A system call that was refused `count` times: its name, the `answer` (an errno's name, or "killed"), and `why`."""

    call: str
    answer: str
    count: int
    why: str


class ExecutionResult(Record):
    """What came of an execution.

    `stdout_bytes` and `stderr_bytes` are exact; the properties `stdout` and `stderr` decode them as UTF-8 with
    replacement characters. Times are seconds, `peak_memory_bytes` is the most that all its processes held together
    (None where nothing on this host can tell). `network_refused` counts attempts to reach a network that the kernel
    refused. `connections` and `refusals` are what its network allowed and did not (the first thousand connections;
    `connections_left_out` counts the others). `tier` names how memory and processes were bounded: "cgroup" or "sampled".
    `warm` says whether the program was forked from a warm interpreter: speed is all that this changes. `denied_calls` is
    None unless `explain` was asked for.
    """

    id: str
    language: str
    reason: EndReason
    exit_code: int
    signal: str | None = None
    detail: str = ""
    stdout_bytes: bytes = b""
    stderr_bytes: bytes = b""
    files: tuple[OutputFile, ...] = ()
    skipped_files: tuple[SkippedFile, ...] = ()
    duration_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int | None = may_come_later(None)
    network_refused: int = may_come_later(0)
    connections: tuple[Connection, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    connections_left_out: int = 0
    tier: str = "sampled"
    warm: bool = False
    denied_calls: tuple[DeniedCall, ...] | None = None

    @property
    def ok(self) -> bool:
        """Whether the program ended by itself with exit code 0."""
        return self.reason == "exited" and self.exit_code == 0

    @property
    def stdout(self) -> str:
        """Standard output as text."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """Standard error as text."""
        return self.stderr_bytes.decode("utf-8", "replace")

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values. A file's data is text under "text" where it is UTF-8, else under "base64"."""
        values = self.as_dict()
        del values["stdout_bytes"], values["stderr_bytes"]
        values["stdout"], values["stderr"] = self.stdout, self.stderr
        values["files"] = [{"path": _printable(f.path), **_data_as_json(f.data)} for f in self.files]
        values["connections"] = [each.as_dict() for each in self.connections]
        values["refusals"] = [each.as_dict() for each in self.refusals]
        values["denied_calls"] = None if self.denied_calls is None else [call.as_dict() for call in self.denied_calls]
        values["skipped_files"] = [{"path": _printable(s.path), "why": s.why} for s in self.skipped_files]
        return values


def _data_as_json(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        import base64  # noqa: PLC0415 - only for binary files

        return {"base64": base64.b64encode(data).decode("ascii")}


def _printable(path: str) -> str:
    # A name that is not UTF-8 carries surrogates, which JSON writers pass on and readers choke on. Backslashes are doubled
    # where they could be taken for those: no two names come out as one.
    if path.isascii() and "\\" not in path:
        return path
    return path.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode("utf-8")


def _check_args(args: object) -> None:
    if not isinstance(args, (list, tuple)):
        raise InvalidRequest(f"args is {type(args).__name__}: give a list of texts")
    for arg in args:
        if not isinstance(arg, str) or "\0" in arg:
            raise InvalidRequest(f"argument {arg!r} is not text without NUL")


def _check_env(env: Mapping[Any, Any]) -> None:
    if not hasattr(env, "items"):
        raise InvalidRequest(f"env is {type(env).__name__}: give a mapping of names to texts")
    for name, value in env.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise InvalidRequest(f"environment name {name!r} is empty or holds '=' or NUL")
        if not isinstance(value, str) or "\0" in value:
            raise InvalidRequest(f"environment value of {name} is not text without NUL")


def _check_files(files: Mapping[str, str | bytes], program: str | None) -> None:
    if not hasattr(files, "items"):
        raise InvalidRequest(f"files is {type(files).__name__}: give a mapping of paths to texts or bytes")
    if program is not None and ("/" in program or (why := why_not_inside(program)) is not None):
        raise InvalidFilePath(f"program name {program!r}: {why if '/' not in program else 'give a name without /'}")
    seen: dict[str, str] = {}
    for path, data in files.items():
        if (why := why_not_inside(path)) is not None:
            raise InvalidFilePath(f"file path {path!r}: {why}; give a relative path inside the working directory")
        if not isinstance(data, (str, bytes)):
            raise InvalidRequest(f"file {path!r} is {type(data).__name__}: give text or bytes")
        if (twin := seen.setdefault(path.casefold(), path)) != path:
            raise InvalidFilePath(f"file paths {twin!r} and {path!r} differ in case alone; rename one")
    for path in files:
        for parent in _parents(path):
            if parent in files:
                raise InvalidFilePath(f"file path {parent!r} is a file and, for {path!r}, a folder; rename one")


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]
