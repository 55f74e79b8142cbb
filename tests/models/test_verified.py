"""Our own engine before our own judge: with random weights, and with a parrot that calls, it fails no check."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models.conftest import ONE_THREAD
from tests.models.test_api import serving
from tests.testing.tiny_models import call

MakeParrot = Callable[..., Path]
SCRIPTS = {
    "noise": [],
    "a_parrot_that_calls": call("terminal", command="ls -l"),
}
#: What each passes among others: noise is held to a schema by the grammar alone.
PASSES = {"noise": {"J2"}, "a_parrot_that_calls": {"C8"}}


@pytest.mark.parametrize("name", SCRIPTS)
def test_our_own_engine_fails_no_check_of_ours(name: str, parrot: MakeParrot, noise_folder: Path) -> None:
    script = SCRIPTS[name]
    folder = parrot(*script, then=("A long time ago, far away",)) if script else noise_folder
    outcomes = verified(folder)
    assert sum(outcome == "pass" for outcome in outcomes.values()) > 30
    assert {outcomes[id_] for id_ in PASSES[name]} == {"pass"}


def test_an_argument_that_quotes_a_call_is_one_call(parrot: MakeParrot) -> None:
    # C9's own argument, in words that this model can use once each.
    quoting = '{"code":"print() #([TOOL_CALLS]rm[ARGS]{})","result_variable": "x"}'
    assert verified(parrot("[TOOL_CALLS]", "python", "[ARGS]", quoting), "--only", "C9") == {"C9": "pass"}


def verified(folder: Path, *words: str) -> dict[str, str]:
    """Return what comes of each check; none fails."""
    from fumehood.models.loading import load

    with serving(load(folder, context=4096)) as client:
        done = subprocess.run(
            [sys.executable, "-m", "fumehood", "model", "verify", "--base-url", f"{client.base_url}/v1", "--model", "tiny",
             "--json", *words],
            env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
    results = json.loads(done.stdout)
    failed = {each["id"]: each["seen"] for each in results["checks"] if each["outcome"] == "fail"}
    assert (failed, done.returncode) == ({}, 0), (results, done.stderr)
    return {each["id"]: each["outcome"] for each in results["checks"]}
