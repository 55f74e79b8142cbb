"""Attacks over the network: the host's own ports in every spelling, other sockets of the host's, and the outside."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import Attack


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A port of the host's, on every address it has."""
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        listener.settimeout(0.2)
        yield listener


SPELLINGS = ["127.0.0.1", "localhost", "0.0.0.0", "127.1", "2130706433", "0x7f.1", "::1", "::", "::ffff:127.0.0.1"]


@pytest.mark.parametrize("host", SPELLINGS)
def test_p85_a_port_of_the_hosts_is_out_of_reach(attack: Attack, server: socket.socket, host: str) -> None:
    port = server.getsockname()[1]
    result = attack(f"print(tried(lambda: socket.create_connection(({host!r}, {port}), timeout=2).sendall(b'x')))")
    with pytest.raises(TimeoutError):
        server.accept()[0].close()
    assert result.stdout != "done\n"


def test_p85_a_packet_to_the_host_does_not_arrive(attack: Attack) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.3)
        port = receiver.getsockname()[1]
        attack(f"socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))")
        with pytest.raises(TimeoutError):
            receiver.recv(10)


def test_p84_the_network_is_another_one_and_holds_only_lo(attack: Attack) -> None:
    result = attack("print(os.readlink('/proc/self/ns/net'), [name for _n, name in socket.if_nameindex()])")
    # Without netlink the C library cannot list interfaces; either answer shows that there is none but lo.
    assert str(Path("/proc/self/ns/net").readlink()) not in result.stdout
    namespace = attack(
        "print(sorted(line.split(':')[0].strip() for line in open('/proc/self/net/dev') if ':' in line))"
    )
    assert namespace.stdout == "['lo']\n"


def test_p84_going_outside_is_refused_at_once_and_counted(attack: Attack) -> None:
    # A connected datagram socket sends nothing: only the route is looked up.
    result = attack(
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nprint(tried(lambda: s.connect(('192.0.2.1', 53))))"
    )
    assert result.stdout == "ENETUNREACH\n"
    assert result.network_refused > 0


def test_p96_no_name_is_resolved_and_the_attempt_is_counted(attack: Attack) -> None:
    result = attack("""
        if os.path.isdir("/sys"):
            sys.exit("no walls: this must not ask a real resolver")
        import time
        start = time.monotonic()
        try:
            socket.getaddrinfo("fumehood.invalid", 443)
        except socket.gaierror:
            print("refused", time.monotonic() - start < 2)
    """)
    assert result.stdout == "refused True\n"
    assert result.network_refused > 0


def test_p99_unsetting_proxy_variables_opens_nothing(attack: Attack, server: socket.socket) -> None:
    port = server.getsockname()[1]
    result = attack(
        f"""
        for name in list(os.environ):
            if "proxy" in name.lower():
                del os.environ[name]
        import urllib.request
        try:
            urllib.request.urlopen("http://127.0.0.1:{port}/", timeout=1)
        except OSError as error:
            print(type(error.reason).__name__ if hasattr(error, "reason") else type(error).__name__)
        """
    )
    with pytest.raises(TimeoutError):
        server.accept()[0].close()
    assert result.stdout == "ConnectionRefusedError\n"


def test_p100_an_abstract_socket_of_the_hosts_is_not_there(attack: Attack) -> None:
    name = f"\0escape-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        server.settimeout(0.2)
        result = attack(f"print(tried(lambda: socket.socket(socket.AF_UNIX).connect({name!r})))")
        with pytest.raises(TimeoutError):
            server.accept()[0].close()
    assert result.stdout in ("ECONNREFUSED\n", "EPERM\n")


METADATA = ["169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254"]


@pytest.mark.parametrize("address", METADATA)
def test_p86_a_clouds_metadata_service_has_no_route(attack: Attack, address: str) -> None:
    # A connected datagram socket sends nothing: without walls, too, nobody is asked.
    family = "socket.AF_INET6" if ":" in address else "socket.AF_INET"
    result = attack(f"print(tried(lambda: socket.socket({family}, socket.SOCK_DGRAM).connect(({address!r}, 80))))")
    assert result.stdout == "ENETUNREACH\n"
    assert result.network_refused > 0


def test_p85_a_port_that_the_program_opens_is_not_the_hosts(attack: Attack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    reached, over = threading.Event(), threading.Event()

    def knock() -> None:
        while not over.wait(0.02):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
                reached.set()
            except OSError:
                continue

    with ThreadPoolExecutor(1) as host:
        host.submit(knock)
        result = attack(f"""
            server = socket.create_server(("0.0.0.0", {port}))
            server.settimeout(0.5)
            try:
                server.accept()
            except TimeoutError:
                print("nobody came")
        """)
        over.set()
    assert not reached.is_set()
    assert result.stdout == "nobody came\n"


def test_p06_a_leaked_socket_of_the_hosts_is_not_there(attack: Attack, server: socket.socket) -> None:
    server.set_inheritable(True)
    result = attack("""
        import stat
        for number in range(3, 1024):
            if os.path.exists(f"/proc/self/fd/{number}") and stat.S_ISSOCK(os.stat(number).st_mode):
                print(number)
        print("looked")
    """)
    assert result.stdout == "looked\n"


def test_p100_a_socket_in_a_shared_folder_is_not_the_hosts(attack: Attack) -> None:
    path = Path("/tmp", f"escape-{secrets.token_hex(8)}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o777)
        server.listen()
        server.settimeout(0.2)
        result = attack(f"print(tried(lambda: socket.socket(socket.AF_UNIX).connect({str(path)!r})))")
        path.unlink()
        with pytest.raises(TimeoutError):
            server.accept()[0].close()
    assert result.stdout == "ENOENT\n"
