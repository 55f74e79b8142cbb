"""The clients that programs use reach an allowed host without any setting, and hear why another is refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fumehood import Allow, Bearer, Engine, ExecutionRequest, ExecutionResult, Network
from fumehood.errors import RuntimeUnavailable
from fumehood.runtimes import build
from tests.testing import package_index
from tests.testing.outside import LOOPBACK, Authority, NameServer, Request, Server

TOKEN = "correct-horse-battery-staple"
REFUSED = "host evil.test is not allowed"
#: By which a program says that the sandbox lacks its client.
MISSING = 77
AIOHTTP_RUNTIME = "tests-aiohttp"
#: What this process was started with.
BEFORE = dict(os.environ)
BODY = bytes(range(256)) * 12_000  # 3 MB


class Outside:
    """A name server, an HTTPS and an HTTP server, and an engine that asks that name server."""

    def __init__(self, authority: Authority, https: Server, http: Server, engine: Engine) -> None:
        self.authority, self.https, self.http, self.engine = authority, https, http, engine

    def url(self, path: str) -> str:
        return f"https://good.test:{self.https.port}{path}"

    def rule(self, *ports: int, opened: bool = False) -> Allow:
        return Allow(
            host="good.test", ports=ports or (self.https.port, self.http.port), addresses=LOOPBACK,
            credential=Bearer(token=TOKEN) if opened else None,
        )  # fmt: skip

    def run(
        self, code: str, *rules: Allow, language: str = "python", on_output: Callable[[str, bytes], None] | None = None
    ) -> ExecutionResult:
        """Run a program; skip the test where its interpreter or its client is not there."""
        request = ExecutionRequest(code=code, language=language, network=Network(allow=rules))
        try:
            result = self.engine.execute(request, on_output=on_output)
        except RuntimeUnavailable as error:
            if language in ("python", "bash"):
                raise
            pytest.skip(str(error))
        if result.exit_code == MISSING:
            pytest.skip(f"the sandbox has no such client: {result.stderr.strip()[-200:]}")
        return result


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    authority = Authority()
    with (
        authority.trusted(),
        NameServer({"good.test": [["127.0.0.1"]]}) as names,
        Server(context=authority.context("good.test")) as https,
        Server() as http,
        Engine(nameserver=names.address) as engine,
    ):
        engine.prepare()
        yield Outside(authority, https, http, engine)


@pytest.fixture(autouse=True)
def echoes(outside: Outside) -> Iterator[None]:
    answer = outside.https.answer
    for server in (outside.https, outside.http):
        server.requests.clear()
    yield
    outside.https.answer = answer


@pytest.fixture(params=["tunnelled", "opened"])
def verdict(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def check_heard(outside: Outside, result: ExecutionResult, verdict: str) -> None:
    """Assert that what the server heard came the way it should, with the credential where there is one."""
    assert {(each.host, each.port, each.verdict) for each in result.connections} == {
        ("good.test", outside.https.port, verdict)
    }
    assert result.refusals == ()
    assert outside.https.requests
    sent = f"Bearer {TOKEN}" if verdict == "opened" else None
    assert {request.header("authorization") for request in outside.https.requests} == {sent}
    assert TOKEN not in json.dumps(result.as_json())


# One request by each client


class Client(NamedTuple):
    """How a program asks for a URL, in the simplest way its documentation shows. `URL` stands for that."""

    language: str
    code: str


PYTHON_SOCKET = """
import socket, ssl, urllib.parse
CONTEXT
parts = urllib.parse.urlsplit('URL')
with socket.create_connection((parts.hostname, parts.port or 443)) as plain:
    with context.wrap_socket(plain, server_hostname=parts.hostname) as s:
        s.sendall(f'GET {parts.path} HTTP/1.1\\r\\nHost: {parts.netloc}\\r\\nConnection: close\\r\\n\\r\\n'.encode())
        while piece := s.recv(1 << 16): print(piece.decode(), end='')
"""
AIOHTTP = """
import asyncio, aiohttp
async def main():
    async with aiohttp.ClientSession() as session, session.get('URL') as answer: print(await answer.text())
asyncio.run(main())
"""
HTTPX_ASYNC = """
import asyncio, httpx
async def main():
    async with httpx.AsyncClient() as client: print((await client.get('URL')).text)
