"""Shows that the attacks are real: without walls every one of them succeeds, so every other test here fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from .conftest import ONLY_ROOT, UNWALLED, is_the_hosts_root

# Namespaces of its own: what attacks leave behind, processes and mounts alike, goes with them. An ordinary user is
# called root in there, so that more attacks succeed.
_NAMESPACES = ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.mark.timeout(400)
@pytest.mark.skipif(UNWALLED, reason="this is the run that it starts")
def test_p120_without_walls_every_attack_succeeds(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    tests = [str(Path(__file__).parent), f"--ignore={__file__}"]
    options = ["-q", f"--junit-xml={report}", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'unwalled'}"]
    prefix = [*_NAMESPACES, *([] if os.geteuid() == 0 else ["--map-root-user"])]
    run = subprocess.run(
        [*prefix, sys.executable, "-m", "pytest", *tests, *options],
        env={**os.environ, "FUMEHOOD_TEST_UNWALLED": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=390,
    )
    assert report.exists(), run.stdout + run.stderr
    cases = list(ET.parse(report).getroot().iter("testcase"))
    # A case whose tear-down stumbles too is written down twice: what counts is that its own assertion failed.
    failed = {_name(case) for case in cases if case.find("failure") is not None}
    left_out = {_name(case) for case in cases if _why_skipped(case) == ONLY_ROOT}
    harmless = {_name(case) for case in cases} - failed - left_out
    assert sorted(harmless) == []
    assert not (left_out and is_the_hosts_root())
    assert len(failed) > 190


def _name(case: ET.Element) -> str:
    return f"{case.get('classname')}::{case.get('name')}"


def _why_skipped(case: ET.Element) -> str | None:
    skipped = case.find("skipped")
    return None if skipped is None else skipped.get("message")
