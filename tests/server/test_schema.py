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
    # Of the two that begin builds few: those run on after their answers, for long where a hundred are asked for.
    command = [
        SCHEMATHESIS, "run", f"{served.url}/openapi.json", "-H", f"Authorization: Bearer {KEY}", "--checks", CHECKS,
        "--phases", "coverage,fuzzing", "-n", "10", "--generation-deterministic", "--continue-on-failure",
        "--suppress-health-check", "all", "--request-timeout", "60", "--warnings", "off", "--no-color",
        "--exclude-operation-id-regex", "^create_(runtime|revision)_",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    few = ["--include-operation-id-regex" if each.startswith("--exclude") else each for each in command]
    few[few.index("-n") + 1] = "3"
    done = subprocess.run(few, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr


def test_what_a_session_that_has_ended_answers_is_named(served: Served) -> None:
    paths = httpx.get(f"{served.url}/openapi.json").json()["paths"]
    seen = []
    with httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {KEY}"}) as client:
        for left in client.get("/v1/sessions").json()["sessions"]:  # by the test above
            client.delete(f"/v1/sessions/{left['id']}")
        session = client.post("/v1/sessions", json={}).json()["id"]
        cell = client.post(f"/v1/sessions/{session}/cells", json={"code": "import os; os.kill(os.getpid(), 9)"}).json()
        assert cell["ended"] == "died"
        for path, methods in paths.items():
            if not path.startswith("/v1/sessions/{session_id}/") or path.endswith(("/restart", "/restore")):
                continue
            there = path.format(session_id=session, cell_id=cell["id"], path="a", checkpoint_id="none")
            for method, operation in methods.items():
                body = {"code": "1"} if there.endswith("/cells") else {}
                answer = client.request(method, there, json=body if method in ("post", "put") else None)
                assert str(answer.status_code) in operation["responses"], (method, path, answer.text)
                seen.append(answer.status_code)
        events = "/v1/sessions/{session_id}/cells/{cell_id}/events"
        there = events.format(session_id=session, cell_id=cell["id"])
        assert client.get(there, headers={"last-event-id": "x"}).status_code == 400
        assert "400" in paths[events]["get"]["responses"]
        client.delete(f"/v1/sessions/{session}")
    assert seen.count(410) >= 6


def test_every_endpoint_names_what_it_answers_and_nothing_else(served: Served) -> None:
    document = httpx.get(f"{served.url}/openapi.json").json()
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert len(operations) >= 50
    for name, operation in operations.items():
        assert operation.get("description"), name
        named = set(operation["responses"]) - {"200"}
        open_to_all = name.split()[1] in ("/healthz", "/readyz", "/metrics")
        assert ("security" in operation) is not open_to_all, name
        assert ({"401", "403", "429"} <= named) or name in ("GET /healthz", "GET /readyz"), name
        assert ("422" in named) is (name == "POST /run_code"), name
        assert ("413" in named) is (name.split()[0] in ("POST", "PUT")), name
        assert named & {"409", "410"} == set() or "/v1/sessions/{session_id}/" in name, name
    assert set(operations["GET /healthz"]["responses"]) == {"200"}
    assert set(operations["GET /readyz"]["responses"]) == {"200", "503"}
    assert set(operations["GET /v1/sessions"]["responses"]) == {"200", "401", "403", "429", "500", "503"}
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])
