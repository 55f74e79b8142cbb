"""The contract of Piston's API, version 2, as its documentation and its clients have it: programs in files, times in milliseconds.

Nothing is compiled in a stage of its own, so there is no `compile` in answers and its limits are left alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ...errors import InvalidRequest, RuntimeUnavailable
from ...protocol.execution import ExecutionRequest
from ...protocol.limits import Limits
from ...protocol.wire import data_from_json
from ..answers import Json
from ..behind import Behind
from ..description import error_responses
from ..faults import Fault
from ..service import Asked
from .foreign import Knocking, memory_bytes, speaking
from .leaving import unless_gone

if TYPE_CHECKING:
    from ...protocol.execution import ExecutionResult
    from ..service import Service
    from ..store.common import Caller

_DOOR = "piston"
_RUN_MS = 3000.0
# Language to a program that prints the version of what runs it, its other names, and the runtime's name.
_LANGUAGES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "bash": ("echo ${BASH_VERSION%%(*}", ("sh",), ""),
    "javascript": ("console.log(process.versions.node)", ("node-javascript", "node-js", "js", "node"), "node"),
    "php": ("<?php echo PHP_VERSION;", ("php8",), ""),
    "python": ("import platform; print(platform.python_version())", ("py", "py3", "python3"), ""),
    "ruby": ("puts RUBY_VERSION", ("rb", "ruby3"), ""),
    "typescript": ("console.log(process.versions.node)", ("ts", "node-ts", "typescript5"), "node"),
}
# Of why a program was ended: the codes of `isolate`, which Piston passes on.
_STATUSES = {"timeout": "TO", "output_limit": "OL", "signalled": "SG", "out_of_memory": "SG"}
_SELECTOR = re.compile(r"(\^|~|>=|)v?(\d{1,9}|[xX*])(?:\.(\d{1,9}|[xX*]))?(?:\.(\d{1,9}|[xX*]))?")


def _shape(wrong: Fault | RequestValidationError) -> Response:
    if isinstance(wrong, Fault):
        return Json({"message": wrong.message}, status_code=wrong.status)
    first = wrong.errors()[0]
    return Json({"message": f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"}, status_code=400)


class Problem(BaseModel):
    """What an error is answered with."""

    message: str


router = APIRouter(
    tags=["Piston"],
    route_class=speaking(_shape),
    responses=error_responses(401, 403, 429, 500, 503, model=Problem),
)


def _or(usual: Any) -> BeforeValidator:
    # Whatever JavaScript takes for false stands for nothing said.
    return BeforeValidator(lambda value: value or usual)


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class File(_Lenient):
    """A file; the first that is text is the program."""

    content: str
    name: Annotated[str, _or("")] = ""
    encoding: Any = "utf8"

    def data(self) -> bytes:
        """Return its content. Raises `InvalidRequest`."""
        if self.encoding != "hex":
            return data_from_json({"base64": self.content} if self.encoding == "base64" else self.content)
        try:
            return bytes.fromhex(self.content)
        except ValueError as error:
            raise InvalidRequest(f"files: {self.name!r} is not in hex: {error}") from error


class Job(_Lenient):
    """POST /api/v2/execute."""

    language: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(min_length=1)]
    files: list[File]
    stdin: Annotated[str, _or("")] = ""
    args: Annotated[list[str], _or([])] = []
    run_timeout: Annotated[float, _or(_RUN_MS), Field(ge=0, allow_inf_nan=False)] = _RUN_MS
    run_cpu_time: Annotated[float, _or(0.0), Field(ge=0, allow_inf_nan=False)] = 0.0
    run_memory_limit: Annotated[float, _or(-1.0), Field(allow_inf_nan=False)] = -1.0


@router.get("/api/v2/runtimes")
def list_runtimes(_caller: Knocking, service: Behind) -> Json:
    """List the languages that can be run here."""
    listed = []
    for language, (_code, aliases, runtime) in _LANGUAGES.items():
        version = _version(service, language)
        if version is not None:
            named = {"runtime": runtime} if runtime else {}
            listed.append({"language": language, "version": version, "aliases": list(aliases)} | named)
    return Json(listed)


@router.post("/api/v2/execute", responses=error_responses(400, 413, model=Problem))
async def execute(body: Job, asker: Request, caller: Knocking, service: Behind) -> Json:
    """Run a program. Its caller's going away ends it."""
    return await unless_gone(asker, service, lambda cancel: _execute(service, caller, body, cancel))


