"""Runtimes of the service while they are built: what is deleted stops, what a server left is gone on with, TypeScript runs on them."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.testing.indexes import npm_registry, serving
from tests.testing.served import KEY, Served

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
PACKAGES: Any = {"paint": {"1.0.0": ({}, {"index.js": "module.exports = (x) => `painted ${x}`"})}}
MANIFEST = {"manifest_file": {"name": "package.json", "contents": '{"dependencies": {"paint": "^1.0.0"}}'}}


@contextmanager
def building(folder: Path, watch: Callable[[], None] = lambda: None) -> Iterator[tuple[Served, httpx.Client]]:
    """Serve with a registry of this test's; `watch` is called at each request to it."""
    headers = {"authorization": f"Bearer {KEY}"}
    # Its runtimes are its own: what is built here is nobody else's.
    (folder / "fumehood" / "runtimes").mkdir(parents=True, exist_ok=True)
    with (
        serving(npm_registry(PACKAGES, watch=watch)) as (registry, _asked),
        Served(folder, npm_config_registry=registry) as served,
        httpx.Client(base_url=served.url, headers=headers, timeout=60) as api,
    ):
        yield served, api


def status_of(api: httpx.Client, runtime: str, until: tuple[str, ...] = ("succeeded", "failed")) -> str:
    deadline = time.monotonic() + 60
    while (
        status := str(api.get(f"/v1/runtimes/{runtime}").json()["status"])
    ) not in until and time.monotonic() < deadline:
        time.sleep(0.05)
    return status


@needs_npm
def test_typescript_and_sessions_run_on_packages_for_node(tmp_path: Path) -> None:
    with building(tmp_path) as (_served, api):
        made = api.post("/v1/runtimes", json={"name": "r", "language": "javascript", **MANIFEST}).json()
        assert status_of(api, made["id"]) == "succeeded"
        revision = made["revision_id"]
        log = api.get(f"/v1/runtimes/{made['id']}/revisions/{revision}/log")
        assert "paint" in log.text
        typed = "import paint from 'paint'; const n: number = 42; console.log(paint(n))"
        answer = api.post(
            "/v1/execute", json={"language": "typescript", "code": typed, "runtime_revision_id": revision}
        )
        assert answer.json()["stdout"] == "painted 42\n", answer.text
        plain = api.post("/v1/executions", json={"language": revision, "code": "console.log(require('paint')(1))"})
        assert plain.json()["stdout"] == "painted 1\n", plain.text
        session = api.post("/v1/sessions", json={"language": revision}).json()["id"]
        cell = api.post(f"/v1/sessions/{session}/cells", json={"code": "console.log(require('paint')(2))"})
        assert cell.json()["stdout"] == "painted 2\n"


@needs_npm
def test_a_runtime_that_is_deleted_while_it_is_built_is_gone_at_once(tmp_path: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        asked.set()
        go_on.wait(60)

    with building(tmp_path, wait) as (_served, api):
        made = api.post("/v1/runtimes", json={"name": "r", "language": "javascript", **MANIFEST}).json()
        assert asked.wait(30)
        early = api.post(
            "/v1/execute", json={"language": "javascript", "code": "1", "runtime_revision_id": made["revision_id"]}
        )
        assert (early.status_code, early.headers["retry-after"]) == (503, "1")
        began = time.monotonic()
        assert api.delete(f"/v1/runtimes/{made['id']}").json() == {"id": made["id"], "deleted": True}
        assert time.monotonic() - began < 5
        go_on.set()
        again = api.post("/v1/runtimes", json={"name": "r", "language": "javascript", **MANIFEST}).json()
        assert status_of(api, again["id"]) == "succeeded"
        built = os.listdir(tmp_path / "fumehood" / "runtimes" / "names")
        assert f"rt-{made['revision_id'].lower()}" not in built
        assert f"rt-{again['revision_id'].lower()}" in built


@needs_npm
def test_a_build_that_a_stopped_server_left_is_gone_on_with(tmp_path: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        asked.set()
        go_on.wait(60)

    with building(tmp_path, wait) as (served, api):
        made = api.post("/v1/runtimes", json={"name": "r", "language": "javascript", **MANIFEST}).json()
        assert asked.wait(30)
        assert status_of(api, made["id"], ("building",)) == "building"
        served.process.terminate()
        served.process.wait(20)
        go_on.set()
    with building(tmp_path) as (_served, api):
        assert status_of(api, made["id"]) == "succeeded"
