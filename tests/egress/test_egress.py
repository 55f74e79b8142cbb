"""Sandboxes that may reach hosts: what gets out, what does not, and what is told of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fumehood import (
    Basic,
    Bearer,
    Engine,
    ExecutionRequest,
    Header,
    Network,
    Query,
    StoredSecret,
)
from fumehood.errors import InvalidRequest
from tests.testing.reaching import SECRET, Outside

pytestmark = pytest.mark.usefixtures("echoes")


def test_an_allowed_host_is_reached_by_a_tunnel(outside: Outside) -> None:
    result = outside.run(outside.get(path="/x?y=1"), outside.rule())
    assert result.stdout.startswith("200 "), result.stderr
    assert [request.path for request in outside.https.requests] == ["/x?y=1"]
    (line,) = result.connections
    assert (line.host, line.port, line.verdict, line.methods) == ("good.test", outside.https.port, "tunnelled", ())
    assert line.sent_bytes > 100
    assert line.received_bytes > 500
    assert outside.seen[-1] == line


def test_http_without_tls_is_passed_on(outside: Outside) -> None:
    code = f"import requests; print(requests.get('http://good.test:{outside.http.port}/p').json()['path'])"
    result = outside.run(code, outside.rule())
    assert result.stdout == "/p\n"
    (line,) = result.connections
    assert (line.verdict, line.methods, line.requests) == ("plain", ("GET",), 1)


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_what_is_refused_is_told_to_the_program_and_in_the_result(outside: Outside, scheme: str) -> None:
    code = f"import requests\nr = requests.get('{scheme}://evil.test/')\nprint(r.status_code, r.reason)\nprint(r.text)"
    result = outside.run(code, "good.test")
    assert result.stdout.startswith("403 Refused by Fumehood: host evil.test is not allowed: only good.test\n"), (
        result.stderr
    )
    assert "--allow-host evil.test" in result.stdout
    port = {"https": 443, "http": 80}[scheme]
    refusal = next(each for each in result.refusals if each.port == port)
    assert (refusal.host, refusal.rule) == ("evil.test", "evil.test")
    assert refusal.why == "host evil.test is not allowed: only good.test"
    assert [(line.host, line.verdict) for line in result.connections] == [("evil.test", "refused")]
    assert "evil.test" not in outside.names.asked


def test_without_rules_there_is_no_network_at_all(outside: Outside) -> None:
    code = "import socket\ntry: print(socket.getaddrinfo('good.test', 443))\nexcept OSError as error: print(error)"
    result = outside.run(code)
    assert "name resolution" in result.stdout
    assert result.network_refused > 0
    assert result.connections == result.refusals == ()


def test_other_ports_are_refused_at_once(outside: Outside) -> None:
    code = """import socket, time
began = time.monotonic()
for kind, port in ((socket.SOCK_STREAM, 22), (socket.SOCK_DGRAM, 443)):
    s = socket.socket(socket.AF_INET, kind)
    s.settimeout(5)
    try:
        s.connect(('good.test', port)); s.send(b'x'); s.recv(1)
    except ConnectionRefusedError: print('refused')
print(time.monotonic() - began < 1)"""
    assert outside.run(code, outside.rule()).stdout == "refused\nrefused\nTrue\n"


def test_wildcards_take_subdomains_and_not_the_name_itself(outside: Outside) -> None:
    rule = outside.rule("*.wild.test")
    assert outside.run(outside.get("a.wild.test"), rule).stdout.startswith("200")
    assert outside.run(outside.get("wild.test"), rule).stdout.startswith("403")
    assert outside.run(outside.get("other.test"), outside.rule("*")).stdout.startswith("200")


@pytest.mark.parametrize(
    ("credential", "header", "value"),
    [
        (Bearer(token=SECRET), "authorization", f"Bearer {SECRET}"),
        (Bearer(token=StoredSecret(id="stored")), "authorization", f"Bearer {SECRET}"),
        (Basic(user="me", password=SECRET), "authorization", "Basic bWU6Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ=="),
        (Header(name="X-Api-Key", value=SECRET), "x-api-key", SECRET),
    ],
    ids=["bearer", "stored", "basic", "header"],
)
def test_a_credential_is_added_on_the_way_out_and_nowhere_inside(
    outside: Outside, credential: Bearer, header: str, value: str
) -> None:
    # What the program sends in its place is gone.
    code = outside.get(more=f", headers={{{header!r}: 'mine'}}")
    result = outside.run(code, outside.rule(credential=credential))
    assert result.stdout.startswith("200 "), result.stderr
    assert outside.https.requests[-1].header(header) == value
    # The server sends back what it heard.
    assert value.removeprefix("Bearer ").removeprefix("Basic ") not in result.stdout
    assert "****" in result.stdout
    assert result.connections[0].verdict == "opened"
    assert SECRET not in json.dumps(result.as_json())


def test_a_credential_in_the_query_keeps_the_other_parameters(outside: Outside) -> None:
    rule = outside.rule(credential=Query(key="key", value="a b&c-secret"))
    result = outside.run(outside.get(path="/q?one=1&key=mine&two=2"), rule)
    assert outside.https.requests[-1].path == "/q?one=1&two=2&key=a+b%26c-secret"
    assert "a+b%26c-secret" not in result.stdout


def test_a_credential_goes_to_its_host_alone(outside: Outside) -> None:
    rules = (outside.rule(credential=Bearer(token=SECRET)), outside.rule("other.test"))
    outside.run(outside.get("other.test"), *rules)
    assert outside.https.requests[-1].header("authorization") is None
    code = f"import requests; print(requests.get('http://good.test:{outside.http.port}/').status_code)"
    result = outside.run(code, *rules)
    assert result.stdout == "403\n"
    assert "https alone" in result.refusals[0].why
    assert not outside.http.requests


def test_no_place_inside_has_the_secret(outside: Outside) -> None:
    code = f"""import os, glob, requests, sys, gc
{outside.get()}
needle = {SECRET[::-1]!r}[::-1].encode()
def has(path):
    try:
        with open(path, 'rb') as f: return needle in f.read()
    except OSError: return False
