"""A name server that lies: allowed names that lead to where nobody may go, by every spelling and every trick with time."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from fumehood import Allow, Bearer, CellResult, Engine, Network, Session
from tests.testing.outside import LOOPBACK, Authority, NameServer, Server


def own_addresses() -> list[str]:
    """Return the addresses of this machine beyond loopback, as far as a route tells them."""
    found = []
    for family, far in ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            try:
                asking.connect((far, 53))
                found.append(str(asking.getsockname()[0]))
            except OSError:
                pass  # no route there
    return found


FORBIDDEN = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "nobody": ["0.0.0.0", "0.1.2.3", "::"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd00:ec2::254"],
    "link-local": ["169.254.169.254", "169.254.0.1", "fe80::1"],
    "shared": ["100.64.0.1", "100.100.100.200", "100.127.255.255"],
    "a cloud's": ["168.63.129.16", "192.0.0.192"],
    "multicast and broadcast": ["224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1", "ff02::1"],
    "documentation and benchmarks": [
        "192.0.2.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "2001:db8::1",
    ],
    "IPv4 in IPv6": ["::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1"],
    "tunnels": ["2002:7f00:1::1", "2001:0:53aa:64c:0:fbff:80ff:fffe"],
    "this machine's own": own_addresses(),
}
NAMES = {
    f"h{number}.test": [address]
    for number, address in enumerate(each for group in FORBIDDEN.values() for each in group)
}
MIXED = {
    "mixed1.test": ["93.184.215.14", "127.0.0.1"],
    "mixed2.test": ["2606:2800:21f:cb07:6820:80da:af6b:8b2c", "10.0.0.1"],
    "mixed3.test": ["93.184.215.14", "::ffff:10.0.0.1"],
}


class Outside:
    def __init__(self, names: NameServer, server: Server, session: Session) -> None:
        self.names, self.server, self.session = names, server, session

    def get(self, *names: str, scheme: str = "https") -> CellResult:
        """Ask each host for `/`; the last expression is a list of [status, text] by name."""
        code = f"""import requests, json
found = {{}}
for name in {list(names)!r}:
    r = requests.get(f'{scheme}://{{name}}:{self.server.port}/')
    found[name] = [r.status_code, r.text]
print(json.dumps(found))"""
        return self.session.run(code)


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    authority = Authority()
    addresses = {name: [found] for name, found in (NAMES | MIXED).items()}
    with (
        authority.trusted(),
        NameServer(addresses) as names,
        Server(context=authority.context("good.test", "flip.test", "stay.test")) as server,
        Engine(nameserver=names.address) as engine,
        engine.session(network=Network()) as session,
    ):
        yield Outside(names, server, session)


@pytest.mark.parametrize("opened", [False, True], ids=["tunnelled", "opened"])
def test_an_allowed_name_leads_to_no_address_that_is_not_the_internets(outside: Outside, opened: bool) -> None:
    credential = Bearer(token="the-real-token") if opened else None
    outside.session.set_network(
        Network(allow=[Allow(host="*.test", ports=(outside.server.port,), credential=credential)])
    )
    result = outside.get(*NAMES, *MIXED)
    found = json.loads(result.stdout)
    assert len(found) == len(NAMES) + len(MIXED)
    for name, (status, text) in found.items():
        assert status == 403, (name, text)
        assert f"host {name} leads to " in text, text
        assert ", which is " in text
        if name in NAMES:
            (address,) = NAMES[name]
            assert f"leads to {address}, which is" in text
    assert {line.verdict for line in result.connections} == {"refused"}
    assert not outside.server.requests


def test_such_an_address_is_reached_where_the_rule_names_its_network(outside: Outside) -> None:
    outside.names.addresses["good.test"] = [["127.0.0.1"]]
    rule = Allow(host="good.test", ports=(outside.server.port,), addresses=LOOPBACK)
    outside.session.set_network(Network(allow=[rule]))
    assert json.loads(outside.get("good.test").stdout)["good.test"][0] == 200
    outside.session.set_network(Network(allow=[rule.replace(addresses=("10.0.0.0/8",))]))
    assert json.loads(outside.get("good.test").stdout)["good.test"][0] == 403
    assert len(outside.server.requests) == 1
    outside.server.requests.clear()


def test_a_name_that_changes_its_mind_is_asked_once_for_each_connection(outside: Outside) -> None:
    # First an address that may be reached, then one that may not, then again: each look-up decides on its own connection.
    good, bad = ["127.0.0.1"], ["127.0.0.2"]
    outside.names.addresses["flip.test"] = [good, bad, good, bad]
    outside.names.asked.clear()
    outside.session.set_network(
        Network(allow=[Allow(host="flip.test", ports=(outside.server.port,), addresses=("127.0.0.1/32",))])
    )
    statuses = [json.loads(outside.get("flip.test").stdout)["flip.test"][0] for _each in range(4)]
    assert statuses == [200, 403, 200, 403]
    assert outside.names.asked == ["flip.test"] * 4
    assert len(outside.server.requests) == 2
    outside.server.requests.clear()


def test_a_connection_that_stays_is_not_looked_up_again(outside: Outside) -> None:
    outside.names.addresses["stay.test"] = [["127.0.0.1"], ["10.0.0.1"]]
    outside.names.asked.clear()
    rule = Allow(
        host="stay.test", ports=(outside.server.port,), addresses=LOOPBACK, credential=Bearer(token="the-real-token")
    )
    outside.session.set_network(Network(allow=[rule]))
    code = f"""import requests
s = requests.Session()
print([s.get('https://stay.test:{outside.server.port}/').status_code for _ in range(3)])"""
    assert outside.session.run(code).stdout == "[200, 200, 200]\n"
    assert outside.names.asked == ["stay.test"]
    outside.server.requests.clear()


def test_what_the_program_asks_never_reaches_the_name_server_unless_it_connects_to_an_allowed_host(
    outside: Outside,
) -> None:
    outside.names.asked.clear()
    outside.session.set_network(Network(allow=["good.test"]))
    code = """import socket
for n in range(50):
    for name in (f'data{n}.evil.test', f'data{n}.good.test', 'good.test'):
        socket.getaddrinfo(name, 443)
print('done')"""
    result = outside.session.run(code)
    assert result.stdout == "done\n"
    assert outside.names.asked == []
    assert {each.host for each in result.refusals} >= {"data0.evil.test", "data0.good.test"}


def test_a_name_without_an_address_and_a_server_that_is_silent_are_told(outside: Outside) -> None:
    outside.session.set_network(Network(allow=[Allow(host="*", ports=(outside.server.port,))]))
    found = json.loads(outside.get("nowhere.example").stdout)
    status, text = found["nowhere.example"]
    assert status == 502
    assert "cannot be looked up" in text
