"""How a service ends, and how much it does at one time: real signals to real processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.testing.served import FUMEHOOD, KEY, Served

SLEEP = "import time; time.sleep({}); print('done')"
STREAM = {"accept": "text/event-stream"}


class Asking:
    """A request that is under way in a thread of its own."""

    def __init__(self, served: Served, path: str, body: Any, **headers: str) -> None:
        headers["authorization"] = f"Bearer {KEY}"
        self._ask: Callable[[], httpx.Response] = lambda: httpx.post(
            served.url + path, json=body, headers=headers, timeout=60
        )
        self._thread = threading.Thread(target=self._run)
        self.answers: list[httpx.Response] = []
        self._thread.start()

    def _run(self) -> None:
        # Where the server ends at once there is none.
        with contextlib.suppress(httpx.TransportError):
            self.answers.append(self._ask())

    def ends(self) -> None:
        """Wait until there is an answer, or there will be none."""
        self._thread.join()

    def answer(self) -> httpx.Response:
        self._thread.join()
        return self.answers[0]


def running(served: Served, count: int = 1) -> None:
    """Wait until so many executions run."""
    until = time.monotonic() + 20
    while f"fumehood_executions_running {count}.0" not in httpx.get(f"{served.url}/metrics").text:
        assert time.monotonic() < until
        time.sleep(0.02)


def session_of(served: Served) -> str:
    answer = httpx.post(f"{served.url}/v1/sessions", json={}, headers={"authorization": f"Bearer {KEY}"}, timeout=60)
    return f"/v1/sessions/{answer.json()['id']}/cells"


def guests_of(pid: int) -> list[str]:
    """Return the names of all processes below one, whichever of its threads began them."""
    found: list[str] = []
    pending = [str(pid)]
    while pending:
        for thread in Path(f"/proc/{pending.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                pending += (children := thread.read_text(encoding="ascii").split())
                found += children
    return found


def are_gone(guests: list[str]) -> bool:
    """Whether all of them end soon: the kernel kills them, and whoever inherits them takes them away."""
    until = time.monotonic() + 5
    while alive := [pid for pid in guests if os.path.exists(f"/proc/{pid}")]:
        if time.monotonic() > until:
            return not alive
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_when_a_signal_comes_is_answered_and_nothing_new_is_taken(
    tmp_path: Path, number: signal.Signals
) -> None:
    with Served(tmp_path) as served:
        plain = Asking(served, "/v1/execute", {"language": "python", "code": SLEEP.format(1.5)})
        stream = Asking(served, "/v1/executions", {"code": SLEEP.format(1.5)}, **STREAM)
        cell = Asking(served, session_of(served), {"code": SLEEP.format(1.5)}, **STREAM)
        running(served, 3)
        served.process.send_signal(number)
        time.sleep(0.3)
        assert served.process.poll() is None
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", served.port)):
            pass
        assert plain.answer().json()["stdout"] == "done\n"
        assert "event: result" in stream.answer().text
        assert "event: result" in cell.answer().text
        began = time.monotonic()
        assert served.process.wait(20) == 0
        assert time.monotonic() - began < 3
    # It was kept before it was answered.
    with Served(tmp_path) as served:
        found = httpx.get(f"{served.url}/v1/executions?all=true", headers={"authorization": f"Bearer {KEY}"}).json()[
            "data"
        ]
        assert sorted(each["kind"] for each in found) == ["cell", "execution", "script"]


def test_what_runs_longer_than_the_grace_is_ended_and_answered_that_it_was(tmp_path: Path) -> None:
    with Served(tmp_path, "--grace", "0.5") as served:
        plain = Asking(served, "/v1/execute", {"language": "python", "code": SLEEP.format(25)})
        stream = Asking(served, "/v1/executions", {"code": SLEEP.format(25)}, **STREAM)
        cell = Asking(served, session_of(served), {"code": SLEEP.format(25)}, **STREAM)
        batch = Asking(served, "/v1/batches", {"programs": [{"code": SLEEP.format(25)}] * 2})
        running(served, 5)
        guests = guests_of(served.process.pid)
        assert len(guests) > 4
        began = time.monotonic()
        served.process.terminate()
        assert served.process.wait(20) == 0
        assert 0.4 < time.monotonic() - began < 8
        answer = plain.answer()
        assert (answer.status_code, answer.json()["message"]) == (503, "the server is being stopped: ask again")
        assert "event: error" in stream.answer().text
        assert '"status":503' in stream.answer().text
        assert re.search("event: (error|result)", cell.answer().text)
        assert [each["error"]["code"] for each in batch.answer().json()["results"]] == [14, 14]
        assert are_gone(guests)


def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        asking = [Asking(served, "/v1/executions", {"code": SLEEP.format(25)}, **STREAM),
                  Asking(served, session_of(served), {"code": SLEEP.format(25)}, **STREAM)]  # fmt: skip
        running(served, 2)
        guests = guests_of(served.process.pid)
        assert len(guests) > 4
        served.process.terminate()
        time.sleep(0.5)
        assert served.process.poll() is None
        began = time.monotonic()
        served.process.terminate()
        assert served.process.wait(20) == 128 + signal.SIGTERM
        assert time.monotonic() - began < 3
        for each in asking:
            each.ends()
        assert are_gone(guests)


def test_a_service_with_nothing_to_do_ends_at_once_sessions_and_all(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        session_of(served)
        with httpx.Client(base_url=served.url) as idle:
            idle.get("/healthz")
            guests = guests_of(served.process.pid)
            assert len(guests) > 1
            began = time.monotonic()
            served.process.terminate()
            assert served.process.wait(20) == 0
        assert time.monotonic() - began < 3
        assert are_gone(guests)


def test_as_many_run_at_one_time_as_the_operator_says(tmp_path: Path) -> None:
    with Served(tmp_path, "--at-once", "1", "--sessions", "1") as served:
        began = time.monotonic()
        both = [Asking(served, "/v1/execute", {"language": "python", "code": SLEEP.format(0.6)}) for _time in range(2)]
        assert [each.answer().status_code for each in both] == [200, 200]
        assert time.monotonic() - began > 1.2
        assert session_of(served)
        second = Asking(served, "/v1/sessions", {}).answer()
        assert (second.status_code, "1 sessions and checkpoints" in second.json()["message"]) == (429, True)


@pytest.mark.parametrize(
    "option",
    [("--at-once", "0"), ("--at-once", "many"), ("--sessions", "-1"), ("--grace", "nan"), ("--grace", "-1"),
     ("--log-format", "xml")],
    ids=" ".join,
)  # fmt: skip
def test_an_option_that_cannot_be_is_a_usage_error(tmp_path: Path, option: tuple[str, str]) -> None:
    answer = subprocess.run(
        [FUMEHOOD, "serve", *option], env={**os.environ, "XDG_DATA_HOME": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (answer.returncode, answer.stdout) == (2, "")
    assert option[0] in answer.stderr
    assert "Traceback" not in answer.stderr
