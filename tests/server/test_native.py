"""Our own API: executions with files out, streams that are read again, sessions, batches."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fumehood.protocol.execution import ExecutionRequest
from fumehood.protocol.limits import Limits
from fumehood.protocol.network import Allow, Network
from fumehood.protocol.wire import request_as_json, result_from_json
from tests.testing.served import KEY, Served

STREAM = {"accept": "text/event-stream"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data")) as served:
        yield served


@pytest.fixture(scope="module")
def api(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60) as api:
        yield api


@pytest.fixture
def session(api: httpx.Client) -> Iterator[str]:
    made = api.post("/v1/sessions", json={}).json()
    yield f"/v1/sessions/{made['id']}"
    api.delete(f"/v1/sessions/{made['id']}")


def read(
    api: httpx.Client, method: str, path: str, body: Any = None, **headers: str
) -> Iterator[tuple[int | None, str, Any]]:
    """Give the events of a stream: number, kind and data."""
    with api.stream(method, path, json=body, headers={**STREAM, **headers}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        number, kind = None, ""
        for line in answer.iter_lines():
            name, _colon, value = line.partition(": ")
            if name == "id":
                number = int(value)
            elif name == "event":
                kind = value
            elif name == "data":
                yield number, kind, json.loads(value)
            elif not line:
                number = None


# Executions


def test_an_execution_gets_all_that_it_is_given_and_gives_back_what_it_leaves(api: httpx.Client) -> None:
    code = (
        "import sys, os, pathlib; print(sys.argv[1:], sys.stdin.buffer.read(), os.environ['A'])\n"
        "pathlib.Path('out').mkdir(); pathlib.Path('out/b.bin').write_bytes(open('d/in.bin', 'rb').read()[::-1])\n"
        "pathlib.Path('t.txt').write_text('words'); sys.stderr.buffer.write(b'\\xff!'); sys.exit(3)"
    )
    request = ExecutionRequest(
        code=code, args=["one"], env={"A": "1"}, files={"d/in.bin": b"\x00\xff"}, stdin=b"\xfe", limits=Limits(pids=20)
    )
    answer = api.post("/v1/executions", json=request_as_json(request))
    assert answer.status_code == 200, answer.text
    result = result_from_json(answer.json())
    assert result.stdout == "['one'] b'\\xfe' 1\n"
    assert (result.exit_code, result.reason, result.stderr_bytes) == (3, "exited", b"\xff!")
    assert {each.path: each.data for each in result.files} == {"out/b.bin": b"\xff\x00", "t.txt": b"words"}
    kept = api.get(f"/v1/executions/{result.id}").json()
    assert kept["details"]["request"]["env"] == {"A": "***"}
    assert kept["exit_code"] == 3


def test_output_is_streamed_as_it_comes_and_the_result_behind_it(api: httpx.Client) -> None:
    code = "import time\nfor n in range(3): print(n, flush=True); time.sleep(0.4)"
    began, seen = time.monotonic(), []
    for _number, kind, data in read(api, "POST", "/v1/executions", {"code": code}):
        seen.append((kind, data, time.monotonic() - began))
    assert {kind for kind, _data, _at in seen[:-1]} == {"output"}
    assert "".join(data["text"] for kind, data, _at in seen if kind == "output") == "0\n1\n2\n"
    assert seen[-1][2] - seen[0][2] > 0.7
    assert result_from_json(seen[-1][1]).stdout == "0\n1\n2\n"


def test_a_stream_whose_reader_goes_away_ends_the_execution(api: httpx.Client) -> None:
    code = "import time\nprint('begun', flush=True)\ntime.sleep(60)"
    for _number, kind, _data in read(api, "POST", "/v1/executions", {"code": code}):
        assert kind == "output"
        break
    deadline = time.monotonic() + 10
    while api.get("/v1/usage").json()["running"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert api.get("/v1/usage").json()["running"] == 0
    latest = api.get("/v1/executions", params={"all": "true", "limit": 1}).json()["data"][0]
    assert latest["duration"] < 20_000
    assert latest["exit_code"] > 0


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"code": "1", "language": "cobol"}, "cobol"),
        ({"code": "1", "colour": "red"}, "colour"),
        ({"code": 1}, "code"),
        ({}, "code"),
        ({"code": "1", "limits": {"memory_bytes": 1}}, "memory_bytes"),
        ({"code": "1", "limits": {"wall_seconds": 86_000.0}}, "900 at most"),
        ({"code": "1", "files": {"../x": "y"}}, "../x"),
        ({"code": "1", "files": {"x": {"base64": "?"}}}, "base64"),
        ({"code": "1", "network": {"allow": ["not a host"]}}, "not a host"),
        ({"code": "1", "network": {"allow": [{"host": "h.example", "addresses": ["10.0.0.0/8"]}]}}, "10.0.0.0/8"),
        ({"code": "1", "network": {"allow": ["h.example@127.0.0.0/8"]}}, "127.0.0.0/8"),
        ({"code": "1", "network": {"allow": [{"host": "a.example", "credential": {"kind": "bearer"}}]}}, "token"),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_a_400_that_names_it(api: httpx.Client, body: Any, says: str) -> None:
    for headers in ({}, STREAM):
        answer = api.post("/v1/executions", json=body, headers=headers)
        if answer.headers["content-type"].startswith("text/event-stream"):
            said = json.loads(answer.text.split("data: ")[1])
            assert said.pop("status") == 400
        else:
            assert answer.status_code == 400
            said = answer.json()
        assert said["code"] == 3
        assert says in said["message"]


def test_a_stored_secret_that_is_not_there_is_told(api: httpx.Client) -> None:
    rule = {"host": "a.example", "credential": {"kind": "bearer", "token": {"stored_secret": "01NONE"}}}
    answer = api.post("/v1/executions", json={"code": "1", "network": {"allow": [rule]}})
    assert answer.status_code == 400
    assert "01NONE" in answer.json()["message"]


def test_a_network_is_kept_without_its_credentials(api: httpx.Client) -> None:
    from fumehood.protocol.credentials import Bearer

    allow = Allow(host="a.example", credential=Bearer(token="correct-horse", placeholder="TOKEN"))
    request = ExecutionRequest(code="import os; print(len(os.environ['TOKEN']) > 8)", network=Network(allow=[allow]))
    answer = api.post("/v1/executions", json=request_as_json(request))
    assert answer.status_code == 200, answer.text
    assert answer.json()["stdout"] == "True\n"
    kept = api.get(f"/v1/executions/{answer.json()['id']}")
    assert "a.example" in kept.text
    assert "correct-horse" not in kept.text


def test_many_programs_in_one_call_come_back_in_their_order(api: httpx.Client) -> None:
    programs = [{"code": f"import time; time.sleep({0.3 - n / 50}); print({n})"} for n in range(10)]
    programs.insert(5, {"code": "1", "language": "cobol"})
    answer = api.post("/v1/batches", json={"programs": programs}).json()["results"]
    assert "cobol" in answer[5]["error"]["message"]
    assert [each["stdout"] for each in answer[:5] + answer[6:]] == [f"{n}\n" for n in range(10)]
    assert api.post("/v1/batches", json={"programs": []}).json() == {"results": []}


def test_what_is_forgotten_is_gone(api: httpx.Client) -> None:
    made = api.post("/v1/executions", json={"code": "1"}).json()["id"]
    assert api.delete(f"/v1/executions/{made}").json() == {"id": made, "deleted": True}
    assert api.get(f"/v1/executions/{made}").status_code == api.delete(f"/v1/executions/{made}").status_code == 404


# Sessions


def test_cells_share_state_and_show_what_they_show(api: httpx.Client, session: str) -> None:
    assert api.post(f"{session}/cells", json={"code": "x = 20"}).json()["ok"]
    cell = api.post(
        f"{session}/cells", json={"code": "import sys; print('out'); print('err', file=sys.stderr); x * 2 + 2"}
    ).json()
    assert (cell["ok"], cell["ended"], cell["stdout"], cell["stderr"]) == (True, "finished", "out\n", "err\n")
    (display,) = [each for each in cell["events"] if each["type"] == "display"]
    assert display["data"]["text/plain"] == "42"
    assert display["is_result"]
    failed = api.post(f"{session}/cells", json={"code": "1/0"}).json()
    assert not failed["ok"]
    assert failed["events"][-1]["name"] == "ZeroDivisionError"
    assert api.get(f"{session}/cells/{cell['id']}").json() == cell


def test_a_stream_that_drops_is_gone_on_with_from_any_event(api: httpx.Client, session: str) -> None:
    code = "import time\nfor n in range(6): print(n, flush=True); time.sleep(0.15)"
    name, before = "", ""
    for number, kind, data in read(api, "POST", f"{session}/cells", {"code": code}):
        if kind == "cell":
            name = data["id"]
        else:
            before += data["text"]
        if number == 3:
            break  # its reader goes away; the cell does not
    rest = list(read(api, "GET", f"{session}/cells/{name}/events", **{"last-event-id": "3"}))
    assert [number for number, _kind, _data in rest[1:]] == list(range(4, 4 + len(rest) - 1))
    assert before + "".join(data["text"] for _number, kind, data in rest if kind == "output") == "0\n1\n2\n3\n4\n5\n"
    assert (rest[0][1], rest[-1][1]) == ("cell", "result")
    whole = list(read(api, "GET", f"{session}/cells/{name}/events"))
    assert whole[4:] == rest[1:]
    bad = api.get(f"{session}/cells/{name}/events", headers={"last-event-id": "x"})
    assert bad.status_code == 400


def test_a_cell_that_runs_is_interrupted_and_a_second_one_refused(api: httpx.Client, session: str) -> None:
    api.post(f"{session}/cells", json={"code": "kept = 1"})
    stream = read(api, "POST", f"{session}/cells", {"code": "import time\nprint('begun', flush=True)\ntime.sleep(60)"})
    name = next(stream)[2]["id"]
    assert next(stream)[1] == "output"
    assert api.get(f"{session}/cells/{name}").json() == {
        "id": name,
        "session_id": session.rsplit("/", maxsplit=1)[-1],
        "status": "running",
    }
    busy = api.post(f"{session}/cells", json={"code": "1"})
    assert (busy.status_code, busy.json()["kind"]) == (409, "SessionBusy")
    assert api.post(f"{session}/interrupt").status_code == 200
    assert [kind for _number, kind, _data in stream][-2:] == ["error", "result"]
    assert api.post(f"{session}/cells", json={"code": "print(kept)"}).json()["stdout"] == "1\n"
    assert api.post(f"{session}/cells", json={"code": "while True: pass", "timeout": 0.3}).json()["ended"] == "timeout"


def test_files_go_up_and_down_as_they_are(api: httpx.Client, session: str) -> None:
    data = bytes(range(256))
    assert api.put(f"{session}/files/d/a b.bin", content=data).json() == {"path": "d/a b.bin", "size": 256}
    api.post(f"{session}/cells", json={"code": "open('out.html', 'wb').write(open('d/a b.bin', 'rb').read()[::-1])"})
    assert {each["path"]: each["size"] for each in api.get(f"{session}/files").json()["files"]} == {
        "d/a b.bin": 256,
        "out.html": 256,
    }
    answer = api.get(f"{session}/files/out.html")
    assert answer.content == data[::-1]
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment"
    for path in ("none", "../x", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd"):
        assert api.get(f"{session}/files/{path}").status_code == 404
    api.post(f"{session}/cells", json={"code": "import os; os.symlink('/etc/passwd', 'link')"})
    assert api.get(f"{session}/files/link").status_code == 404
    assert api.put(f"{session}/files/../x", content=b"").status_code in (400, 404)


def test_forks_and_checkpoints_begin_with_all_that_there_was(api: httpx.Client, session: str) -> None:
    api.post(f"{session}/cells", json={"code": "x = 1"})
    checkpoint = api.post(f"{session}/checkpoints").json()
    api.post(f"{session}/cells", json={"code": "x = 2"})
    forked = api.post(f"{session}/fork", json={"count": 2}).json()["sessions"]
    assert len(forked) == 2
    api.post(f"{session}/cells", json={"code": "x = 3"})
    shows = {"code": "print(x)"}
    for each in forked:
        assert api.post(f"/v1/sessions/{each['id']}/cells", json=shows).json()["stdout"] == "2\n"
    assert api.post(f"{session}/restore", json={"checkpoint_id": checkpoint["id"]}).status_code == 200
    assert api.post(f"{session}/cells", json=shows).json()["stdout"] == "1\n"
    # To another's checkpoint as well.
    fork = f"/v1/sessions/{forked[0]['id']}"
    assert api.post(f"{fork}/restore", json={"checkpoint_id": checkpoint["id"]}).status_code == 200
    assert api.post(f"{fork}/cells", json=shows).json()["stdout"] == "1\n"
    assert [each["id"] for each in api.get(f"{session}/checkpoints").json()["checkpoints"]] == [checkpoint["id"]]
    assert api.delete(f"{session}/checkpoints/{checkpoint['id']}").json()["deleted"]
    assert api.post(f"{session}/restore", json={"checkpoint_id": checkpoint["id"]}).status_code == 404
    for each in forked:
        assert api.delete(f"/v1/sessions/{each['id']}").json()["deleted"]


def test_a_session_that_ended_says_why_and_begins_anew(api: httpx.Client, session: str) -> None:
    died = api.post(f"{session}/cells", json={"code": "import os; os._exit(3)"}).json()
    assert died["ended"] == "died"
    dead = api.post(f"{session}/cells", json={"code": "1"})
    assert (dead.status_code, dead.json()["kind"]) == (410, "SessionDead")
    state = api.get(session).json()
    assert (state["status"], state["death"]["reason"]) == ("dead", "exited")
    assert api.post(f"{session}/restart").json()["status"] == "idle"
    assert api.post(f"{session}/cells", json={"code": "print(1)"}).json()["stdout"] == "1\n"


def test_a_sessions_network_is_changed_and_shown_without_credentials(api: httpx.Client, session: str) -> None:
    rule = {"host": "a.example", "credential": {"kind": "bearer", "token": "correct-horse"}}
    answer = api.put(f"{session}/network", json={"allow": [rule, "*.b.example"]})
    assert answer.status_code == 200, answer.text
    assert [each["host"] for each in answer.json()["network"]["allow"]] == ["a.example", "*.b.example"]
    assert "correct-horse" not in api.get(session).text
    refused = api.post(
        f"{session}/cells", json={"code": "import urllib.request as u\nu.urlopen('http://c.example')"}
    ).json()
    assert {each["host"] for each in refused["refusals"]} == {"c.example"}
    lines = api.get(f"/v1/executions/{refused['id']}/connections").json()["connections"]
    assert {(each["host"], each["verdict"]) for each in lines} == {("c.example", "refused")}
    assert api.put(f"{session}/network", json={"allow": ["a.example@10.0.0.0/8"]}).status_code == 400


def test_a_session_begins_with_what_it_is_given_and_is_gone_when_it_is_deleted(api: httpx.Client) -> None:
    body = {
        "env": {"A": "b"},
        "files": {"f": {"base64": base64.b64encode(b"\xff").decode()}},
        "limits": {"wall_seconds": 5.0},
    }
    made = api.post("/v1/sessions", json=body).json()
    path = f"/v1/sessions/{made['id']}"
    cell = api.post(f"{path}/cells", json={"code": "import os; print(os.environ['A'], open('f', 'rb').read())"}).json()
    assert cell["stdout"] == "b b'\\xff'\n"
    assert made["id"] in [each["id"] for each in api.get("/v1/sessions").json()["sessions"]]
    assert api.delete(path).json() == {"id": made["id"], "deleted": True}
    assert api.get(path).status_code == api.delete(path).status_code == 404
    assert api.post("/v1/sessions", json={"language": "cobol"}).status_code == 400
    assert api.post("/v1/sessions", json={"limits": {"memory_bytes": 1 << 40}}).status_code == 400


def test_cells_are_kept_as_executions_with_what_they_used(api: httpx.Client, session: str) -> None:
    code = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    cell = api.post(f"{session}/cells", json={"code": code}).json()
    listed = api.get("/v1/executions", params={"all": "true"}).json()["data"]
    (kept,) = [each for each in listed if each["id"] == cell["id"]]
    assert (kept["kind"], kept["session_id"]) == ("cell", session.rsplit("/", maxsplit=1)[-1])
    assert kept["cpu_ms"] >= 150
    # Riza's clients know no such kind.
    assert cell["id"] not in [each["id"] for each in api.get("/v1/executions").json()["data"]]
