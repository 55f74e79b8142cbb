"""An executor without walls, to show that a test notices when there are none. Never for anything else.

It does what careless executors do: the caller's environment, descriptors, files and network; no limits but a polite
signal at the deadline; the reason guessed from the exit code; output files collected by following links. The run that
uses it (tests/escapes/test_self.py) is in process and mount namespaces of its own, and what is left ends with them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fumehood.protocol.execution import ExecutionResult, OutputFile

if TYPE_CHECKING:
    from fumehood.protocol.execution import EndReason, ExecutionRequest
    from fumehood.protocol.executor import OutputListener

_LARGEST_FILE = 4 << 20


class UnwalledExecutor:
    """Runs a program with nothing around it."""

    def execute(self, request: ExecutionRequest, *, on_output: OutputListener | None = None) -> ExecutionResult:
        """Do what `Executor.execute` asks for, badly."""
        del on_output
        folder = Path(tempfile.mkdtemp(prefix="unwalled-"))
        try:
            for path, data in request.files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(data if isinstance(data, bytes) else data.encode())
            program = folder / "main"
            program.write_text(request.code, encoding="utf-8")
            return self._run(request, program)
        finally:
            # Not shutil's: it gives up on a tree deeper than Python's stack.
            subprocess.run(["rm", "-rf", str(folder)], check=False)

    def _run(self, request: ExecutionRequest, program: Path) -> ExecutionResult:
        interpreter = "bash" if request.language == "bash" else sys.executable
        started = time.monotonic()
        process = subprocess.Popen(
            [interpreter, str(program), *request.args],
            cwd=program.parent,
            env={**os.environ, **request.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            close_fds=False,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=request.limits.wall_seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                out, err = process.communicate(timeout=0.5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                out, err = process.communicate()
        code = process.returncode
        return ExecutionResult(
            id="unwalled",
            language=request.language,
            reason=_guess(code),
            exit_code=code if code >= 0 else 128 - code,
            stdout_bytes=out,
            stderr_bytes=err,
            files=tuple(_collect(program.parent)),
            duration_seconds=time.monotonic() - started,
        )


def _guess(code: int) -> EndReason:
    return "out_of_memory" if code in (137, -9) else "signalled" if code < 0 else "exited"


def _collect(folder: Path) -> list[OutputFile]:
    found = []
    for path in folder.rglob("*"):
        try:
            if path.name != "main" and path.is_file() and path.stat().st_size <= _LARGEST_FILE:
                name = os.fsencode(path.relative_to(folder)).decode("utf-8", "replace")
                found.append(OutputFile(path=name, data=path.read_bytes()))
        except OSError:
            continue
    return found