asyncio.run(main())
"""
HTTP_CLIENT = """
import http.client, urllib.parse
parts = urllib.parse.urlsplit('URL')
connection = http.client.HTTPSConnection(parts.netloc)
connection.request('GET', parts.path)
print(connection.getresponse().read().decode())
"""
CLIENTS = {
    "requests": Client("python", "import requests; print(requests.get('URL').text)"),
    "httpx": Client("python", "import httpx; print(httpx.get('URL').text)"),
    "httpx_async": Client("python", HTTPX_ASYNC),
    "urllib": Client("python", "import urllib.request; print(urllib.request.urlopen('URL').read().decode())"),
    "urllib3": Client("python", "import urllib3; print(urllib3.PoolManager().request('GET', 'URL').data.decode())"),
    "http_client": Client("python", HTTP_CLIENT),
    "aiohttp": Client(AIOHTTP_RUNTIME, AIOHTTP),
    "ssl_socket": Client("python", PYTHON_SOCKET.replace("CONTEXT", "context = ssl.create_default_context()")),
    "ssl_socket_with_certifi": Client(
        "python",
        PYTHON_SOCKET.replace(
            "CONTEXT", "import certifi; context = ssl.create_default_context(cafile=certifi.where())"
        ),
    ),
    "node_fetch": Client("javascript", "const answer = await fetch('URL'); console.log(await answer.text());"),
    "node_https": Client("javascript", "require('node:https').get('URL', answer => answer.pipe(process.stdout));"),
    "typescript_fetch": Client(
        "typescript", "const answer: Response = await fetch('URL'); console.log(await answer.text());"
    ),
    "ruby_net_http": Client("ruby", "require 'net/http'; puts Net::HTTP.get(URI('URL'))"),
    "ruby_open_uri": Client("ruby", "require 'open-uri'; puts URI.open('URL').read"),
    "php_streams": Client("php", "<?php if (!extension_loaded('openssl')) exit(77); echo file_get_contents('URL');"),
    "php_curl": Client("php", "<?php if (!extension_loaded('curl')) exit(77); curl_exec(curl_init('URL'));"),
    "curl": Client("bash", "command -v curl >/dev/null || exit 77; curl -sS URL"),
    "wget": Client("bash", "command -v wget >/dev/null || exit 77; wget -nv -O - URL"),
}


@pytest.fixture(scope="module")
def aiohttp_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Build a runtime that has aiohttp, which the default one lacks; skip where no package index can be reached."""
    requirements = tmp_path_factory.mktemp("aiohttp") / "requirements.txt"
    requirements.write_text("aiohttp\n")
    # In a process without the tests' authority, which is the only one that this one trusts.
    command = [
        str(Path(sys.executable).parent / "fumehood"),
        "runtime",
        "build",
        "--requirements",
        str(requirements),
        "--name",
        AIOHTTP_RUNTIME,
    ]
    built = subprocess.run(command, env=BEFORE, capture_output=True, text=True, check=False)
    if built.returncode == RuntimeUnavailable.exit_code:
        pytest.skip(f"no runtime with aiohttp: {built.stderr}")
    assert built.returncode == 0, built.stderr
    yield
    build.remove(AIOHTTP_RUNTIME)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_reaches_an_allowed_host_without_any_setting(
    outside: Outside, name: str, verdict: str, request: pytest.FixtureRequest
) -> None:
    client = CLIENTS[name]
    if client.language == AIOHTTP_RUNTIME:
        request.getfixturevalue("aiohttp_runtime")
    code = client.code.replace("URL", outside.url(f"/by/{name}"))
    result = outside.run(code, outside.rule(opened=verdict == "opened"), language=client.language)
    assert result.exit_code == 0, result.stderr
    assert [(each.method, each.path) for each in outside.https.requests] == [("GET", f"/by/{name}")]
    check_heard(outside, result, verdict)
    # The server sends back what it heard.
    assert f'"path": "/by/{name}"' in result.stdout
    assert ("Bearer " + "*" * len(TOKEN) in result.stdout) == (verdict == "opened")


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_tells_why_a_host_is_refused(outside: Outside, name: str, request: pytest.FixtureRequest) -> None:
    client = CLIENTS[name]
    if client.language == AIOHTTP_RUNTIME:
        request.getfixturevalue("aiohttp_runtime")
    result = outside.run(
        client.code.replace("URL", "https://evil.test/secret"), outside.rule(), language=client.language
    )
    assert REFUSED in result.stdout + result.stderr
    assert {(each.host, each.verdict) for each in result.connections} == {("evil.test", "refused")}
    assert "evil.test" in {each.rule for each in result.refusals}
    assert not outside.https.requests


# Tools that fetch more than one file


