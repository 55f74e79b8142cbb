"""Shows that the attacks are real: without walls every one of them succeeds, so every other test here fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from .conftest import UNWALLED


@pytest.mark.timeout(400)
@pytest.mark.skipif(UNWALLED, reason="this is the run that it starts")
def test_p120_without_walls_every_attack_succeeds(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    # Namespaces of its own where they can be had: what attacks leave behind goes with them.
    prefix = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"] if os.geteuid() == 0 else []
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(Path(__file__).parent),
        "-q",
        f"--junit-xml={report}",
        "-p",
        "no:cacheprovider",
    ]
    subprocess.run(
        [*prefix, *command],
        env={**os.environ, "FUMEHOOD_TEST_UNWALLED": "1"},
        capture_output=True,
        check=False,
        timeout=390,
    )
    cases = list(ET.parse(report).getroot().iter("testcase"))
    # An attack that succeeds may leave a socket open, which pytest reports as an error beside the failure.
    ran = [case for case in cases if case.find("skipped") is None and case.find("error") is None]
    harmless = [f"{case.get('classname')}::{case.get('name')}" for case in ran if case.find("failure") is None]
    assert len(ran) > 90
    assert harmless == []