paths = ['/proc/self/' + n for n in ('environ', 'cmdline', 'maps', 'status', 'mountinfo', 'net/tcp')]
for top in ('/etc', '/work', '/tmp', '/dev/shm', '/opt/fumehood/python/lib/python3*/site-packages/certifi'):
    for found in glob.glob(top):
        paths += [os.path.join(d, n) for d, _, names in os.walk(found) for n in names if n != 'main.py']
print([p for p in paths if has(p)], len(paths) > 20)
held = 0
for line in open('/proc/self/maps'):
    where, mode = line.split()[:2]
    first, last = (int(x, 16) for x in where.split('-'))
    if mode.startswith('rw') and '[v' not in line:
        with open('/proc/self/mem', 'rb') as memory:
            memory.seek(first)
            held += memory.read(last - first).count(needle[:7] + b'-' + needle[8:])
print(held)"""
    result = outside.run(code, outside.rule(credential=Bearer(token=SECRET)))
    assert result.stdout.startswith("200 "), result.stderr
    found, *_rest = result.stdout.splitlines()[1:]
    assert found == "[] True", result.stdout[-400:]


def test_the_secret_is_in_no_text_that_shows_a_request_or_an_error(outside: Outside) -> None:
    network = Network(
        allow=[
            outside.rule(credential=Bearer(token=SECRET)),
            outside.rule("*", credential=Query(key="k", value=SECRET)),
        ]
    )
    request = ExecutionRequest(code="1", network=network)
    assert SECRET not in f"{request!r}{network}{network.describe()}"
    with pytest.raises(InvalidRequest) as raised:
        Bearer(token=f"{SECRET}\n")
    assert SECRET not in str(raised.value)
    with pytest.raises(InvalidRequest, match="no secret has the id 'none'"):
        outside.run("1", outside.rule(credential=Bearer(token=StoredSecret(id="none"))))


def test_a_placeholder_stands_for_the_credential_and_goes_nowhere_else(outside: Outside) -> None:
    rules = (outside.rule(credential=Bearer(token=SECRET, placeholder="GOOD_TOKEN")), outside.rule("other.test"))
    send = "import os, requests, base64\np = os.environ['GOOD_TOKEN']\n"
    url = f"https://{{}}.test:{outside.https.port}/"
    good = send + f"print(requests.get({url.format('good')!r}, headers={{'authorization': 'Bearer ' + p}}).status_code)"
    assert outside.run(good, *rules).stdout == "200\n"
    assert outside.https.requests[-1].header("authorization") == f"Bearer {SECRET}"
    outside.https.requests.clear()
    ways = {
        "header": "headers={'x': p}", "query": "params={'x': p}", "body": "data=b'a' * 100_000 + p.encode()",
        "userinfo": "auth=('me', p)", "base64": "data=base64.b64encode(b'xy' + p.encode() + b'z')",
    }  # fmt: skip
    for way in ways.values():
        result = outside.run(send + f"print(requests.post({url.format('other')!r}, {way}).status_code)", *rules)
        assert result.stdout == "403\n", (way, result.stderr[-500:])
        assert any("placeholder" in each.why for each in result.refusals)
    # Of a long body what came before it may have gone; a whole one never does.
    heard = b"".join(f"{each.path} {each.headers}".encode() + each.body for each in outside.https.requests)
    assert re.search(rb"fumehood-placeholder-[0-9a-f]{32}", heard) is None


def test_rules_about_methods_and_paths_hold_for_each_request(outside: Outside) -> None:
    rule = outside.rule(methods=("GET",), paths=("/v1/*", "/health"))
    code = f"""import requests
