"""Our own OpenAPI document, and what schemathesis finds with it: no failure of the service's, no status that it does not name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.testing.served import KEY, Served

SCHEMATHESIS = str(Path(sys.executable).parent / "st")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data"), "--sessions", "4") as served:
        yield served


def test_no_request_finds_a_failure_or_a_status_that_is_not_named(served: Served, tmp_path: Path) -> None:
    # A build that is asked for runs on after its answer, for long where a hundred are asked for.
    command = [
        SCHEMATHESIS, "run", f"{served.url}/openapi.json", "-H", f"Authorization: Bearer {KEY}", "--checks", CHECKS,
        "--phases", "coverage,fuzzing", "-n", "10", "--generation-deterministic", "--continue-on-failure",
        "--suppress-health-check", "all", "--request-timeout", "60", "--warnings", "off", "--no-color",
        "--exclude-path-regex", "^/v1/runtimes(/[^/]*/revisions)?$",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr


def test_every_endpoint_names_what_it_answers(served: Served) -> None:
    paths = httpx.get(f"{served.url}/openapi.json").json()["paths"]
    assert len([method for path in paths.values() for method in path]) >= 50
    for path, methods in paths.items():
        for method, operation in methods.items():
            assert operation.get("description"), (method, path)
            assert {"200", "400", "401", "404", "429"} <= set(operation["responses"]), (method, path)