def tool(name: str) -> str:
    """Return the line of a script that ends it where a tool is not there."""
    return f"command -v {name} >/dev/null || {{ echo no {name} >&2; exit {MISSING}; }}\n"


PIP = "python3 -m pip --version >/dev/null || exit 77\npython3 -m pip install --no-cache-dir --no-input --target /tmp/there --index-url "
NPM = "cd /tmp && npm install --no-audit --no-fund --no-update-notifier --registry="


def test_pip_installs_from_an_allowed_index(outside: Outside, verdict: str) -> None:
    outside.https.answer = package_index.answer
    code = f"{PIP}{outside.url('/simple')} {package_index.PACKAGE} >&2 && PYTHONPATH=/tmp/there python3 -c 'import colours; print(colours.NAME)'"
    result = outside.run(code, outside.rule(opened=verdict == "opened"), language="bash")
    assert result.stdout == f"{package_index.NAME}\n", result.stderr
    assert [each.path for each in outside.https.requests] == ["/simple/colours/", f"/files/{package_index.WHEEL}"]
    check_heard(outside, result, verdict)


def test_npm_installs_from_an_allowed_registry(outside: Outside, verdict: str) -> None:
    outside.https.answer = package_index.answer
    code = f"{tool('npm')}{NPM}{outside.url('/npm/')} {package_index.PACKAGE} >&2 && node -p 'require(\"colours\")'"
    result = outside.run(code, outside.rule(opened=verdict == "opened"), language="bash")
    assert result.stdout == f"{package_index.NAME}\n", result.stderr
    assert [each.path for each in outside.https.requests] == ["/npm/colours", f"/files/{package_index.TARBALL}"]
    check_heard(outside, result, verdict)


def test_git_clones_from_an_allowed_host(outside: Outside, tmp_path: Path, verdict: str) -> None:
    outside.https.answer = lambda request: served(tmp_path, request)
    make_repository(tmp_path)
    code = f"{tool('git')}git clone -q {outside.url('/project.git')} /tmp/there && cat /tmp/there/README"
    result = outside.run(code, outside.rule(opened=verdict == "opened"), language="bash")
    assert result.stdout == "of a repository\n", result.stderr
    assert outside.https.requests[0].path == "/project.git/info/refs?service=git-upload-pack"
    check_heard(outside, result, verdict)


def make_repository(folder: Path) -> None:
    """Make `project.git` in a folder, ready for git's dumb protocol."""
    if shutil.which("git") is None:
        pytest.skip("no git here")
    me = {f"GIT_{role}_{what}": "me@good.test" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **me, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    (folder / "work").mkdir()
    (folder / "work" / "README").write_text("of a repository\n")
    for words in (
        "init -q -b main work", "-C work add README", "-C work commit -q -m one", "clone -q --bare work project.git",
        "-C project.git update-server-info",
    ):  # fmt: skip
        subprocess.run(["git", *words.split()], cwd=folder, env=environment, check=True, capture_output=True)


def served(folder: Path, request: Request) -> tuple[int, dict[str, str], bytes]:
    """Answer with a file of a folder."""
    path = folder / request.path.partition("?")[0].lstrip("/")
    return (200, {"content-type": "text/plain"}, path.read_bytes()) if path.is_file() else (404, {}, b"")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        # Of an index pip tells nothing but that the package is not there; why is in the result.
        pytest.param(f"{PIP}https://evil.test/simple colours", r"https://evil\.test/simple", id="pip"),
        pytest.param(
            f"{PIP}https://a.test/ https://evil.test/{package_index.WHEEL}", f"403 .*{REFUSED}", id="pip by URL"
        ),
        # These tell the status and the URL.
        pytest.param(f"{tool('npm')}{NPM}https://evil.test/npm/ colours", r"403 .*https://evil\.test/npm", id="npm"),
        pytest.param(f"{tool('git')}git clone https://evil.test/a.git /tmp/a", r"https://evil\.test/.* 403", id="git"),
    ],
)
def test_a_tool_tells_which_host_is_refused(outside: Outside, code: str, says: str) -> None:
    result = outside.run(code, outside.rule(), language="bash")
    assert result.exit_code != 0
    assert re.search(says, result.stdout + result.stderr), result.stderr
    assert {(each.host, each.verdict) for each in result.connections} == {("evil.test", "refused")}
    assert any(REFUSED in each.why for each in result.refusals)


# Clients that are told of a proxy