s = requests.Session()
for method, path in (('GET', '/v1/a'), ('POST', '/v1/a'), ('GET', '/health'), ('GET', '/healthy'), ('GET', '/'), ('GET', '/v1/%2e%2e/x')):
    print(s.request(method, 'https://good.test:{outside.https.port}' + path).status_code)"""
    result = outside.run(code, rule)
    assert result.stdout.split() == ["200", "403", "200", "403", "403", "403"]
    assert [request.path for request in outside.https.requests] == ["/v1/a", "/health"]


def test_the_servers_certificate_is_checked_when_tls_is_opened(outside: Outside) -> None:
    rule = outside.rule("untrusted.test", credential=Bearer(token=SECRET))
    result = outside.run(outside.get("untrusted.test"), rule)
    assert result.stdout.startswith("502 fumehood: host untrusted.test cannot be spoken to by TLS: Hostname mismatch")
    assert not outside.https.requests


def test_cold_and_warm_programs_reach_the_same(outside: Outside) -> None:
    warm = outside.run(outside.get(path="/same"), outside.rule(credential=Bearer(token=SECRET)))
    cold = outside.engine.execute(
        ExecutionRequest(
            code=outside.get(path="/same"),
            network=Network(allow=[outside.rule(credential=Bearer(token=SECRET))]),
            explain=True,
        )
    )
    assert (warm.warm, cold.warm) == (True, False)
    assert warm.stdout == cold.stdout
    assert warm.stdout.startswith("200")


def test_what_all_connections_may_carry_is_bounded(outside: Outside) -> None:
    outside.https.answer = lambda _request: (200, {}, bytes(1 << 20))
    code = outside.get().replace("r.text", "len(r.content)")
    result = outside.run(code, outside.rule(), received_bytes=100_000)
    assert result.exit_code == 1
    assert result.refusals[-1].why == "more than 100000 bytes came (received_bytes)"
    assert result.connections[0].received_bytes < 500_000
    result = outside.run(code, outside.rule(credential=Bearer(token=SECRET)), received_bytes=100_000)
    assert result.exit_code == 1
    assert outside.run(code, outside.rule(), received_bytes=2_000_000).stdout == "200 1048576\n"


def test_connections_at_one_time_are_bounded(outside: Outside) -> None:
    code = f"""import socket
held, refused = [], 0
for n in range(12):
    s = socket.create_connection(('good.test', {outside.https.port}))
    s.settimeout(0.3)
    try: refused += s.recv(1) == b''
    except ConnectionResetError: refused += 1
    except TimeoutError: held.append(s)
print(len(held), refused)"""
    result = outside.run(code, outside.rule(), connections=5)
    assert result.stdout == "5 7\n"
    assert ("more than 5 connections at one time (connections)", 7) in [
        (each.why, each.count) for each in result.refusals
    ]


def test_a_closed_engine_leaves_no_proxy_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Engine() as engine:
        engine.execute(ExecutionRequest(code="1", network=Network(allow=["a.test"])))
        process = engine._outward()._outlet._process
        assert process is not None
        # Where the walls were not looked at yet, a canary's folder may be there as well.
        assert len(list(tmp_path.glob("fumehood-certificates-*"))) == 1
    assert process.poll() is not None
    assert not list(tmp_path.iterdir())


COUNTING = """
import os
from fumehood import Engine, ExecutionRequest, Network
counts = [len(os.listdir("/proc/self/fd"))]
with Engine() as engine:
    engine.execute(ExecutionRequest(code="1", network=Network(allow=["a.test"])))
    counts.append(len(os.listdir("/proc/self/fd")))
counts.append(len(os.listdir("/proc/self/fd")))
print(counts[1] > counts[0], counts[2] <= counts[0], counts)
"""


def test_a_closed_engine_leaves_no_descriptor_open() -> None:
    # In a process of its own: here another engine's pool opens and closes some.
    run = subprocess.run([sys.executable, "-c", COUNTING], capture_output=True, text=True, check=False, timeout=60)
    assert run.stdout.startswith("True True "), run.stdout + run.stderr


def test_what_a_killed_engine_left_the_next_one_removes(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    program = "import fumehood, os\nfumehood.run('1', network=fumehood.Network(allow=['a.test']))\n"
    for end in ("os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 9)", "pass"):
        subprocess.run([sys.executable, "-c", program + end], env=environment, check=False)
        assert len(list(tmp_path.glob("fumehood-certificates-*"))) == (end != "pass")


def test_a_program_with_a_way_out_starts_where_one_without_does(outside: Outside) -> None:
    def median(network: Network) -> float:
        took = []
        for _each in range(15):
            began = time.monotonic()
            assert outside.engine.execute(ExecutionRequest(code="1", network=network)).warm
            took.append(time.monotonic() - began)
        return sorted(took)[7]

    # The goal, 3 ms, is the benchmark's; here that nothing of a proxy's start is in it.
    assert median(Network(allow=[outside.rule()])) - median(Network()) < 0.1
