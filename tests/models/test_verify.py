"""`fumehood model verify`, as a user starts it, against `fumehood model serve` with a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fumehood.conformance.checks import CHECKS
from tests.models.conftest import ONE_THREAD


def test_our_own_engine_fails_no_check(noise_folder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, **ONE_THREAD}
    fumehood = [sys.executable, "-m", "fumehood", "model"]
    with subprocess.Popen(
        [*fumehood, "serve", "--model", str(noise_folder), "--port", "0", "--name", "tiny"],
        env=environment, stderr=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stderr is not None
            said = [server.stderr.readline() for _line in range(2)]
            url = said[1].split(" at ")[1].split(";")[0]
            done = subprocess.run(
                [*fumehood, "verify", "--base-url", url, "--model", "tiny", "--tokenizer", str(noise_folder), "--json",
                 "--html", str(tmp_path / "page.html"), "--junit", str(tmp_path / "junit.xml")],
                env=environment, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        finally:
            server.terminate()
    checks = {check["id"]: check for check in json.loads(done.stdout)["checks"]}
    assert {id_: check["seen"] for id_, check in checks.items() if check["outcome"] == "fail"} == {}
    assert (done.returncode, set(checks)) == (0, {check.id for check in CHECKS}), done.stderr
    # What needs no real weights is shown, not passed over.
    shown = ["P1", "P2", "P8", "P9", "P10", "C11b", "C11c", "S1", "S4", "S5", "S8", "J4", "X1", "X3", "E1", "E4"]
    assert {id_: checks[id_]["seen"] for id_ in shown if checks[id_]["outcome"] != "pass"} == {}
    assert "tiny" in (tmp_path / "page.html").read_text()
    assert 'failures="0"' in (tmp_path / "junit.xml").read_text()
