"""Other ways to run a Python program apart from its host, as far as they are installed here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

PYTHON = os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def commands(code: str, python: str = PYTHON) -> dict[str, list[str]]:
    """Return, by name, the command with which each peer runs a program by the interpreter `python`."""
    program = [python, "-I", "-c", code]
    # An environment is shown beside the interpreter that it leads to.
    shown = {path for path in ("/usr", "/lib", "/lib64", "/bin") if Path(path).exists()}
    shown |= {part for part in (sys.base_prefix, str(Path(python).parents[1])) if not part.startswith("/usr")}
    found: dict[str, list[str]] = {}
    if bwrap := shutil.which("bwrap"):
        binds = [word for path in sorted(shown) for word in ("--ro-bind", path, path)]
        found["bwrap --unshare-all python3"] = [bwrap, "--unshare-all", *binds, *program]
    if nsjail := shutil.which("nsjail"):
        found["nsjail python3"] = [nsjail, "-Mo", "-q", "--chroot", "/", "--", *program]
    if (crun := shutil.which("crun")) and os.geteuid() == 0:
        found["crun run python3"] = [crun, "--cgroup-manager=disabled", "run", "--bundle", _bundle(program), _name()]
    if (runsc := shutil.which("runsc")) and os.geteuid() == 0:
        found["runsc do python3"] = [runsc, "--platform=ptrace", "--network=none", "--ignore-cgroups", "do", *program]
    if pyodide := _pyodide():
        found["pyodide in node"] = [*pyodide, code]
    return found


def working(code: str) -> tuple[dict[str, list[str]], list[str]]:
    """Return those that run a program here, and a sentence about each other one that is installed."""
    found, notes = {}, []
    for name, words in commands(code).items():
        trial = subprocess.run(words, capture_output=True, text=True, check=False)
        if trial.returncode == 0:
            found[name] = words
        else:
            said = (trial.stderr.strip().splitlines() or ["nothing"])[-1]
            notes.append(f"{name} is installed and does not run here: {said}")
    return found, notes


_PYODIDE = """
import { loadPyodide } from "pyodide";
(await loadPyodide()).runPython(process.argv[2]);
"""


def _pyodide() -> list[str]:
    """Return the command that runs a program by Pyodide, installed from npm where it is not yet; nothing where it cannot be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    folder = Path(__file__).parent.parent / "build" / "bench-pyodide"
    if node is None or npm is None:
        return []
    if not (folder / "run.mjs").exists():
        folder.mkdir(parents=True, exist_ok=True)
        install = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "pyodide"]
        if subprocess.run(install, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode != 0:
            return []
        (folder / "run.mjs").write_text(_PYODIDE, encoding="utf-8")
    return [node, str(folder / "run.mjs")]


_KERNEL = """
import sys, time
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3")
print("up", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    client.execute_interactive("1+1", output_hook=lambda message: None)
    print(time.perf_counter() - start, flush=True)
client.stop_channels()
manager.shutdown_kernel(now=True)
"""


def jupyter_kernel() -> Kernel | None:
    """Return Jupyter's own kernel behind its own client, in an environment made for it; None where that cannot be had."""
    environment = Path(__file__).parent.parent / "build" / "bench-jupyter"
    python = environment / "bin" / "python"
    if not python.exists():
        made = subprocess.run([sys.executable, "-m", "venv", str(environment)], check=False).returncode == 0
        pip = [str(python), "-m", "pip", "install", "--quiet", "ipykernel", "jupyter_client"]
        if not made or subprocess.run(pip, check=False).returncode != 0:
            shutil.rmtree(environment, ignore_errors=True)
            return None
    return Kernel(str(python))


class Kernel:
    """A process that has a Jupyter kernel and tells how long each cell took, by its own clock."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, "-c", _KERNEL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )

    def __enter__(self) -> Self:
        self._answer()
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.communicate()

    def cell(self) -> float:
        """Run one cell; return its seconds."""
        if self._process.stdin is not None:
            self._process.stdin.write(b"\n")
        return float(self._answer())

    def _answer(self) -> bytes:
        return self._process.stdout.readline() if self._process.stdout is not None else b""


def _name() -> str:
    return f"fumehood-bench-{os.getpid()}-{os.urandom(4).hex()}"


def _bundle(program: list[str]) -> str:
    """Write what crun runs: this host's tree, read-only, in namespaces of its own."""
    folder = tempfile.mkdtemp(prefix="fumehood-bench-")
    kinds = ("pid", "network", "ipc", "uts", "mount")
    config = {
        "ociVersion": "1.0.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": program, "cwd": "/", "env": ["PATH=/usr/bin:/bin"],
                    "noNewPrivileges": True},
        "root": {"path": "/", "readonly": True},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": kind} for kind in kinds]},
    }  # fmt: skip
    Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