def _execute(service: Service, caller: Caller, body: Job, cancel: int) -> Json:
    language, name, version = _runtime(service, body)
    program = next((each for each in body.files if each.encoding not in ("base64", "hex")), None)
    if program is None:
        raise InvalidRequest("files must include at least one utf8 encoded file")
    cpu = body.run_cpu_time or 2 * body.run_timeout
    request = ExecutionRequest(
        code=program.content, language=service.language(caller, name), name=program.name or None, args=body.args,
        stdin=body.stdin,
        files={each.name or f"file{n}.code": each.data() for n, each in enumerate(body.files) if each is not program},
        limits=Limits(
            wall_seconds=body.run_timeout / 1000, cpu_seconds=cpu / 1000,
            memory_bytes=memory_bytes(service, body.run_memory_limit, language),
        ),
    )  # fmt: skip
    # As it came: standard output and standard error in one.
    output: list[bytes] = []

    def answer(_execution: str, result: ExecutionResult) -> dict[str, Any]:
        text = b"".join(output).decode("utf-8", "replace")
        return {"language": language, "version": version, "run": _run(result, text)}

    asked = Asked(door=_DOOR, kind="execution", request=body.model_dump(exclude_defaults=True), language=language)

    def hear(_stream: str, piece: bytes) -> None:
        output.append(piece)

    return Json(service.run(caller, asked, request, answer, on_output=hear, cancel=cancel))


def _run(result: ExecutionResult, output: str) -> dict[str, Any]:
    status = _STATUSES.get(result.reason, "RE" if result.exit_code else None)
    return {
        "stdout": result.stdout, "stderr": result.stderr, "output": output,
        "code": None if result.signal else result.exit_code, "signal": result.signal, "message": result.detail or None,
        "status": status, "cpu_time": round(result.cpu_seconds * 1000), "wall_time": round(result.duration_seconds * 1000),
        "memory": result.peak_memory_bytes,
    }  # fmt: skip


def _runtime(service: Service, body: Job) -> tuple[str, str, str]:
    """Return a language, what it is called here, and its version. Raises `InvalidRequest` where there is none that fits."""
    wanted = body.language.lower()
    language = next(
        (name for name, (_code, aliases, _runtime) in _LANGUAGES.items() if wanted in (name, *aliases)), None
    )
    version = None if language is None else _version(service, language)
    asked = f"{body.language}-{body.version}"
    if language is not None and version is not None:
        # An operator may let a version that programs carry stand for what is there: --alias python-3.10.0=python
        name = service.known(asked)
        if name != asked or _fits(version, body.version):
            return language, language if name == asked else name, version
    raise InvalidRequest(f"{asked} runtime is unknown")


def _fits(version: str, selector: str) -> bool:
    """Whether a version is one that a selector means: `*`, `3.x`, `3`, `^3.9`, `~3.11`, `>=3.6`, or one exactly."""
    parsed = _SELECTOR.fullmatch(selector.strip())
    if parsed is None:
        return False
    mark, *parts = parsed.groups()
    wanted = [int(part) for part in parts if part and part.isdigit()]
    numbers = [int(part) for part in re.findall(r"\d+", version)[:3]]
    kept = {">=": 0, "^": 1, "~": 2}.get(mark, len(wanted))
    return numbers[:kept] == wanted[:kept] and numbers >= wanted


_found: WeakKeyDictionary[Service, dict[str, str]] = WeakKeyDictionary()


def _version(service: Service, language: str) -> str | None:
    """Return the version of what runs a language, asked for once; None where this machine has none."""
    found = _found.setdefault(service, {})
    if language not in found:
        try:
            result = service.engine.execute(ExecutionRequest(code=_LANGUAGES[language][0], language=language))
        except RuntimeUnavailable:
            return None
        if not result.ok:
            return None  # this time: the machine may have been too busy
        found[language] = result.stdout.strip()
    return found[language]
