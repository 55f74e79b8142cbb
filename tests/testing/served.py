"""A service as a user starts it: `fumehood serve` in a process of its own, on a free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

FUMEHOOD = Path(sys.executable).parent / "fumehood"
KEY = "My API Key"


class Served:
    """Serves while its `with` lasts. `folder` is its data folder's parent, which a second one can go on with."""

    def __init__(self, folder: Path, *options: str, key: str | None = KEY, **environment: str) -> None:
        self._folder, self._options, self._key, self._environment = folder, options, key, environment
        #: The key that it made, where it made one.
        self.made_key = ""

    def __enter__(self) -> Self:
        # Runtimes stay where they are, so that nothing is built anew.
        runtimes = self._folder / "fumehood" / "runtimes"
        if not runtimes.exists():
            runtimes.parent.mkdir(parents=True, exist_ok=True)
            usual = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
            runtimes.symlink_to(Path(usual, "fumehood", "runtimes"))
        environment = {**os.environ, "XDG_DATA_HOME": str(self._folder), **self._environment}
        if self._key is not None:
            environment["FUMEHOOD_API_KEY"] = self._key
        self.process = subprocess.Popen(
            [FUMEHOOD, "serve", "--port", "0", *self._options], env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"http://\S+?:(\d+)", line)
        if found is None:
            raise AssertionError(line + "".join(self.process.communicate()))
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"
        if self._key is None:
            self.process.stderr.readline()
            assert self.process.stdout is not None
            self.made_key = self.process.stdout.readline().strip()
        return self

    def kill(self) -> None:
        """End it as a machine that loses its power would, but for the disk."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=20)