#: Whoever looks a name up fails: a proxy's client need not.
NO_NAMES = """
import os, socket
os.environ.update(HTTPS_PROXY='http://127.0.0.1:3128', HTTP_PROXY='http://127.0.0.1:3128')
really = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    assert host == '127.0.0.1', host
    return really(host, *rest, **more)
socket.getaddrinfo = getaddrinfo
"""
CURL_BY_PROXY = """command -v curl >/dev/null || exit 77
export HTTPS_PROXY=http://127.0.0.1:3128 http_proxy=http://127.0.0.1:3128
curl -sS -w '%{stderr}%{remote_ip}:%{remote_port} %{http_connect}' URL; test $(curl -s -o /dev/null -w %{remote_port} URL) = 3128
"""
BY_PROXY = {
    "requests": Client("python", NO_NAMES + "import requests; print(requests.get('URL').text)"),
    "httpx": Client("python", NO_NAMES + "import httpx; print(httpx.get('URL').text)"),
    "urllib": Client(
        "python", NO_NAMES + "import urllib.request; print(urllib.request.urlopen('URL').read().decode())"
    ),
    "curl": Client("bash", CURL_BY_PROXY),
}


@pytest.mark.parametrize("name", BY_PROXY)
def test_a_client_that_uses_the_proxy_reaches_https_by_connect(outside: Outside, name: str, verdict: str) -> None:
    client = BY_PROXY[name]
    code = client.code.replace("URL", outside.url(f"/by/{name}"))
    result = outside.run(code, outside.rule(opened=verdict == "opened"), language=client.language)
    assert result.exit_code == 0, result.stderr
    assert {(each.method, each.path) for each in outside.https.requests} == {("GET", f"/by/{name}")}
    check_heard(outside, result, verdict)
    assert f'"path": "/by/{name}"' in result.stdout


@pytest.mark.parametrize("name", BY_PROXY)
def test_a_client_that_uses_the_proxy_reaches_http_by_an_absolute_url(outside: Outside, name: str) -> None:
    client = BY_PROXY[name]
    url = f"http://good.test:{outside.http.port}/by/{name}"
    result = outside.run(client.code.replace("URL", url), outside.rule(), language=client.language)
    assert result.exit_code == 0, result.stderr
    assert {each.path for each in outside.http.requests} == {f"/by/{name}"}
    assert outside.http.requests[0].header("host") == f"good.test:{outside.http.port}"
    assert {(each.host, each.verdict) for each in result.connections} == {("good.test", "plain")}
    assert f'"path": "/by/{name}"' in result.stdout


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("name", BY_PROXY)
def test_the_proxy_refuses_a_host_and_tells_which(outside: Outside, name: str, scheme: str) -> None:
    client = BY_PROXY[name]
    result = outside.run(
        client.code.replace("URL", f"{scheme}://evil.test/x"), outside.rule(), language=client.language
    )
    said = result.stdout + result.stderr
    # Of a refused CONNECT curl tells the status alone.
    assert ("403" if name == "curl" and scheme == "https" else REFUSED) in said
    assert {(each.host, each.verdict) for each in result.connections} == {("evil.test", "refused")}
    assert any(REFUSED in each.why for each in result.refusals)


# Kinds of requests and answers


@contextlib.contextmanager
def speaking(context: ssl.SSLContext | None, talk: Callable[[socket.socket], None], port: int = 0) -> Iterator[int]:
    """Give the port of a server that takes one connection and then says what it wants."""
    with socket.create_server(("127.0.0.1", port)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                client, _address = listener.accept()
                client.settimeout(20)
                with context.wrap_socket(client, server_side=True) if context is not None else client as opened:
                    talk(opened)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def session(outside: Outside, code: str, verdict: str) -> ExecutionResult:
    """Run a program that has `s`, a session of requests, and `url`."""
    start = f"import requests\ns = requests.Session()\nurl = {outside.url('')!r}\n"
    result = outside.run(start + code, outside.rule(opened=verdict == "opened"))
    assert result.exit_code == 0, result.stderr
    check_heard(outside, result, verdict)
    return result


def test_a_body_arrives_as_it_was_sent(outside: Outside, verdict: str) -> None:
    session(outside, "s.post(url + '/form', data={'a': 'ü b', 'c': '1'}).raise_for_status()", verdict)
    (request,) = outside.https.requests
    assert (request.method, request.path, request.body) == ("POST", "/form", b"a=%C3%BC+b&c=1")
    assert request.header("content-type") == "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("data", "header"),
    [
        pytest.param(
            "(body[at : at + 70_000] for at in range(0, len(body), 70_000))", "transfer-encoding", id="chunked"
        ),
        pytest.param("body", "content-length", id="counted"),
    ],
)
def test_an_upload_of_some_megabytes_arrives_whole(outside: Outside, verdict: str, data: str, header: str) -> None:
    outside.https.answer = lambda request: (201, {}, hashlib.sha256(request.body).hexdigest().encode())
    code = f"body = bytes(range(256)) * 12_000\nr = s.put(url + '/up', data={data})\nprint(r.status_code, r.text)"
    result = session(outside, code, verdict)
    assert result.stdout == f"201 {hashlib.sha256(BODY).hexdigest()}\n"
    (request,) = outside.https.requests
    assert request.body == BODY
    assert request.header(header) is not None


