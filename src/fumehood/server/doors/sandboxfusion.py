"""The contract of SandboxFusion's `/run_code`: times in seconds, files in base64, the languages of its that are here.

Nothing is compiled in a stage of its own: `compile_result` is null and `compile_timeout` is left alone.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field

from ...errors import FumehoodError, InvalidRequest
from ...protocol.execution import ExecutionRequest
from ...protocol.limits import Limits, MiB
from ...protocol.wire import data_from_json
from ..answers import Json
from ..behind import Behind
from ..description import error_responses
from ..faults import Fault, fault_of
from ..service import Asked
from .foreign import Knocking, memory_bytes, speaking
from .leaving import unless_gone

if TYPE_CHECKING:
    from ...protocol.execution import ExecutionResult
    from ..service import Service
    from ..store.common import Caller

_DOOR = "sandboxfusion"
#: Its names to ours.
_LANGUAGES = {"nodejs": "javascript"}


def _shape(wrong: Fault | RequestValidationError) -> Response:
    # As FastAPI has them, which that service is made with; without the values, which may be secrets.
    if isinstance(wrong, Fault):
        return Json({"detail": wrong.message}, status_code=422 if wrong.status == 400 else wrong.status)
    detail = [{"loc": list(each["loc"]), "msg": each["msg"], "type": each["type"]} for each in wrong.errors()]
    return Json({"detail": detail}, status_code=422)


class Problem(BaseModel):
    """What an error is answered with."""

    detail: str | list[dict[str, Any]]


router = APIRouter(
    tags=["SandboxFusion"],
    route_class=speaking(_shape),
    responses=error_responses(401, 403, 413, 422, 429, 500, 503, model=Problem),
)


class RunCode(BaseModel):
    """POST /run_code."""

    model_config = ConfigDict(extra="ignore")
    code: str
    language: Literal["python", "nodejs", "typescript", "php", "bash", "ruby"]
    run_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    memory_limit_MB: int = -1  # noqa: N815 - the contract's name
    stdin: str | None = None
    files: dict[str, str | None] = {}
    fetch_files: list[str] = []
    args: list[str] = []


@router.post("/run_code")
async def run_code(body: RunCode, asker: Request, caller: Knocking, service: Behind) -> Json:
    """Run a program. Its caller's going away ends it."""
    return await unless_gone(asker, service, lambda cancel: _run(service, caller, body, cancel))


def _run(service: Service, caller: Caller, body: RunCode, cancel: int) -> Json:
    language = _LANGUAGES.get(body.language, body.language)
    given = {_inside(path): data_from_json({"base64": data}) for path, data in body.files.items() if data is not None}

    def answer(_execution: str, result: ExecutionResult) -> dict[str, Any]:
        left = given | {each.path: each.data for each in result.files}
        wanted = {path: left[_inside(path)] for path in body.fetch_files if _inside(path) in left}
        return _answer(result, {path: base64.b64encode(data).decode("ascii") for path, data in wanted.items()})

    asked = Asked(door=_DOOR, kind="execution", request=body.model_dump(exclude_defaults=True), language=language)
    try:
        request = ExecutionRequest(
            code=body.code, language=service.language(caller, language), args=body.args, stdin=body.stdin or "", files=given,
            limits=Limits(
                wall_seconds=body.run_timeout, cpu_seconds=2 * body.run_timeout,
                memory_bytes=memory_bytes(service, body.memory_limit_MB * MiB, language),
            ),
        )  # fmt: skip
        return Json(service.run(caller, asked, request, answer, cancel=cancel))
    except InvalidRequest:
        raise
    except FumehoodError as error:
        # What goes wrong on its side is an answer in this contract, and its clients go on with the next program.
        return Json(_about("SandboxError", fault_of(error).message))


def _answer(result: ExecutionResult, files: dict[str, str]) -> dict[str, Any]:
    timed_out = result.reason == "timeout"
    run = {
        "status": "TimeLimitExceeded" if timed_out else "Finished", "execution_time": result.duration_seconds,
        "return_code": None if timed_out else result.exit_code, "stdout": result.stdout, "stderr": result.stderr,
    }  # fmt: skip
    return _about("Success" if result.ok else "Failed", "") | {"run_result": run, "files": files}


def _about(status: str, message: str) -> dict[str, Any]:
    return {
        "status": status, "message": message, "compile_result": None, "run_result": None, "executor_pod_name": None,
        "files": {},
    }  # fmt: skip


def _inside(path: str) -> str:
    # Programs run in `/work`, and clients name files by `./` and by whole paths too.
    return path.removeprefix("/work/").removeprefix("./")
