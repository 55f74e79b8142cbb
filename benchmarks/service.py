"""Measures the service beside the in-process API: one caller, sixteen callers, 64 sessions, long lists, memory over many executions.

The service runs as `fumehood serve` does, in a process of its own with SQLite; callers keep their connections, in a process of their
own where there are several. All share this machine's processors.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.testing.served import KEY, Served

from benchmarks import report
from fumehood import Engine, ExecutionRequest
from fumehood.server.ids import new_id
from fumehood.server.store import tables
from fumehood.server.store.database import Database
from fumehood.server.store.keeping import Store
from fumehood.server.vault import Vault

CODE = "print(1)"
ONE, CALLERS, SHARED, SESSIONS, SECONDS, KEPT, MANY = 30, 16, 2000, 64, 20, 100_000, 50_000

# What several callers do, in a process of their own.
_CALLERS = """
import http.client, json, sys, threading, time
port, key, what, callers, count = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
headers = {'authorization': 'Bearer ' + key, 'content-type': 'application/json'}
def ask(connection, path, body):
    connection.request('POST', path, json.dumps(body), headers)
    answer = connection.getresponse(); data = answer.read()
    assert answer.status == 200, data
    return json.loads(data)
times, begin = [], threading.Barrier(callers + 1)
def execute(number):
    connection = http.client.HTTPConnection('127.0.0.1', port); begin.wait()
    for _each in range(count // callers): ask(connection, '/v1/execute', {'code': 'print(1)', 'language': 'python'})
def cells(number):
    connection = http.client.HTTPConnection('127.0.0.1', port)
    path = '/v1/sessions/' + ask(connection, '/v1/sessions', {})['id'] + '/cells'
    ask(connection, path, {'code': 'x = 1'}); begin.wait(); start = time.perf_counter() + number / callers
    for second in range(count):
        time.sleep(max(0, start + second - time.perf_counter())); began = time.perf_counter()
        ask(connection, path, {'code': 'x += 1'}); times.append(time.perf_counter() - began)
threads = [threading.Thread(target={'execute': execute, 'cells': cells}[what], args=(n,)) for n in range(callers)]
for each in threads: each.start()
begin.wait(); began = time.perf_counter()
for each in threads: each.join()
print(json.dumps({'seconds': time.perf_counter() - began, 'times': times}))
"""


def main() -> None:
    """Measure, print, save."""
    arguments = report.options(__doc__, rounds=10)
    with tempfile.TemporaryDirectory() as folder, Served(Path(folder, "a")) as served, Engine() as engine:
        engine.prepare()
        rows = [
            *_one(engine, served, arguments.rounds),
            *_sixteen(engine, served, arguments.rounds),
            *_sessions(served),
        ]
        rows += _memory(served)
    with tempfile.TemporaryDirectory() as folder:
        rows += _listing(Path(folder))
    report.save("service", rows, arguments, [])


def _one(engine: Engine, served: Served, rounds: int) -> list[dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    ways: dict[str, Callable[[], object]] = {
        "bare python3 -I -c": lambda: subprocess.run(
            ["/usr/bin/python3", "-I", "-c", CODE], stdout=subprocess.DEVNULL, check=True
        ),
        "the in-process API": lambda: engine.execute(ExecutionRequest(code=CODE)),
        "POST /v1/execute": lambda: _ask(connection, "POST", "/v1/execute", {"code": CODE, "language": "python"}),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _each in range(rounds * ONE):
        for name, way in ways.items():
            # Sandboxes are forked ahead between two programs.
            time.sleep(0.005)
            began = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - began)
    bare, inside = times["bare python3 -I -c"], times["the in-process API"]
    rows = []
    for name, taken in times.items():
        row = report.row(name, taken, bare)
        added = (statistics.median(taken) - statistics.median(inside)) * 1000
        more = f", {added:.2f} ms more than in process" if name.startswith("POST") else ""
        goal = "<= 3 ms more, below bare" if more else ""
        text = f"{row['p50_ms']:.2f} ms (p95 {row['p95_ms']:.2f}), {row['ratio']:.2f} of bare{more}"
        rows.append({"what": f"{CODE}, one caller: {name}", "text": text, "goal": goal})
    return rows


def _sixteen(engine: Engine, served: Served, rounds: int) -> list[dict[str, Any]]:
    inside, over = [], []
    for _each in range(max(3, rounds // 3)):
        with ThreadPoolExecutor(CALLERS) as threads:
            began = time.perf_counter()
            list(threads.map(lambda _n: engine.execute(ExecutionRequest(code=CODE)), range(SHARED)))
            inside.append(SHARED / (time.perf_counter() - began))
        over.append(SHARED / _callers(served, "execute", CALLERS, SHARED)["seconds"])
    mine, its = statistics.median(inside), statistics.median(over)
    return [
        {"what": f"{CODE}, {CALLERS} callers: the in-process API", "text": f"{mine:.0f} a second", "goal": ""},
        {"what": f"{CODE}, {CALLERS} callers: POST /v1/execute", "text": f"{its:.0f} a second = {100 * its / mine:.0f} % of in process",
         "goal": ">= 60 %"},
    ]  # fmt: skip


def _sessions(served: Served) -> list[dict[str, Any]]:
    times = _callers(served, "cells", SESSIONS, SECONDS)["times"]
    p95 = statistics.quantiles(times, n=20)[-1] * 1000
    text = f"{statistics.median(times) * 1000:.1f} ms (p95 {p95:.1f})"
    return [{"what": f"a cell, in {SESSIONS} sessions each with one a second", "text": text, "goal": "p95 < 50 ms"}]


def _memory(served: Served) -> list[dict[str, Any]]:
    seen, done = [], 0
    for upto in (MANY // 10, MANY // 2, MANY):
        _callers(served, "execute", CALLERS, upto - done)
        done = upto
        seen.append((upto, _resident(served.process.pid)))
    text = ", ".join(f"{size >> 10} MiB after {upto}" for upto, size in seen)
    return [{"what": "the server's memory over executions", "text": text, "goal": "flat"}]


def _listing(folder: Path) -> list[dict[str, Any]]:
    place = folder / "fumehood" / "server"
    place.mkdir(parents=True)
    database = Database(f"sqlite:///{place / 'server.db'}")
    store = Store(database, Vault.open(place))
    store.keys.first(KEY, "bench")
    caller = store.keys.caller(KEY)
    if caller is None:
        raise RuntimeError("the key is not there")
    kept = {"project_id": caller.project_id, "key_id": caller.key_id, "door": "riza", "kind": "script", "language": "python",
            "started_at": "2026-01-01T00:00:00.000Z", "duration_ms": 1, "cpu_ms": 1, "exit_code": 0, "reason": "exited",
            "stored_bytes": 4000, "request": json.dumps({"code": "x" * 2000}), "response": json.dumps({"stdout": "y" * 2000})}  # fmt: skip
    with database.write() as connection:
        for _each in range(KEPT // 1000):
            connection.execute(sa.insert(tables.executions), [{"id": new_id(), **kept} for _one in range(1000)])
    database.close()
    with Served(folder) as served:
        caller_of_it = http.client.HTTPConnection("127.0.0.1", served.port)
        times, middle = [], "~"
        for _each in range(100):
            began = time.perf_counter()
            listed = _ask(caller_of_it, "GET", f"/v1/executions?limit=100&starting_after={middle}")["data"]
            times.append(time.perf_counter() - began)
            middle = listed[-1]["id"]
    text = f"{statistics.median(times) * 1000:.1f} ms (p95 {statistics.quantiles(times, n=20)[-1] * 1000:.1f})"
    return [{"what": f"100 of {KEPT} executions listed", "text": text, "goal": "< 20 ms"}]


def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    data = answer.read()
    if answer.status != 200:
        raise RuntimeError(data)
    return json.loads(data)


def _callers(served: Served, what: str, callers: int, count: int) -> Any:
    command = [sys.executable, "-c", _CALLERS, str(served.port), KEY, what, str(callers), str(count)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _resident(pid: int) -> int:
    """Return KiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
