"""Stands in for another engine's program, as a process of its own that speaks real HTTP; `stand_ins` makes it one.

What is to go wrong stands in the environment: STAND_IN_DIES (started, asked), STAND_IN_REFUSES, STAND_IN_STUBBORN,
STAND_IN_FAULT, and STAND_IN_FILES for a folder in which it notes what it did.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.conformance.faults import Fault
from tests.conformance.scripted_server import Refused, ScriptedServer

FILES = Path(os.environ.get("STAND_IN_FILES", "/nowhere"))


def main(name: str, *words: str) -> None:
    """Do what the program does."""
    sys.stdout.write(f"{name} {' '.join(words)} key={os.environ.get('LLAMA_API_KEY')} \x1b]0;a title\x07\n")
    sys.stdout.flush()
    if words[:1] in (("pull",), ("load",)):
        (FILES / "fetched").touch()
    elif words[:2] == ("server", "start"):
        # As LM Studio's: it comes back at once, and what serves is none of its children.
        again = (sys.executable, "-m", "tests.models.stand_in", "daemon", *words[2:])
        quiet = subprocess.DEVNULL
        daemon = subprocess.Popen(again, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        (FILES / "daemon").write_text(str(daemon.pid))
    elif os.environ.get("STAND_IN_DIES") == "started":
        sys.stderr.write("CUDA out of memory\n")
        sys.exit(3)
    else:
        _serve(name, words)


def _serve(name: str, words: tuple[str, ...]) -> None:
    if os.environ.get("STAND_IN_STUBBORN"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if FILES.is_dir():
        worker = subprocess.Popen(["sleep", "300"])
        (FILES / "pids").write_text(f"{os.getpid()} {worker.pid}")
    port = os.environ["OLLAMA_HOST"].rsplit(":", 1)[1] if name == "ollama" else words[words.index("--port") + 1]
    fetches = name in ("ollama", "daemon")
    faults = {Fault[os.environ["STAND_IN_FAULT"]]} if "STAND_IN_FAULT" in os.environ else set()
    with _Strange(*faults, *([Fault.HIDES_ITS_MODEL] if fetches else []), port=int(port)) as server:
        while True:
            time.sleep(0.05)
            if fetches and (FILES / "fetched").exists():
                server.faults = frozenset(faults)


class _Strange(ScriptedServer):
    """Dies of its first question, or refuses each, where the environment says so."""

    def answer(self, handler: BaseHTTPRequestHandler, raw: bytes) -> None:
        if os.environ.get("STAND_IN_DIES") == "asked":
            os._exit(3)
        if os.environ.get("STAND_IN_REFUSES"):
            raise Refused(400, "missing 1 required argument: 'force_tool_names'")
        super().answer(handler, raw)


if __name__ == "__main__":
    main(*sys.argv[1:])