def test_a_download_of_some_megabytes_arrives_whole(outside: Outside, verdict: str) -> None:
    outside.https.answer = lambda _request: (200, {"content-type": "application/octet-stream"}, BODY)
    code = "import hashlib\nr = s.get(url + '/big')\nprint(len(r.content), hashlib.sha256(r.content).hexdigest())"
    result = session(outside, code, verdict)
    assert result.stdout == f"{len(BODY)} {hashlib.sha256(BODY).hexdigest()}\n"


def test_answers_without_a_body_end(outside: Outside, verdict: str) -> None:
    methods = []

    def talk(client: socket.socket) -> None:
        while head := client.recv(1 << 16):
            methods.append(head.split(b" ")[0])
            # An answer to HEAD says how long another's would be, 204 says nothing of it.
            says = b"200 OK\r\nContent-Length: 3072000" if methods[-1] == b"HEAD" else b"204 No Content"
            client.sendall(b"HTTP/1.1 " + says + b"\r\n\r\n")

    with speaking(outside.authority.context("good.test"), talk) as port:
        code = f"""
import requests
s = requests.Session()
for method in 'HEAD', 'DELETE', 'HEAD':
    r = s.request(method, 'https://good.test:{port}/', timeout=5)
    print(r.status_code, r.headers.get('content-length'), len(r.content))"""
        result = outside.run(code, outside.rule(port, opened=verdict == "opened"))
    assert result.stdout == "200 3072000 0\n204 None 0\n200 3072000 0\n", result.stderr
    assert methods == [b"HEAD", b"DELETE", b"HEAD"]
    assert [each.verdict for each in result.connections] == [verdict]


def test_ten_requests_go_over_one_connection(outside: Outside, verdict: str) -> None:
    code = "for n in range(10): print(s.get(f'{url}/{n}').json()['path'])"
    result = session(outside, code, verdict)
    assert result.stdout.split() == [f"/{n}" for n in range(10)]
    (line,) = result.connections
    assert line.requests == (10 if verdict == "opened" else 0)


@pytest.mark.parametrize("language", ["python", "bash"])
def test_a_redirect_to_a_host_that_is_not_allowed_is_refused(outside: Outside, verdict: str, language: str) -> None:
    outside.https.answer = lambda _request: (302, {"location": "https://evil.test/catch?me"}, b"")
    url = outside.url("/go")
    code = {
        "python": f"import requests; r = requests.get('{url}'); print(r.status_code, r.text)",
        "bash": f"{tool('curl')}curl -sSL -w '%{{http_code}}' {url}",
    }[language]
    result = outside.run(code, outside.rule(opened=verdict == "opened"), language=language)
    assert REFUSED in result.stdout, result.stderr
    assert "403" in result.stdout
    assert [each.path for each in outside.https.requests] == ["/go"]
    assert {(each.host, each.verdict) for each in result.connections} == {
        ("good.test", verdict),
        ("evil.test", "refused"),
    }
    assert TOKEN not in json.dumps(result.as_json())


STREAMS = {
    "requests": Client(
        "python",
        "import requests\nfor line in requests.get('URL', stream=True).iter_lines(chunk_size=1): line and print(line.decode(), flush=True)",
    ),
    "httpx": Client(
        "python",
        "import httpx\nwith httpx.stream('GET', 'URL') as r:\n    for line in r.iter_lines(): line and print(line, flush=True)",
    ),
    "node_fetch": Client(
        "javascript",
        "const text = new TextDecoder();\nfor await (const piece of (await fetch('URL')).body) process.stdout.write(text.decode(piece));",
    ),
    "curl": Client("bash", f"{tool('curl')}curl -sSN URL"),
}


