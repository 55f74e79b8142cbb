"""An executor without walls, to show that a probe notices when there are none. Never for anything else.

It does what careless executors do: the caller's environment, descriptors, files and network; no limits but a polite
signal at the deadline; the reason guessed from the exit code; output files collected by following links; sessions that
are "forked" by telling a new interpreter the old one's story. Whoever uses it (`fumehood doctor --probes --unwalled`) is in
process and mount namespaces made for that, and what is left ends with them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RuntimeUnavailable
from ..protocol.execution import ExecutionResult, OutputFile
from ..protocol.limits import Limits
from ..protocol.session import CellResult, Death, Output

if TYPE_CHECKING:
    from typing import Self

    from ..protocol.execution import EndReason, ExecutionRequest
    from ..protocol.executor import OutputListener

_LARGEST_FILE = 4 << 20
_PROGRAMS = {"python": sys.executable, "bash": "bash", "javascript": "node", "ruby": "ruby", "php": "php"}


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

    def session(self, language: str = "python", *, limits: Limits | None = None, **_fields: object) -> UnwalledSession:
        """Begin what careless executors call a session."""
        return UnwalledSession(language, limits or Limits())

    def _run(self, request: ExecutionRequest, program: Path) -> ExecutionResult:
        started = time.monotonic()
        process = subprocess.Popen(
            [_interpreter(request.language), str(program), *request.args],
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


# Runs each cell that comes as a line of JSON, in one namespace, and answers with a line on descriptor 3.
_CELLS = """
import contextlib, io, json, os, random, sys, traceback
answers, names = os.fdopen(int(sys.argv[1]), "w", buffering=1), {"__name__": "__main__"}
random.seed(1)
for line in sys.stdin:
    out, ok = io.StringIO(), True
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            exec(json.loads(line), names)
        except BaseException:
            ok = False
            traceback.print_exc()
    answers.write(json.dumps([ok, out.getvalue()]) + "\\n")
"""


class UnwalledSession:
    """An interpreter that is told one cell after the other, with nothing around it. Use it in a `with`."""

    def __init__(self, language: str, limits: Limits, story: tuple[str, ...] = (), folder: str = "") -> None:
        if language != "python":
            raise RuntimeUnavailable("without walls there are sessions of Python alone")
        self.limits, self._story = limits, list(story)
        self._folder = folder or tempfile.mkdtemp(prefix="unwalled-")
        self._owns_folder = not folder
        self.lost: tuple[str, ...] = ()
        self.death: Death | None = None
        self._begin()
        for cell in story:
            self._tell(cell)

    def _begin(self) -> None:
        read, write = os.pipe()
        self._answers = os.fdopen(read, encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CELLS, str(write)], stdin=subprocess.PIPE, pass_fds=(write,), cwd=self._folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        os.close(write)

    def run(self, code: str, *, timeout: float | None = None) -> CellResult:
        """Run a cell; whatever time is asked for, it has what the limits say."""
        del timeout
        self._story.append(code)
        answer = self._tell(code)
        if not answer:
            # What careless executors say of any interpreter that is gone.
            self.death = Death(reason="killed", detail="it is gone")
            return CellResult(ok=False, events=(), ended="died")
        ok, text = json.loads(answer)
        return CellResult(ok=ok, events=(Output(stream="stdout", text=text),))

    def _tell(self, code: str) -> str:
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        try:
            self._process.stdin.write(json.dumps(code) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return ""
        if not select.select([self._answers], [], [], self.limits.wall_seconds)[0]:
            return ""
        return self._answers.readline()

    def restart(self) -> None:
        """Begin anew, in the same folder."""
        self._end()
        self._story.clear()
        self.death = None
        self._begin()

    def fork(self, count: int = 1) -> list[UnwalledSession]:
        """Tell new interpreters the whole story, in the same folder."""
        return [UnwalledSession("python", self.limits, tuple(self._story), self._folder) for _ in range(count)]

    def checkpoint(self) -> contextlib.nullcontext[tuple[str, ...]]:
        """Remember the story so far."""
        return contextlib.nullcontext(tuple(self._story))

    def restore(self, checkpoint: tuple[str, ...]) -> None:
        """Tell that story to a new interpreter, in the same folder."""
        self.restart()
        self._story = list(checkpoint)
        for cell in checkpoint:
            self._tell(cell)

    def put_file(self, path: str, data: bytes) -> None:
        """Write where it is told to."""
        Path(self._folder, path).write_bytes(data)

    def get_file(self, path: str) -> bytes:
        """Read what it is told to."""
        return Path(self._folder, path).read_bytes()

    def list_files(self) -> dict[str, int]:
        """Return what can be seen from the folder, links followed."""
        found = [Path(folder, name) for folder, _names, files in os.walk(self._folder) for name in files]
        return {str(path.relative_to(self._folder)): path.stat().st_size for path in found if path.exists()}

    def close(self) -> None:
        """End the interpreter, and nothing that it started."""
        self._end()
        if self._owns_folder:
            subprocess.run(["rm", "-rf", self._folder], check=False)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._answers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _interpreter(language: str) -> str:
    found = shutil.which(_PROGRAMS.get(language, ""))
    if found is None:
        raise RuntimeUnavailable(f"without walls there is no {language} here")
    return found


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
