"""What may go wrong between the remote executor and its server: lines that break, keys that are wrong, servers that lie."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fumehood import Event, ExecutionRequest, Output, RemoteExecutor, errors
from fumehood.client.events import Decoder, ServerEvent
from tests.testing.cut_line import CutLine
from tests.testing.raw_server import RawServer
from tests.testing.served import KEY, Served

STREAM = "text/event-stream"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data")) as served:
        yield served


def test_a_cell_outlives_its_line_and_every_event_comes_once(served: Served) -> None:
    heard: list[str] = []
    with CutLine(served.port) as line, RemoteExecutor(line.url, KEY) as executor, executor.session() as session:

        def hear(event: Event) -> None:
            assert isinstance(event, Output)
            heard.append(event.text)
            if len(heard) in (2, 5):
                line.cut()

        before = line.count
        result = session.run("import time\nfor n in range(8): print(n); time.sleep(0.2)", on_event=hear)
        assert line.count >= before + 2
    assert result.ok
    assert "".join(heard) == result.stdout == "".join(f"{n}\n" for n in range(8))


def test_a_line_that_stays_cut_is_told_with_the_cells_id(served: Served) -> None:
    with CutLine(served.port) as line, RemoteExecutor(line.url, KEY) as executor:
        session = executor.session()
        with pytest.raises(errors.ServerUnreachable, match="may still run, under the id"):
            session.run("print(1); import time; time.sleep(1)", on_event=lambda _event: line.cut(for_good=True))
        with pytest.raises(errors.ServerUnreachable, match="broke|reached"):
            session.close()


def test_a_program_whose_line_is_cut_is_ended_and_that_is_told(served: Served) -> None:
    with CutLine(served.port) as line, RemoteExecutor(line.url, KEY) as executor:
        request = ExecutionRequest(code="import time; print(1, flush=True); time.sleep(60)")
        started = time.monotonic()
        with pytest.raises(errors.ServerUnreachable, match="broke"):
            executor.execute(request, on_output=lambda *_: line.cut())
        assert time.monotonic() - started < 20
        assert executor.execute(ExecutionRequest(code="print(2)")).stdout == "2\n"


def test_a_server_that_is_killed_is_told(tmp_path: Path) -> None:
    with Served(tmp_path) as served, RemoteExecutor(served.url, KEY) as executor:
        session = executor.session()
        request = ExecutionRequest(code="import time; print(1, flush=True); time.sleep(60)")
        with pytest.raises(errors.ServerUnreachable, match="broke"):
            executor.execute(request, on_output=lambda *_: served.kill())
        with pytest.raises(errors.ServerUnreachable, match="cannot be reached"):
            executor.execute(request)
        with pytest.raises(errors.ServerUnreachable, match="cannot be reached"):
            session.run("1")
        with pytest.raises(errors.ServerUnreachable, match="cannot be reached"):
            _ = session.status
        with pytest.raises(KeyError, match="mine"), session:
            raise KeyError("mine")


@pytest.mark.parametrize("key", ["", "not a key"])
def test_a_wrong_key_is_refused_with_the_next_step(served: Served, key: str) -> None:
    with RemoteExecutor(served.url, key) as executor:
        for ask in (lambda: executor.execute(ExecutionRequest(code="1")), executor.session, executor.languages):
            with pytest.raises(errors.ServerRefused, match="FUMEHOOD_API_KEY") as raised:
                ask()
            assert raised.value.status == 401


def test_a_session_that_was_deleted_by_others_is_dead(served: Served) -> None:
    with RemoteExecutor(served.url, KEY) as first, RemoteExecutor(served.url, KEY) as second:
        session = first.session()
        second._transport.ask("DELETE", f"/v1/sessions/{session.id}")
        assert session.status == "dead"
        with pytest.raises(errors.ServerRefused, match="there is no session"):
            session.run("1")
        session.close()


def test_the_documented_program_runs(served: Served, tmp_path: Path) -> None:
    page = Path(__file__).parent.parent / "docs" / "how-to" / "use-a-server.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    environment = {**os.environ, "FUMEHOOD_SERVER": served.url, "FUMEHOOD_API_KEY": KEY}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


ADDRESSES = {
    "no_scheme": "127.0.0.1:3003",
    "another_scheme": "ftp://h/",
    "no_host": "http://",
    "no_port": "http://h:port",
    "a_query": "http://h/?a",
    "a_space": "http://h /",
    "a_line": "http://h/\n",
    "credentials": "http://user:correct-horse@h/",
}


@pytest.mark.parametrize("url", ADDRESSES.values(), ids=ADDRESSES.keys())
def test_an_address_that_is_none_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="server's address") as raised:
        RemoteExecutor(url)
    assert "correct-horse" not in str(raised.value)


@pytest.mark.parametrize("key", ["correct\nhorse", "corrèct", " correct", "correct\0"])
def test_a_key_that_fits_no_header_is_refused_unseen(key: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="does not fit into a header") as raised:
        RemoteExecutor("http://127.0.0.1:1", key)
    assert key.strip() not in str(raised.value)


def as_event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


RESULT = {
    "id": "x", "language": "python", "reason": "exited", "exit_code": 0, "signal": None, "detail": "", "files": [],
    "skipped_files": [], "duration_seconds": 1, "cpu_seconds": 0.5, "peak_memory_bytes": None, "network_refused": 0,
    "connections": [], "refusals": [], "connections_left_out": 0, "tier": "cgroup", "warm": True, "denied_calls": None,
    "stdout": "42\n", "stderr": "",
}  # fmt: skip
CONNECTION = {"host": "h", "port": 1, "verdict": "plain", "methods": ["GET"]}


def execute(body: bytes, *, status: int = 200, kind: str = STREAM) -> str:
    with RawServer(body, status=status, kind=kind) as raw, RemoteExecutor(raw.url, "correct-horse-key") as executor:
        return executor.execute(ExecutionRequest(code="1")).stdout


def test_a_result_in_order_is_taken() -> None:
    assert execute(as_event("result", RESULT | {"connections": [CONNECTION]})) == "42\n"


LIES = {
    "no_json": b"event: result\ndata: {\n\n",
    "deep_json": b"event: result\ndata: " + b"[" * 100_000 + b"\n\n",
    "no_object": as_event("result", [1]),
    "a_field_that_is_missing": as_event("result", {k: v for k, v in RESULT.items() if k != "stdout"}),
    "a_text_for_a_number": as_event("result", RESULT | {"exit_code": "0"}),
    "a_truth_for_a_number": as_event("result", RESULT | {"exit_code": True}),
    "an_exit_code_that_is_none": as_event("result", RESULT | {"exit_code": 10**30}),
    "a_number_for_a_text": as_event("result", RESULT | {"stdout": 5}),
    "a_list_for_a_reason": as_event("result", RESULT | {"reason": ["exited"]}),
    "a_file_without_content": as_event("result", RESULT | {"files": [{"path": "p"}]}),
    "a_path_that_is_none": as_event("result", RESULT | {"files": [{"path": 1, "text": "x"}]}),
    "a_reason_that_is_none": as_event("result", RESULT | {"skipped_files": [{"path": "p", "why": 1}]}),
    "a_connection_with_a_method_that_is_none": as_event(
        "result", RESULT | {"connections": [CONNECTION | {"methods": [1]}]}
    ),
    "a_connection_with_more": as_event("result", RESULT | {"connections": [CONNECTION | {"zork": 1}]}),
    "a_call_that_is_none": as_event(
        "result", RESULT | {"denied_calls": [{"call": 1, "answer": "", "count": 1, "why": ""}]}
    ),
    "a_stream_that_is_none": as_event("output", {"stream": "/dev/sda", "text": "x"}),
    "output_that_is_none": as_event("output", {"stream": "stdout", "base64": "%"}),
    "an_error_without_status": as_event("error", {"message": "m"}),
    "an_error_without_words": as_event("error", {"status": 500}),
}


@pytest.mark.parametrize("body", LIES.values(), ids=LIES.keys())
def test_an_answer_that_breaks_the_api_is_told_as_that(body: bytes) -> None:
    with pytest.raises(errors.ServerMisbehaved):
        execute(body)


def test_a_stream_without_end_is_given_up() -> None:
    decoder = Decoder(100)
    decoder.feed(b"x" * 60 + b"\n")
    with pytest.raises(errors.ServerMisbehaved, match="more than"):
        decoder.feed(b"x" * 60)


REFUSALS = {
    "a_page": (404, b"<html>", "text/html", errors.ServerMisbehaved, "the address of a `fumehood serve`"),
    "a_page_that_is_well": (200, b"<html>", "text/html", errors.ServerMisbehaved, "the address of a `fumehood serve`"),
    "elsewhere": (302, b"", "text/html", errors.ServerMisbehaved, "leads elsewhere"),
    "forbidden": (
        403,
        b'{"message": "needs execute", "code": 7}',
        STREAM,
        errors.ServerRefused,
        "403: needs execute",
    ),
    "the_key": (500, b'{"message": "correct-horse-key"}', STREAM, errors.ServerRefused, "the key"),
    "a_kind": (
        503,
        b'{"message": "no ruby", "kind": "RuntimeUnavailable"}',
        STREAM,
        errors.RuntimeUnavailable,
        "no ruby",
    ),
    "no_kind_of_a_servers": (500, b'{"message": "m", "kind": "FumehoodError"}', STREAM, errors.ServerRefused, "500: m"),
    "a_kind_that_is_none": (500, b'{"message": "m", "kind": ["x"]}', STREAM, errors.ServerRefused, "500: m"),
}


@pytest.mark.parametrize(("status", "body", "kind", "error", "said"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_is_an_error_of_ours(status: int, body: bytes, kind: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as raised:
        execute(body, status=status, kind=kind)
    assert type(raised.value) is error
    assert "correct-horse" not in str(raised.value)


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    hold = threading.Event()
    body = as_event("result", RESULT)
    with RawServer(body, kind=STREAM, hold=hold) as raw, RemoteExecutor(raw.url, timeout=0.5) as executor:
        with pytest.raises(errors.ServerUnreachable, match="no word"):
            executor.execute(ExecutionRequest(code="1"))
        hold.set()


FACTS: dict[str, Any] = {"id": "s", "language": "python", "status": "idle", "death": None, "lost": []}
BAD_FACTS: dict[str, Any] = {
    "an_id_that_leads_elsewhere": {"id": "../keys"},
    "an_id_that_is_none": {"id": 5},
    "a_status_that_is_none": {"status": 1},
    "a_death_that_is_none": {"death": {"reason": 5, "detail": ""}},
    "a_death_without_reason": {"death": {}},
    "losses_that_are_none": {"lost": [1]},
}


@pytest.mark.parametrize("wrong", BAD_FACTS.values(), ids=BAD_FACTS.keys())
def test_facts_of_a_session_are_checked(wrong: dict[str, Any]) -> None:
    with (
        RawServer(json.dumps(FACTS | wrong).encode()) as raw,
        RemoteExecutor(raw.url) as executor,
        pytest.raises(errors.ServerMisbehaved),
    ):
        executor.session()


CELL_ENDS = {"ok": True, "ended": "finished", "duration_seconds": 1, "connections": [], "refusals": []}
BAD_EVENTS = {
    "no_event": {"type": "zork"},
    "a_stream_that_is_none": {"type": "output", "stream": "disk", "text": "x"},
    "a_text_that_is_none": {"type": "output", "stream": "stdout", "text": ["x"]},
    "data_that_are_none": {"type": "display", "data": "x", "metadata": {}},
}


@pytest.mark.parametrize("wrong", BAD_EVENTS.values(), ids=BAD_EVENTS.keys())
def test_events_of_a_cell_are_checked(wrong: dict[str, Any]) -> None:
    stream = as_event("cell", {"id": "c"}) + b"id: 1\n" + as_event("output", wrong) + as_event("result", CELL_ENDS)
    with (
        RawServer(json.dumps(FACTS).encode(), stream, b"{}", kind=STREAM) as raw,
        RemoteExecutor(raw.url) as executor,
        pytest.raises(errors.ServerMisbehaved),
    ):
        executor.session().run("1")


def test_pieces_of_any_size_make_the_same_events() -> None:
    stream = b': hello\n\nid: 7\nevent: output\ndata: {"a":\ndata: 1}\n\nid: x\r\ndata:"\xe2\x80\xa8\\r"\r\n\r\ndata\n\nevent: e\n\n'
    wanted = [
        ServerEvent(name="output", number=7, data={"a": 1}),
        ServerEvent(name="", number=-1, data="\u2028\r"),
    ]
    for size in range(1, len(stream) + 1):
        decoder = Decoder(10_000)
        pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
        assert [event for piece in pieces for event in decoder.feed(piece)] == wanted, size


def test_calls_from_many_threads_end_when_the_line_is_cut(served: Served) -> None:
    with CutLine(served.port) as line, RemoteExecutor(line.url, KEY) as executor, ThreadPoolExecutor(6) as threads:
        begun = threading.Semaphore(0)
        request = ExecutionRequest(code="import time; print(1, flush=True); time.sleep(60)")
        running = [threads.submit(executor.execute, request, on_output=lambda *_: begun.release()) for _ in range(6)]
        for _ in running:
            assert begun.acquire(timeout=30)
        line.cut()
        for each in running:
            assert isinstance(each.exception(20), errors.ServerUnreachable)