@pytest.mark.parametrize("ends", ["chunked", "by closing"])
@pytest.mark.parametrize("name", STREAMS)
def test_events_arrive_while_the_server_holds_the_others(outside: Outside, verdict: str, name: str, ends: str) -> None:
    heard, arrived, in_time = bytearray(), [threading.Event() for _each in range(3)], []

    def hear(_stream: str, piece: bytes) -> None:
        heard.extend(piece)
        for n, event in enumerate(arrived):
            if f"event {n} ends".encode() in heard:
                event.set()

    def talk(client: socket.socket) -> None:
        head = client.recv(1 << 16)
        in_time.append((f"Bearer {TOKEN}".encode() in head) == (verdict == "opened"))
        framing = b"Transfer-Encoding: chunked" if ends == "chunked" else b"Connection: close"
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + framing + b"\r\n\r\n")
        for n, event in enumerate(arrived):
            data = f"data: event {n} ends\n\n".encode()
            client.sendall(b"%x\r\n%b\r\n" % (len(data), data) if ends == "chunked" else data)
            in_time.append(event.wait(10))
        client.sendall(b"0\r\n\r\n" if ends == "chunked" else b"")

    client = STREAMS[name]
    with speaking(outside.authority.context("good.test"), talk) as port:
        code = client.code.replace("URL", f"https://good.test:{port}/events")
        result = outside.run(
            code, outside.rule(port, opened=verdict == "opened"), language=client.language, on_output=hear
        )
    assert in_time == [True] * 4, result.stderr
    assert [line for line in result.stdout.split("\n") if line] == [f"data: event {n} ends" for n in range(3)]
    assert {each.verdict for each in result.connections} == {verdict}


def test_the_usual_ports_need_no_port_in_a_rule(outside: Outside, verdict: str) -> None:
    heard: list[bytes] = []

    def talk(client: socket.socket) -> None:
        heard.append(client.recv(1 << 16))
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")

    rule = Allow(host="good.test", addresses=LOOPBACK, credential=Bearer(token=TOKEN) if verdict == "opened" else None)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(speaking(outside.authority.context("good.test"), talk, 443))
            stack.enter_context(speaking(None, talk, 80))
        except OSError as error:
            pytest.skip(f"ports 443 and 80 of this machine cannot be had: {error}")
        code = "import requests\nfor scheme in 'https', 'http': r = requests.get(f'{scheme}://good.test/x'); print(r.status_code, r.text)"
        result = outside.run(code, rule)
    if verdict == "opened":
        assert result.stdout.startswith(
            "200 hello\n403 fumehood: host good.test has a credential, which goes over https alone"
        )
        assert [b"GET /x HTTP/1.1\r\n" in each and f"Bearer {TOKEN}".encode() in each for each in heard] == [True]
    else:
        assert result.stdout == "200 hello\n200 hello\n", result.stderr
        assert [each.split(b"\r\n")[1].lower() for each in heard] == [b"host: good.test"] * 2
    assert {(each.port, each.verdict) for each in result.connections} == {
        (443, verdict), (80, "refused" if verdict == "opened" else "plain"),
    }  # fmt: skip


# Clients that are slow to go


LAST_REQUEST = """
import socket, ssl
context = ssl.create_default_context()
def last_request():
    s = context.wrap_socket(socket.create_connection(('good.test', PORT)), server_hostname='good.test')
    s.sendall(b'GET / HTTP/1.1\\r\\nHost: good.test:PORT\\r\\nConnection: close\\r\\n\\r\\n')
    return s
"""


def test_a_client_whose_request_is_its_last_hears_the_end_at_once(outside: Outside, verdict: str) -> None:
    code = f"{LAST_REQUEST}s = last_request()\nwhile s.recv(65536): pass\nprint('end')".replace(
        "PORT", str(outside.https.port)
    )
    result = outside.run(code, outside.rule(opened=verdict == "opened"))
    assert result.stdout == "end\n", result.stderr
    assert result.connections[0].duration_seconds < 0.9


def test_a_client_that_keeps_an_ended_connection_open_is_in_nobodys_way(outside: Outside, verdict: str) -> None:
    code = f"""{LAST_REQUEST}
import time, requests
held = [last_request() for n in range(4)]
for s in held: s.recv(1)
time.sleep(2.5)
print([requests.get('https://good.test:PORT/').status_code for n in range(8)])""".replace(
        "PORT", str(outside.https.port)
    )
    result = outside.run(code, outside.rule(opened=verdict == "opened"))
    assert result.stdout == f"{[200] * 8}\n", result.stderr
    check_heard(outside, result, verdict)
