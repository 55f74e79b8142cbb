"""Shows that the probes notice: without walls they fall."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fumehood.probes.host_side import is_the_hosts_root
from fumehood.probes.suite import ONLY_ROOT


@pytest.mark.timeout(400)
def test_p120_without_walls_every_attack_succeeds() -> None:
    command = [sys.executable, "-m", "fumehood", "doctor", "--probes", "--unwalled", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=390)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(run.stdout)
    # The product asks for nine in ten. A few here depend on who comes first, and miss now and then.
    held = [probe["name"] for probe in report["probes"] if probe["verdict"] == "held"]
    assert len(held) <= report["counts"]["fell"] // 100, held
    left_out = {probe["seen"] for probe in report["probes"] if probe["verdict"] == "left out"}
    assert not (ONLY_ROOT in left_out and is_the_hosts_root())
    assert report["counts"]["fell"] > 600
