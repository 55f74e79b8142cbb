"""Measures what the way out costs: a small request on a connection that stays, a large download, 500 connections, a start.

Client and server are the same in every row, a program of Python with its `ssl` and a server in a process of its own, on this
machine's loopback. "direct" runs the client without a sandbox; the others run it in a warm one, through the egress proxy: "tunnelled"
where TLS is passed on, "opened" where it is opened for a credential, "plain" where there is none. All take turns.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.testing.outside import LOOPBACK, Authority, NameServer

from benchmarks import report
from fumehood import Allow, Bearer, Engine, ExecutionRequest, Limits, Network
from fumehood.protocol.limits import MiB

HOST = "bench.test"
REQUESTS, LARGE_MIB, DOWNLOADS, CONNECTIONS, STARTS = 300, 512, 5, 500, 200
GOALS = {"tunnelled": 0.3, "opened": 1.0}

_SERVER = """
import socket, ssl, sys, threading
def serve(listener, context):
    while True:
        client, _address = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=attend, args=(client, context), daemon=True).start()
def attend(client, context):
    try:
        if context: client = context.wrap_socket(client, server_side=True)
        block, data = bytes(1 << 20), b''
        while True:
            while b'\\r\\n\\r\\n' not in data:
                piece = client.recv(65536)
                if not piece: return
                data += piece
            head, _end, data = data.partition(b'\\r\\n\\r\\n')
            count = int(head.split()[1][1:] or 0)
            client.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % (2 if not count else count << 20) + (b'' if count else b'ok'))
            for _each in range(count): client.sendall(block)
    except OSError: pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
listeners = [socket.create_server(('127.0.0.1', 0), backlog=1024) for _each in range(2)]
print(*(each.getsockname()[1] for each in listeners), flush=True)
threading.Thread(target=serve, args=(listeners[0], context), daemon=True).start()
serve(listeners[1], None)
"""

# The same text runs inside and outside; what differs is where the name leads.
_CLIENT = """
import socket, ssl, time, os
def connect(port, secure, host={host!r}):
    sock = socket.create_connection((os.environ.get('ADDRESS', host), port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(sock, server_hostname=host) if secure else sock
context = ssl.create_default_context()
def ask(sock, path, port, buffer=memoryview(bytearray(1 << 20))):
    sock.sendall(f'GET /{{path}} HTTP/1.1\\r\\nHost: {host}:{{port}}\\r\\n\\r\\n'.encode())
    head = b''
    while b'\\r\\n\\r\\n' not in head: head += sock.recv(65536)
    head, _end, rest = head.partition(b'\\r\\n\\r\\n')
    assert b' 200 ' in head, head
    left = int(head.lower().split(b'content-length: ')[1].split()[0]) - len(rest)
    while left: left -= sock.recv_into(buffer)
"""
_SMALL = """
sock = connect({port}, {secure})
for _each in range(50): ask(sock, '', {port})
times = []
for _each in range({requests}):
    began = time.perf_counter(); ask(sock, '', {port}); times.append(time.perf_counter() - began)
print(*times)
"""
_LARGE = """
sock = connect({port}, {secure})
ask(sock, '8', {port})
began = time.perf_counter(); ask(sock, '{mib}', {port}); print(time.perf_counter() - began)
"""
_MANY = """
socks = []
for _each in range({count}):
    socks.append(connect({port}, True)); ask(socks[-1], '', {port})
print('there', flush=True)
for sock in socks: ask(sock, '', {port})
time.sleep(1)
"""


class Bench:
    """An engine, a server's ports for TLS and without, and how a client is run in each way."""

    def __init__(self, engine: Engine, https: int, http: int) -> None:
        self.engine = engine
        rule = Allow(host=HOST, ports=(https, http), addresses=LOOPBACK)
        opened = rule.replace(credential=Bearer(token="benchmark-token"))  # noqa: S106 - made up
        tunnel = Network(allow=[rule], received_bytes=1 << 40)
        self.networks = {
            "tunnelled": tunnel,
            "opened": Network(allow=[opened], received_bytes=1 << 40),
            "plain": tunnel,
        }
        self.ports = {"direct": https, "tunnelled": https, "opened": https, "direct plain": http, "plain": http}

    def run(self, way: str, program: str, **values: Any) -> str:
        """Run a client's program and return what it prints."""
        code = _CLIENT.format(host=HOST)
        code += program.format(port=self.ports[way], secure="plain" not in way, **values)
        if way in self.networks:
            limits = Limits(wall_seconds=120, cpu_seconds=120, memory_bytes=512 * MiB)
            result = self.engine.execute(ExecutionRequest(code=code, network=self.networks[way], limits=limits))
            if not result.ok:
                raise RuntimeError(f"{way}: {result.stderr}")
            return result.stdout
        environment = {"ADDRESS": "127.0.0.1", "SSL_CERT_FILE": self.bundle}
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        return ran.stdout

    bundle = ""


def main() -> None:
    """Measure, print, save."""
    arguments = report.options(__doc__, rounds=10)
    authority = Authority()
    with (
        authority.trusted() as trusted, NameServer({HOST: [["127.0.0.1"]]}) as names, _server(authority) as (https, http),
        Engine(nameserver=names.address) as engine,
    ):  # fmt: skip
        engine.prepare()
        bench = Bench(engine, https, http)
        bench.bundle = trusted.path
        bench.run("tunnelled", _SMALL, requests=10)
        rows = [*_small(bench, arguments.rounds), *_large(bench), *_starts(bench), *_many(bench)]
    report.save("egress", rows, arguments, [])


def _small(bench: Bench, rounds: int) -> list[dict[str, Any]]:
    times: dict[str, list[float]] = {way: [] for way in bench.ports}
    for _each in range(rounds):
        for way in bench.ports:
            times[way] += map(float, bench.run(way, _SMALL, requests=REQUESTS).split())
    rows = []
    for way, taken in times.items():
        direct = times["direct plain" if "plain" in way else "direct"]
        added = (statistics.median(taken) - statistics.median(direct)) * 1000
        goal = f"adds <= {GOALS[way]} ms" if way in GOALS else ""
        row = report.row(f"a small request, {way}", taken, direct, goal)
        text = f"{row['p50_ms']:.2f} ms (p95 {row['p95_ms']:.2f})" + (
            "" if taken is direct else f", adds {added:.2f} ms at p50"
        )
        rows.append({"what": row["what"], "text": text, "goal": goal})
    return rows


def _large(bench: Bench) -> list[dict[str, Any]]:
    times: dict[str, list[float]] = {way: [] for way in bench.ports}
    for _each in range(DOWNLOADS):
        for way in bench.ports:
            times[way].append(float(bench.run(way, _LARGE, mib=LARGE_MIB)))
    rows = []
    for way, taken in times.items():
        direct = statistics.median(times["direct plain" if "plain" in way else "direct"])
        rate, share = LARGE_MIB / statistics.median(taken), direct / statistics.median(taken)
        goal = "" if "direct" in way else ">= 40 % of direct"
        rows.append(
            {
                "what": f"{LARGE_MIB} MiB, {way}",
                "text": f"{rate:.0f} MiB/s = {100 * share:.0f} % of direct",
                "goal": goal,
            }
        )
    return rows


def _starts(bench: Bench) -> list[dict[str, Any]]:
    networks = {"without a way out": Network(), "with one": bench.networks["tunnelled"]}
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _each in range(STARTS):
        for name, network in networks.items():
            request = ExecutionRequest(code="print(1)", network=network)
            time.sleep(0.01)
            began = time.perf_counter()
            result = bench.engine.execute(request)
            times[name].append(time.perf_counter() - began)
            if not result.warm:
                raise RuntimeError("it started cold")
    without, with_one = (statistics.median(each) * 1000 for each in times.values())
    text = f"{with_one:.2f} ms, {without:.2f} without: adds {with_one - without:.2f} ms at p50"
    return [{"what": "print(1) in a warm sandbox with a way out", "text": text, "goal": "adds <= 3 ms"}]


def _many(bench: Bench) -> list[dict[str, Any]]:
    process = bench.engine._outward()._outlet._process
    if process is None:
        raise RuntimeError("there is no proxy")
    rows = []
    for way in ("tunnelled", "opened"):
        network = bench.networks[way].replace(connections=CONNECTIONS + 10)
        code = _CLIENT.format(host=HOST) + _MANY.format(port=bench.ports[way], count=CONNECTIONS)
        before, at, after = _resident(process.pid), 0, []
        for _each in range(4):

            def hear(_stream: str, _piece: bytes) -> None:
                nonlocal at
                at = max(at, _resident(process.pid))

            limits = Limits(wall_seconds=120, cpu_seconds=120, memory_bytes=1024 * MiB)
            result = bench.engine.execute(ExecutionRequest(code=code, network=network, limits=limits), on_output=hear)
            if not result.ok:
                raise RuntimeError(result.stderr)
            after.append(_resident(process.pid))
        each = (at - before) / CONNECTIONS
        text = f"{before >> 10} MiB before, {at >> 10} with them ({each:.1f} KiB each), {' '.join(str(one >> 10) for one in after)} after each of four times"
        rows.append({"what": f"the proxy's memory, {CONNECTIONS} connections, {way}", "text": text, "goal": "flat"})
    return rows


def _resident(pid: int) -> int:
    """Return KiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@contextmanager
def _server(authority: Authority) -> Iterator[tuple[int, int]]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(authority.identity(HOST))
        file.flush()
        with subprocess.Popen([sys.executable, "-c", _SERVER, file.name], stdout=subprocess.PIPE, text=True) as process:
            if process.stdout is None:
                raise RuntimeError("the server has no output")
            https, http = map(int, process.stdout.readline().split())
            try:
                yield https, http
            finally:
                process.kill()


if __name__ == "__main__":
    main()
